//! HTTP. [`node`] is for machines, [`operator`] and [`policies`] for people with a
//! client certificate, [`internal`] for a verifier that asks its registrar.

pub mod internal;
mod list;
pub mod node;
pub mod operator;
pub mod policies;

use crate::config::Limits;
use crate::domain::{Error, StoreError};
use crate::limit::{Full, Share, Work};
use crate::registrar::Unreachable;
use crate::server::App;
use crate::tls::Peer;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use halfkey_evidence::Rejection;
use halfkey_protocol::wire::Problem;
use halfkey_protocol::{NodeId, Reason};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

/// Largest body of everything but evidence and policies, in bytes.
pub const SMALL_BODY: usize = 64 << 10;

/// Most of a too large body that is read and forgotten, in bytes.
const MAX_DISCARDED: usize = 2 * halfkey_protocol::MAX_BODY;

/// Bytes of a body that are not charged: what most requests have.
const FREE_BODY: usize = 8 << 10;

/// What a body grows by, in bytes.
const STEP: usize = 32 << 10;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All of the role.
    Everything,
    /// What operators ask.
    Operators,
}

/// The routes of a role.
pub fn router(app: Arc<App>, served: Served) -> Router {
    let router = Router::new().route("/healthz", get(health));
    let router = match served {
        Served::Everything => roles(router, &app),
        Served::Operators => router.nest("/v1/operator", operator::routes(app.clone())),
    };
    let missing = || async { Refusal::new(Reason::NotFound, "no such path") };
    let method = || async {
        Refusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Refusal::new(Reason::Malformed, "no such method here")
        }
    };
    router.fallback(missing).method_not_allowed_fallback(method).with_state(app)
}

fn roles(mut router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    router = match &app.registrar {
        Some(_) => router.merge(node::registrar_routes()).nest("/v1/internal", internal::routes(app.clone())),
        None => wrong_role(router, &["/v1/register", "/v1/activate", "/v1/internal/{*rest}"]),
    };
    match &app.verifier {
        Some(_) => router.merge(node::verifier_routes()).nest("/v1/operator", operator::routes(app.clone())),
        None => {
            let paths =
                ["/v1/begin", "/v1/finish", "/v1/wait", "/v1/prove", "/v1/propose", "/v1/operator/{*rest}"];
            wrong_role(router, &paths)
        }
    }
}

fn wrong_role(router: Router<Arc<App>>, paths: &[&str]) -> Router<Arc<App>> {
    paths.iter().fold(router, |router, path| {
        router.route(
            path,
            any(|State(app): State<Arc<App>>| async move {
                Refusal::new(Reason::WrongRole, format!("this server is a {}", app.role_name()))
                    .hint(app.other_role_hint())
            }),
        )
    })
}

/// 200 if the database can be written.
async fn health(State(app): State<Arc<App>>) -> Response {
    match app.healthy().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(e) => Refusal::from(e).into_response(),
    }
}

/// A request that was not served: status and [`Problem`].
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    problem: Problem,
}

/// Shorthand.
pub type Answer<T> = Result<axum::Json<T>, Refusal>;

impl Refusal {
    /// With what was expected and found, and the reason's hint.
    pub fn new(reason: Reason, detail: impl std::fmt::Display) -> Self {
        let (code, message) = (reason.code().to_owned(), format!("{reason}: {detail}"));
        let problem = Problem { code, message, hint: reason.hint().map(str::to_owned) };
        let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
        Self { status, problem }
    }

    /// It is this server or its registrar that can't do its work, not the request.
    fn is_ours(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// There is no such thing.
    fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// Says what to do about it, instead of the reason's hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        info!(status = self.status.as_u16(), code = %self.problem.code, detail = %self.problem.message, "refused");
        let mut response = (self.status, axum::Json(self.problem)).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let refusal = Self::new(rejection.reason, rejection.detail);
        match rejection.hint {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        match e {
            Error::Refused(reason, detail) => Rejection::new(reason, detail).into(),
            // The peer learns that it is the server's fault, and no more.
            Error::Store(StoreError::Full(what)) => {
                error!(error = %what, hint = "make room on the disk of the state folder; nothing was answered that is not recorded", "the database is full");
                Self::new(Reason::Unavailable, "its disk is full")
            }
            Error::Store(StoreError::Unavailable(what) | StoreError::Damaged(what)) => {
                error!(error = %what, "the database can't do its work");
                Self::new(Reason::Unavailable, "its database does not answer")
            }
        }
    }
}

impl From<Unreachable> for Refusal {
    fn from(Unreachable(what): Unreachable) -> Self {
        error!(error = %what, "the registrar can't be asked");
        Self::new(Reason::Unavailable, "its registrar does not answer")
    }
}

impl From<crate::Failure> for Refusal {
    fn from(e: crate::Failure) -> Self {
        error!(error = %e, "internal error");
        Self::new(Reason::Unavailable, "internal error")
    }
}

/// A body of at most `MAX` bytes, as JSON.
pub struct Json<T, const MAX: usize = SMALL_BODY> {
    /// What it says.
    pub value: T,
    /// Its share of the memory for bodies.
    _share: Share,
    /// As long as it is worked on, its connection is not idle.
    _work: Work,
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<App>> for Json<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let limits = &app.config.limits;
        let announced: Option<usize> =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Refusal::new(Reason::Unavailable, "a request without a connection"))?;
        // Only after `authenticate`.
        let listed = request.extensions().get::<internal::Caller>().is_some();
        let share = if listed { &app.client_bodies } else { &app.bodies }.share(peer.source);
        let mut body = request.into_body();
        let too_large = || Refusal::new(Reason::TooLarge, format!("expected a body of at most {MAX} bytes"));
        if announced.is_some_and(|length| length > MAX) {
            discard(body, limits).await;
            return Err(too_large());
        }
        let busy = |_: Full| Refusal::new(Reason::RateLimited, "too many large messages at once");
        let start = Instant::now();
        // An announcement is believed for as much as is free.
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(FREE_BODY));
        loop {
            let late = start + limits.body(bytes.len());
            let frame = tokio::select! {
                frame = timeout_at(late, body.frame()) => frame,
                () = share.gone() => return Err(busy(Full)),
            };
            let frame = frame.map_err(|_| Refusal {
                status: StatusCode::REQUEST_TIMEOUT,
                ..Refusal::new(Reason::Malformed, "the body did not arrive in time")
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Refusal::new(Reason::Malformed, "the body ended early"))?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > MAX {
                drop((bytes, share));
                discard(body, limits).await;
                return Err(too_large());
            }
            share.received(data.len());
            let missing = (bytes.len() + data.len()).saturating_sub(bytes.capacity());
            if missing > 0 && bytes.len() + data.len() > FREE_BODY {
                // In steps: what is charged is at most a quarter more than what came.
                let step = missing.max(STEP).max(bytes.len() / 4);
                share.grow(step, late.into_std()).await.map_err(busy)?;
                bytes.reserve_exact(bytes.capacity() - bytes.len() + step);
            }
            bytes.extend_from_slice(data);
        }
        share.complete();
        let work = peer.work();
        let value = serde_json::from_slice(&bytes).map_err(|e| Refusal::new(Reason::Malformed, e))?;
        Ok(Self { value, _share: share, _work: work })
    }
}

/// Reads and forgets a body that is too large, up to a bound: most clients see
/// a broken connection in place of an answer that comes before they have sent everything.
async fn discard(mut body: Body, limits: &Limits) {
    let (start, mut received) = (Instant::now(), 0);
    // Late or not, the answer is the same.
    while let Ok(Some(Ok(frame))) = timeout_at(start + limits.body(received), body.frame()).await {
        received += frame.data_ref().map_or(0, |data| data.len());
        if received > MAX_DISCARDED {
            return;
        }
    }
}

/// The protocol version to use with a peer that speaks these.
///
/// # Errors
/// `Version` if there is none in common.
pub fn common_version(theirs: &[u32]) -> Result<u32, Refusal> {
    let ours = halfkey_protocol::VERSIONS;
    theirs.iter().copied().find(|version| ours.contains(version)).ok_or_else(|| {
        let theirs = &theirs[..theirs.len().min(8)];
        Refusal::new(Reason::Version, format!("expected one of {ours:?}, found {theirs:?}"))
    })
}

/// A node id from a message or a path.
///
/// # Errors
/// `Malformed`.
pub fn node_id(text: &str) -> Result<NodeId, Refusal> {
    NodeId::parse(text).ok_or_else(|| {
        Refusal::new(Reason::Malformed, "expected a node id: a UUID in lower case, with dashes")
    })
}

/// Text that a person wrote and that ends on somebody's terminal.
///
/// # Errors
/// `Malformed` if it is empty, longer than `max` bytes, or has control characters.
pub fn plain_text<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, Refusal> {
    if text.trim().is_empty() || text.len() > max || text.chars().any(char::is_control) {
        let what = format!("expected {what} of 1 to {max} bytes without control characters");
        return Err(Refusal::new(Reason::Malformed, what));
    }
    Ok(text)
}

/// The parameters of a query.
///
/// # Errors
/// `Malformed`.
pub fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query.map(|Query(parameters)| parameters).map_err(|e| Refusal::new(Reason::Malformed, e.body_text()))
}
