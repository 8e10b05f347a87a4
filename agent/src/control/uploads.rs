//! How large a call's message may be: a module for a swap, a few keys for all others.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::Semaphore;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        BoxFuture, Service as Tower,
        http::{Request, Response},
    },
    server::NamedService,
};

use super::{proto::control_server::ControlServer, service::Service};

/// The call that brings a module.
const SWAP: &str = "/sidestream.control.v1.Control/Swap";
/// What a swap's message may have beside its module.
const SLACK_BYTES: u64 = 64 << 10;
/// How many modules are taken in at the same time.
const UPLOADS_MAX: usize = 1;
/// How long taking in a module may take.
pub(super) const UPLOAD_TIME_MAX: Duration = Duration::from_secs(120);

/// The control service, which takes a large message for a swap alone, and one of them at a time.
/// The check of who asks stands before it.
#[derive(Clone)]
pub(super) struct Uploads {
    ordinary: ControlServer<Service>,
    swaps: ControlServer<Service>,
    uploads: Arc<Semaphore>,
    module_bytes_max: u64,
}

impl Uploads {
    pub(super) fn new(service: Service, module_bytes_max: u64) -> Self {
        let ordinary = ControlServer::new(service);
        let bytes_max = module_bytes_max.saturating_add(SLACK_BYTES);
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let swaps = ordinary.clone().max_decoding_message_size(bytes_max);
        Self { ordinary, swaps, uploads: Arc::new(Semaphore::new(UPLOADS_MAX)), module_bytes_max }
    }

    /// Takes in the module and begins the swap; what comes after that is the answer's stream.
    async fn upload(mut self, request: Request<Body>) -> Response<Body> {
        let Ok(_permit) = self.uploads.try_acquire() else {
            return Status::aborted("another module is being taken in; try again").into_http();
        };
        let answer = tokio::time::timeout(UPLOAD_TIME_MAX, Tower::call(&mut self.swaps, request));
        match answer.await {
            Ok(Ok(answer)) if is_too_large(&answer) => too_large(self.module_bytes_max).into_http(),
            Ok(Ok(answer)) => answer,
            Ok(Err(never)) => match never {},
            Err(_) => {
                let seconds = UPLOAD_TIME_MAX.as_secs();
                let message = format!("the module did not come in {seconds} s");
                Status::deadline_exceeded(message).into_http()
            }
        }
    }
}

/// What the library says of a message above its limit.
fn is_too_large(answer: &Response<Body>) -> bool {
    let status = Status::from_header_map(answer.headers());
    status.is_some_and(|status| status.code() == Code::OutOfRange)
}

/// The answer to a module above the limit.
pub(super) fn too_large(module_bytes_max: u64) -> Status {
    Status::invalid_argument(format!(
        "the module has more than {module_bytes_max} bytes, which `limits.module_bytes_max` allows"
    ))
}

impl Tower<Request<Body>> for Uploads {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path() {
            SWAP => {
                let upload = self.clone().upload(request);
                Box::pin(async { Ok(upload.await) })
            }
            _ => Tower::call(&mut self.ordinary, request),
        }
    }
}

impl NamedService for Uploads {
    const NAME: &'static str = <ControlServer<Service> as NamedService>::NAME;
}
