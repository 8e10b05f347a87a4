//! How large a call's message may be: a module for a swap, a few keys for all others.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::BodyDataStream;
use tokio::{
    sync::Semaphore,
    time::{Instant, Sleep},
};
use tokio_stream::Stream;
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        BoxFuture, Bytes, Service as Tower, StdError,
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
/// How long its sender may stand still: meanwhile nobody else can send one.
const STANDSTILL_MAX: Duration = Duration::from_secs(5);

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
        let patient = |body| Patient::new(axum::body::Body::new(body), STANDSTILL_MAX);
        let request = request.map(|body| Body::new(axum::body::Body::from_stream(patient(body))));
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

/// What a sender sends, with a bound of the time that it may stand still.
struct Patient {
    pieces: BodyDataStream,
    standstill_max: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(body: axum::body::Body, standstill_max: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(standstill_max));
        Self { pieces: body.into_data_stream(), standstill_max, deadline }
    }
}

impl Stream for Patient {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(piece) = Pin::new(&mut self.pieces).poll_next(context) {
            let deadline = Instant::now() + self.standstill_max;
            self.deadline.as_mut().reset(deadline);
            return Poll::Ready(piece.map(|piece| piece.map_err(Into::into)));
        }
        self.deadline.as_mut().poll(context).map(|()| {
            let seconds = self.standstill_max.as_secs_f64();
            let message = format!("nothing more of the module came for {seconds} s: send it again");
            Some(Err(Status::deadline_exceeded(message).into()))
        })
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

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_sender_that_stands_still_is_given_up() {
        let piece = || Ok::<_, StdError>(Bytes::from_static(b"piece"));
        let pieces = tokio_stream::iter([piece(), piece()]).chain(tokio_stream::pending());
        let body = axum::body::Body::from_stream(pieces);
        let mut patient = Patient::new(body, Duration::from_millis(20));
        for _ in 0..2 {
            assert_eq!(patient.next().await.unwrap().unwrap(), "piece");
        }
        let error = patient.next().await.unwrap().unwrap_err();
        let status = error.downcast::<Status>().unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("send it again"), "{status}");
    }

    #[tokio::test]
    async fn what_comes_in_time_comes_whole() {
        let pieces = (0..100).map(|number| Ok::<_, StdError>(Bytes::from(vec![number; 1_000])));
        let body = axum::body::Body::from_stream(tokio_stream::iter(pieces));
        let mut patient = Patient::new(body, Duration::from_secs(60));
        let mut bytes = 0;
        while let Some(piece) = patient.next().await {
            bytes += piece.unwrap().len();
        }
        assert_eq!(bytes, 100_000);
    }
}
