//! Plain HTTP for who watches the server: metrics, and whether it lives and serves. It has little room, so that whoever reaches it
//! takes nothing from machines and operators.

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::Service as _;
use tracing::{debug, warn};

/// Connections at the same time.
const PLACES: usize = 16;
/// For the header of a request.
const HEADER: Duration = Duration::from_secs(5);
/// For a connection: one request and its answer.
const LONGEST: Duration = Duration::from_secs(15);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        // Each is given back within `LONGEST`.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!(error = %e, "a connection for metrics could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _place = place;
            if timeout(LONGEST, answer(stream, router)).await.is_err() {
                debug!("a connection for metrics took too long");
            }
        });
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        router.clone().call(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .max_headers(64)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = served.await {
        debug!(error = %e, "connection for metrics ended early");
    }
}
