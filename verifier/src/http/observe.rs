//! What is counted of each request, and what who watches the server asks.

use super::app::App;
use super::described::{Asker, Routes, Text};
use super::trace;
use crate::metrics;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::Response;
use halfkey_protocol::Reason;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

/// `/healthz`, `/readyz`
pub fn health_routes() -> Routes {
    Routes::of(Asker::Anybody).get("/healthz", "The process answers.", alive).get(
        "/readyz",
        "A machine that asks now would be served.",
        ready,
    )
}

/// `/metrics`
pub fn metrics_routes() -> Routes {
    Routes::of(Asker::Watcher).get("/metrics", "Metrics in the text format of Prometheus.", metrics)
}

/// What is served where nobody but who watches the server is.
pub fn watcher_routes(app: Arc<App>) -> Router {
    health_routes().merge(metrics_routes()).router().with_state(app)
}

/// Counts a request, and how long it took. What is logged of it has its trace.
pub async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let start = Instant::now();
    let (trace, span) = trace::of(request.headers());
    let response = trace::within(trace, next.run(request).instrument(span)).await;
    let refused = response.extensions().get::<Reason>().copied();
    let route = route.as_ref().map(MatchedPath::as_str);
    app.metrics.answered(route, response.status(), refused, start.elapsed());
    response
}

async fn metrics(State(app): State<Arc<App>>) -> Text {
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics.render(&app)))
}

fn ok() -> Text {
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n".to_owned()))
}

/// 200: the process answers. Who starts it again for less only makes more of an outage.
async fn alive() -> Text {
    ok()
}

/// 200 if a machine that asks now would be served: a load balancer goes by it.
async fn ready(State(app): State<Arc<App>>) -> Text {
    app.ready().await?;
    ok()
}
