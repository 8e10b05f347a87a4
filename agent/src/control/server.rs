//! Where the control service, probes and metrics listen.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    service::interceptor::InterceptedService,
    transport::{self, server::Router},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use super::{
    Error, Events, Operator,
    access::Access,
    certificates::Certificates,
    connections::{self, Greeting, Listener},
    http, proto,
    renewal::Renewal,
    roles::Role,
    service::Service,
    socket,
    uploads::Uploads,
};
use crate::config::{Control, Listen};

/// Threads that serve; what reads state has its own.
const THREADS: usize = 2;
/// Threads that read state and write metrics.
const BLOCKING_THREADS_MAX: usize = 12;
/// How many calls of one connection are served at the same time.
const CALLS_MAX: usize = 32;
/// How often a client is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// After this long a connection takes no further calls, so that a client whose certificate was revoked
/// does not keep it. Calls under way go on to their end.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// How often the health service learns what the agent says.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// How long calls under way may take once the agent has ended.
const END_TIME_MAX: Duration = Duration::from_secs(1);
/// The health service's name for the control service.
const CONTROL: &str = "sidestream.control.v1.Control";

/// The permissions of the control socket, and of the one that can only read.
const SOCKET_MODE: u32 = 0o600;
const READ_ONLY_SOCKET_MODE: u32 = 0o660;

/// Listens until it is dropped.
pub struct Server {
    runtime: Option<Runtime>,
    end: watch::Sender<bool>,
    events: Arc<Events>,
    sockets: Vec<socket::Own>,
    control_address: Option<SocketAddr>,
    read_only_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    module_bytes_max: u64,
}

/// One of the two ways into the control service.
struct Entrance<'a> {
    /// The key of the pipeline file that says where it is.
    key: &'static str,
    listen: &'a Listen,
    access: Access,
    reads_only: bool,
}

/// Whether the files that `control` names can be used; what has to be done about them soon.
pub fn check(control: &Control) -> Result<Option<String>, Error> {
    Access::read("control.token_file", control.token_file.as_deref())?;
    if let Some(read_only) = &control.read_only {
        Access::read("control.read_only.token_file", read_only.token_file.as_deref())?;
    }
    let Some(files) = &control.tls else { return Ok(None) };
    match Certificates::read(files)?.ending(Timestamp::now()) {
        Some((message, true)) => Err(Error::Ended(message)),
        ending => Ok(ending.map(|(message, _)| message)),
    }
}

impl Server {
    /// Listens where `control` and `http` say, and takes modules of at most `module_bytes_max`.
    pub fn start(
        control: &Control,
        http: Option<SocketAddr>,
        module_bytes_max: u64,
        operator: &Arc<dyn Operator>,
        events: &Arc<Events>,
    ) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("control")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let mut server = Self {
            runtime: None,
            end: watch::Sender::new(false),
            events: Arc::clone(events),
            sockets: Vec::new(),
            control_address: None,
            read_only_address: None,
            http_address: None,
            module_bytes_max,
        };
        {
            let _inside = runtime.enter();
            // The control service tells where it is.
            let http = http.map(|address| server.bind_http(address)).transpose()?;
            server.serve_control(control, operator)?;
            if let Some(listener) = http {
                server.serve_http(listener, operator);
            }
        }
        server.runtime = Some(runtime);
        Ok(server)
    }

    /// Where probes and metrics are.
    #[must_use]
    pub const fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where the control service is, unless it is on a socket or off.
    #[must_use]
    pub const fn control_address(&self) -> Option<SocketAddr> {
        self.control_address
    }

    /// Where the control service is for those who only read, if anywhere but on a socket.
    #[must_use]
    pub const fn read_only_address(&self) -> Option<SocketAddr> {
        self.read_only_address
    }

    fn serve_control(
        &mut self,
        control: &Control,
        operator: &Arc<dyn Operator>,
    ) -> Result<(), Error> {
        let certificates =
            control.tls.as_ref().map(|files| Certificates::read(files).map(Arc::new));
        let certificates = certificates.transpose()?;
        let mut entrances = vec![Entrance {
            key: "control.listen",
            listen: &control.listen,
            access: Access::read("control.token_file", control.token_file.as_deref())?,
            reads_only: false,
        }];
        if let Some(read_only) = &control.read_only {
            let token = read_only.token_file.as_deref();
            entrances.push(Entrance {
                key: "control.read_only.listen",
                listen: &read_only.listen,
                access: Access::read("control.read_only.token_file", token)?,
                reads_only: true,
            });
        }
        let tokens = entrances.iter().map(|entrance| entrance.access.clone()).collect();
        for entrance in &entrances {
            self.open(entrance, certificates.as_ref(), operator)?;
        }
        let renewal = Renewal::new(certificates, tokens, Arc::clone(&self.events));
        if !renewal.is_idle() {
            tokio::spawn(renewal.run());
        }
        Ok(())
    }

    /// Opens a way into the control service.
    fn open(
        &mut self,
        entrance: &Entrance<'_>,
        certificates: Option<&Arc<Certificates>>,
        operator: &Arc<dyn Operator>,
    ) -> Result<(), Error> {
        let (key, reads_only) = (entrance.key, entrance.reads_only);
        let (listener, certificates) = match entrance.listen {
            Listen::Off => return Ok(()),
            Listen::Unix(path) => (self.open_socket(key, path, reads_only)?, None),
            &Listen::Tcp(address) => {
                let listener = bind_tcp(key, address)?;
                let bound = listener.local_addr().ok();
                let address = bound.unwrap_or(address);
                match reads_only {
                    true => self.read_only_address = bound,
                    false => self.control_address = bound,
                }
                info!(%address, reads_only, tls = certificates.is_some(), "the control interface listens");
                let asks = entrance.access.asks() || certificates.is_some_and(|of| of.asks());
                if !asks && !reads_only {
                    warn!(
                        %address,
                        "whoever is on this machine, or in this pod, may swap modules and drain: set \
                         `control.token_file` or `control.tls.client_ca`, or listen on a socket"
                    );
                }
                (Listener::Tcp(listener), certificates.cloned())
            }
        };
        let connections = connections::accept(listener, Greeting::Http2, certificates);
        let router = self.router(entrance, operator);
        self.spawn(
            router.serve_with_incoming_shutdown(ReceiverStream::new(connections), self.ended()),
        );
        Ok(())
    }

    fn open_socket(
        &mut self,
        key: &'static str,
        path: &Path,
        reads_only: bool,
    ) -> Result<Listener, Error> {
        let mode = if reads_only { READ_ONLY_SOCKET_MODE } else { SOCKET_MODE };
        let (listener, own) = socket::bind(key, path, mode)?;
        self.sockets.push(own);
        info!(socket = %path.display(), reads_only, "the control interface listens");
        Ok(Listener::Unix(listener))
    }

    fn router(&self, entrance: &Entrance<'_>, operator: &Arc<dyn Operator>) -> Router {
        let check = || {
            let access = entrance.access.clone();
            move |request| access.check(request)
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(reporter, Arc::clone(operator)));
        let events = Arc::clone(&self.events);
        let (operator, http_address) = (Arc::clone(operator), self.http_address);
        let service = Service::new(operator, events, self.module_bytes_max, http_address);
        let service = Uploads::new(service, self.module_bytes_max);
        let service = match entrance.reads_only {
            true => Role::read_only(service),
            false => Role::full(service),
        };
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptions were made by the build");
        transport::Server::builder()
            .concurrency_limit_per_connection(CALLS_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIME_MAX))
            .max_connection_age(CONNECTION_AGE_MAX)
            .add_service(health)
            .add_service(InterceptedService::new(service, check()))
            .add_service(InterceptedService::new(reflection, check()))
    }

    fn bind_http(&mut self, address: SocketAddr) -> Result<TcpListener, Error> {
        let listener = bind_tcp("http.listen", address)?;
        self.http_address = listener.local_addr().ok();
        info!(address = %self.http_address.unwrap_or(address), "probes and metrics listen");
        Ok(listener)
    }

    fn serve_http(&self, listener: TcpListener, operator: &Arc<dyn Operator>) {
        let router = http::router(Arc::clone(operator));
        let connections = connections::accept(Listener::Tcp(listener), Greeting::Any, None);
        tokio::spawn(http::serve(connections, router, self.end.subscribe()));
    }

    fn spawn<E: std::error::Error>(
        &self,
        serve: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        tokio::spawn(async move {
            if let Err(error) = serve.await {
                warn!(error = %chain(&error), "the control interface has ended");
            }
        });
    }

    fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut end = self.end.subscribe();
        async move {
            // An error says that the server is gone, which is the same.
            end.wait_for(|ended| *ended).await.ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.events.close();
        self.end.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END_TIME_MAX);
        }
        self.sockets.clear();
    }
}

/// Tells the health service what the agent says, until the runtime ends.
async fn report_health(reporter: HealthReporter, operator: Arc<dyn Operator>) {
    loop {
        let status = match operator.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        for service in ["", CONTROL] {
            reporter.set_service_status(service, status).await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| Error::Listen { key, address: address.to_string(), source })
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
