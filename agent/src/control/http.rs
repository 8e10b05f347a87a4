//! Probes and metrics over HTTP. Nothing can be changed through it.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};

use super::Operator;

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
