//! What somebody may do who may only read.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use tonic::{
    Status,
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{Request, Response},
    },
    server::NamedService,
};

/// The calls that change nothing. Whatever is not here is refused.
const READS: &[&str] = &["GetStatus", "Get", "Scan", "WatchEvents"];

/// A service of which only some calls are open.
#[derive(Clone)]
pub(super) struct Role<S> {
    service: S,
    reads_only: bool,
}

impl<S> Role<S> {
    /// Every call is open.
    pub(super) const fn full(service: S) -> Self {
        Self { service, reads_only: false }
    }

    /// Calls that change something are refused.
    pub(super) const fn read_only(service: S) -> Self {
        Self { service, reads_only: true }
    }
}

impl<S> Service<Request<Body>> for Role<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let call = path.rsplit_once('/').map_or(path, |(_, call)| call);
        if self.reads_only && !READS.contains(&call) {
            let refusal = Status::permission_denied(format!(
                "this is `control.read_only`, where {call} is not allowed: use the agent's own control \
                 address (`control.listen`)"
            ));
            return Box::pin(async { Ok(refusal.into_http()) });
        }
        Box::pin(self.service.call(request))
    }
}

impl<S: NamedService> NamedService for Role<S> {
    const NAME: &'static str = S::NAME;
}
