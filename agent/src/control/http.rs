//! Probes and metrics over HTTP. Nothing can be changed through it.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Operator,
    connections::{Connection, Connections, GREETING_TIME_MAX},
};

/// How long a connection may last; a request that is under way then is answered.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long that may take.
const LAST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Serves connections until the end.
pub(super) async fn serve(
    mut connections: Connections,
    router: Router,
    end: watch::Receiver<bool>,
) {
    let mut ended = end.clone();
    loop {
        let next = tokio::select! {
            next = connections.recv() => next,
            _ = ended.wait_for(|ended| *ended) => return,
        };
        match next {
            Some(Ok(connection)) => {
                tokio::spawn(serve_one(connection, router.clone(), end.clone()));
            }
            Some(Err(_)) => {}
            None => return,
        }
    }
}

async fn serve_one(connection: Connection, router: Router, mut end: watch::Receiver<bool>) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    // It counts while a connection rests as well.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING_TIME_MAX);
    let service = TowerToHyperService::new(router);
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    tokio::select! {
        // What goes wrong with it is its client's.
        _ = served.as_mut() => return,
        () = sleep(CONNECTION_TIME_MAX) => {}
        _ = end.wait_for(|ended| *ended) => {}
    }
    served.as_mut().graceful_shutdown();
    // Dropped with whatever is left.
    timeout(LAST_ANSWER_TIME_MAX, served).await.ok();
}

/// What is there: `/livez`, `/readyz` and `/metrics`, for GET alone.
pub(super) fn router(operator: Arc<dyn Operator>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(operator)
}

async fn live(State(operator): State<Arc<dyn Operator>>) -> impl IntoResponse {
    probe(operator.live())
}

async fn ready(State(operator): State<Arc<dyn Operator>>) -> impl IntoResponse {
    probe(operator.ready())
}

async fn metrics(State(operator): State<Arc<dyn Operator>>) -> impl IntoResponse {
    let told = tokio::task::spawn_blocking(move || operator.metrics()).await;
    match told {
        Ok((text, content_type)) => ([(CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn probe(answer: Result<(), String>) -> (StatusCode, String) {
    match answer {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}
