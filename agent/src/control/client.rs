//! A client of the control service that waits for its answers: the command line's.

use std::{fs, path::PathBuf, time::Duration};

use tokio::runtime::Runtime;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::interceptor::InterceptedService,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{
    proto::{
        self, DrainRequest, GetRequest, GetStatusRequest, PauseRequest, ResumeRequest,
        RetryRequest, RollbackRequest, ScanRequest, SwapRequest, SwapUpdate, WatchEventsRequest,
        control_client::ControlClient, watch_events_response::What,
    },
    server::chain,
    uploads::UPLOAD_TIME_MAX,
};

/// How long to wait for a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long to wait for an answer; a pause may take twenty seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How often to ask whether the other side is still there, while an answer is waited for.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long that may be unanswered.
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(20);

/// Where an agent's control service is, and what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// `unix:` and a path, `http://host:port` or `https://host:port`.
    pub address: String,
    /// The file of the token.
    pub token_file: Option<PathBuf>,
    /// The file of the root that the agent's certificate is from.
    pub ca: Option<PathBuf>,
    /// The files of the client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A call did not succeed. The variants say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Look whether the agent runs, and listens there.
    #[error("no agent answers at {address}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What came instead.
        reason: String,
    },
    /// Bring the token.
    #[error("the agent refuses: {0}")]
    Unauthenticated(String),
    /// Ask otherwise, or later.
    #[error("{0}")]
    Refused(String),
    /// Wait until what is under way has ended.
    #[error("{0}")]
    Busy(String),
    /// Look at the file.
    #[error("{path}: {reason}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Adds the token to each call.
#[derive(Clone, Debug)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

type Service = InterceptedService<Channel, Bearer>;

/// A connection to an agent.
pub struct Client {
    runtime: Runtime,
    address: String,
    control: ControlClient<Service>,
    health: HealthClient<Service>,
    reflection: ServerReflectionClient<Service>,
}

impl Client {
    /// Connects to an agent.
    pub fn connect(target: &Target) -> Result<Self, Error> {
        let unreachable = |reason| Error::Unreachable { address: target.address.clone(), reason };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        let bearer = bearer(target)?;
        let endpoint = Endpoint::from_shared(target.address.clone())
            .map_err(|error| unreachable(chain(&error)))?
            .connect_timeout(CONNECT_TIME_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIME_MAX);
        let endpoint = match target.address.starts_with("https://") {
            true => {
                let tls = tls(target)?;
                endpoint.tls_config(tls).map_err(|error| unreachable(chain(&error)))?
            }
            false => endpoint,
        };
        let channel =
            runtime.block_on(endpoint.connect()).map_err(|error| unreachable(chain(&error)))?;
        let service = InterceptedService::new(channel, bearer);
        Ok(Self {
            runtime,
            address: target.address.clone(),
            control: ControlClient::new(service.clone()),
            health: HealthClient::new(service.clone()),
            reflection: ServerReflectionClient::new(service),
        })
    }

    /// What the agent does now.
    pub fn status(&mut self) -> Result<proto::Status, Error> {
        let control = &mut self.control;
        let answer = self.runtime.block_on(control.get_status(request(GetStatusRequest {})));
        answer.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    /// Makes all workers rest; says whether they have committed what they had.
    pub fn pause(&mut self) -> Result<bool, Error> {
        let answer = self.runtime.block_on(self.control.pause(request(PauseRequest {})));
        answer.map(|answer| answer.into_inner().committed).map_err(|status| self.failed(&status))
    }

    /// Lets the workers go on.
    pub fn resume(&mut self) -> Result<(), Error> {
        let answer = self.runtime.block_on(self.control.resume(request(ResumeRequest {})));
        answer.map(drop).map_err(|status| self.failed(&status))
    }

    /// Has stopped tasks tried again, all of them if none is named; says what came of each.
    pub fn retry(&mut self, tasks: Vec<String>) -> Result<Vec<proto::Retried>, Error> {
        let answer = self.runtime.block_on(self.control.retry(request(RetryRequest { tasks })));
        answer.map(|answer| answer.into_inner().tasks).map_err(|status| self.failed(&status))
    }

    /// Makes the agent commit and end.
    pub fn drain(&mut self, leave: Option<bool>) -> Result<(), Error> {
        let answer = self.runtime.block_on(self.control.drain(request(DrainRequest { leave })));
        answer.map(drop).map_err(|status| self.failed(&status))
    }

    /// Reads values by their keys.
    pub fn get(&mut self, get: GetRequest) -> Result<proto::GetResponse, Error> {
        let answer = self.runtime.block_on(self.control.get(request(get)));
        answer.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    /// Reads a page of entries.
    pub fn scan(&mut self, scan: ScanRequest) -> Result<proto::ScanResponse, Error> {
        let answer = self.runtime.block_on(self.control.scan(request(scan)));
        answer.map(Response::into_inner).map_err(|status| self.failed(&status))
    }

    /// Hands events to `take` until it says no, or there are no more.
    pub fn events(
        &mut self,
        watch: WatchEventsRequest,
        mut take: impl FnMut(What) -> bool,
    ) -> Result<(), Error> {
        let control = &mut self.control;
        let followed = self.runtime.block_on(async {
            let mut stream = control.watch_events(watch).await?.into_inner();
            while let Some(answer) = stream.message().await? {
                if answer.what.is_some_and(|what| !take(what)) {
                    break;
                }
            }
            Ok::<_, Status>(())
        });
        followed.map_err(|status| self.failed(&status))
    }

    /// Swaps a transform's module, and hands each update to `take` until it says no, or there are no
    /// more. The swap goes on without its reader.
    pub fn swap(
        &mut self,
        swap: SwapRequest,
        take: impl FnMut(SwapUpdate) -> bool,
    ) -> Result<(), Error> {
        let mut swap = Request::new(swap);
        swap.set_timeout(UPLOAD_TIME_MAX);
        let control = &mut self.control;
        let followed =
            self.runtime.block_on(async { follow(control.swap(swap).await?, take).await });
        followed.map_err(|status| self.failed(&status))
    }

    /// Takes a transform back to a version that ran before; as [`swap`](Self::swap).
    pub fn rollback(
        &mut self,
        rollback: RollbackRequest,
        take: impl FnMut(SwapUpdate) -> bool,
    ) -> Result<(), Error> {
        let rollback = request(rollback);
        let control = &mut self.control;
        let followed =
            self.runtime.block_on(async { follow(control.rollback(rollback).await?, take).await });
        followed.map_err(|status| self.failed(&status))
    }

    /// Asks the standard health service about a service, or for `""` about the agent; says
    /// whether it serves.
    pub fn health(&mut self, service: &str) -> Result<bool, Error> {
        use tonic_health::pb::health_check_response::ServingStatus;
        let check = request(HealthCheckRequest { service: service.to_owned() });
        let answer = self.runtime.block_on(self.health.check(check));
        let status = answer.map_err(|status| self.failed(&status))?.into_inner().status();
        Ok(status == ServingStatus::Serving)
    }

    /// The names of all services, by reflection.
    pub fn services(&mut self) -> Result<Vec<String>, Error> {
        let list = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let reflection = &mut self.reflection;
        let answer = self.runtime.block_on(async {
            let answers = reflection.server_reflection_info(tokio_stream::iter([list])).await?;
            answers.into_inner().message().await
        });
        let answer = answer.map_err(|status| self.failed(&status))?;
        match answer.and_then(|answer| answer.message_response) {
            Some(MessageResponse::ListServicesResponse(list)) => {
                Ok(list.service.into_iter().map(|service| service.name).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn failed(&self, status: &Status) -> Error {
        use tonic::Code;
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        // What the agent says has no cause on this side of the connection.
        if let Some(cause) = std::error::Error::source(status) {
            let reason = chain(cause);
            return Error::Unreachable { address: self.address.clone(), reason };
        }
        match status.code() {
            Code::Aborted => Error::Busy(message),
            Code::Unauthenticated => Error::Unauthenticated(message),
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
                Error::Unreachable { address: self.address.clone(), reason: message }
            }
            _ => Error::Refused(message),
        }
    }
}

/// Hands updates on until `take` says no, or there are no more.
async fn follow(
    updates: Response<Streaming<SwapUpdate>>,
    mut take: impl FnMut(SwapUpdate) -> bool,
) -> Result<(), Status> {
    let mut updates = updates.into_inner();
    while let Some(update) = updates.message().await? {
        if !take(update) {
            break;
        }
    }
    Ok(())
}

/// A call that does not wait for ever.
fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_TIME_MAX);
    request
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::File { path: path.clone(), reason: error.to_string() })
}

fn bearer(target: &Target) -> Result<Bearer, Error> {
    let Some(path) = &target.token_file else { return Ok(Bearer(None)) };
    let token = String::from_utf8_lossy(&read(path)?).trim().to_owned();
    let value = format!("Bearer {token}").parse().map_err(|_| Error::File {
        path: path.clone(),
        reason: "it holds characters that a token can't have".to_owned(),
    })?;
    Ok(Bearer(Some(value)))
}

fn tls(target: &Target) -> Result<ClientTlsConfig, Error> {
    let mut tls = ClientTlsConfig::new();
    if let Some(path) = &target.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(path)?));
    }
    if let Some((certificate, key)) = &target.identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}
