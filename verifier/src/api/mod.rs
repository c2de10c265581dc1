//! HTTP. [`node`] is for machines, [`operator`] and [`policies`] for people with a
//! client certificate, [`internal`] for a verifier that asks its registrar.

pub mod internal;
pub mod node;
pub mod operator;
pub mod policies;

use crate::registrar::Unreachable;
use crate::server::{App, BodyShare};
use crate::store::StoreError;
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
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

/// Largest body of everything but evidence and policies, in bytes.
pub const SMALL_BODY: usize = 64 << 10;

/// Most of a too large body that is read and forgotten, in bytes.
const MAX_DISCARDED: usize = 2 * halfkey_protocol::MAX_BODY;

/// The routes of a role.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new().route("/healthz", get(health));
    router = match &app.registrar {
        Some(_) => router.merge(node::registrar_routes()).nest("/v1/internal", internal::routes(app.clone())),
        None => wrong_role(router, &["/v1/register", "/v1/activate", "/v1/internal/{*rest}"]),
    };
    router = match &app.verifier {
        Some(_) => router.merge(node::verifier_routes()).nest("/v1/operator", operator::routes(app.clone())),
        None => {
            let paths =
                ["/v1/begin", "/v1/finish", "/v1/wait", "/v1/prove", "/v1/propose", "/v1/operator/{*rest}"];
            wrong_role(router, &paths)
        }
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
    /// With what was expected and found.
    pub fn new(reason: Reason, detail: impl std::fmt::Display) -> Self {
        let problem =
            Problem { code: reason.code().to_owned(), message: format!("{reason}: {detail}"), hint: None };
        Self { status: status(reason), problem }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }
}

fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::Malformed | Reason::Version => StatusCode::BAD_REQUEST,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Reason::WrongRole => StatusCode::MISDIRECTED_REQUEST,
        Reason::Unauthorized | Reason::Revoked | Reason::Activation | Reason::Proof => StatusCode::FORBIDDEN,
        Reason::NotFound | Reason::UnknownNode => StatusCode::NOT_FOUND,
        Reason::Conflict
        | Reason::AkChanged
        | Reason::SrkChanged
        | Reason::NotEnrolled
        | Reason::EnrollmentOpen
        | Reason::EnrollmentUsed
        | Reason::PolicyVersion => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
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
    /// A detail may end with a line `hint: ..`.
    fn from(rejection: Rejection) -> Self {
        match rejection.detail.split_once("\nhint: ") {
            Some((detail, hint)) => Self::new(rejection.reason, detail).hint(hint),
            None => Self::new(rejection.reason, rejection.detail),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Refused(reason, detail) => Self::new(reason, detail),
            // The peer learns that it is the server's fault, and no more.
            StoreError::Full(what) => {
                error!(error = %what, hint = "make room on the disk of the state folder; nothing was answered that is not recorded", "the database is full");
                Self::new(Reason::Unavailable, "its disk is full")
            }
            StoreError::Unavailable(what) => {
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
    /// Its share of the memory for bodies, if it is a large one.
    _share: Option<BodyShare>,
}

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<App>> for Json<T, MAX> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let within = app.config.limits.body();
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length: usize = announced.unwrap_or(MAX);
        let source = request.extensions().get::<Peer>().map(|peer| peer.source);
        let source = source.ok_or_else(|| Refusal::new(Reason::Unavailable, "a request of nobody"))?;
        let mut body = request.into_body();
        let too_large = || Refusal::new(Reason::TooLarge, format!("expected a body of at most {MAX} bytes"));
        if length > MAX {
            discard(body, within).await;
            return Err(too_large());
        }
        let deadline = Instant::now() + within;
        let (mut bytes, mut share) = (Vec::new(), None);
        loop {
            let frame = timeout_at(deadline, body.frame()).await.map_err(|_| Refusal {
                status: StatusCode::REQUEST_TIMEOUT,
                ..Refusal::new(Reason::Malformed, "the body did not arrive in time")
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Refusal::new(Reason::Malformed, "the body ended early"))?;
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > MAX {
                drop((bytes, share));
                discard(body, within).await;
                return Err(too_large());
            }
            // An announcement costs nothing: memory is set aside for who has sent something, and
            // then for the whole, since bodies that wait for each other's memory would never end.
            if share.is_none() && bytes.len() + data.len() > SMALL_BODY {
                let room = timeout_at(deadline, app.body_memory(source, length));
                let busy = |_| Refusal::new(Reason::RateLimited, "too many large messages at once");
                share = Some(room.await.map_err(busy)?);
                bytes.reserve_exact(length.saturating_sub(bytes.len()));
            }
            bytes.extend_from_slice(data);
        }
        let value = serde_json::from_slice(&bytes).map_err(|e| Refusal::new(Reason::Malformed, e))?;
        Ok(Self { value, _share: share })
    }
}

/// Reads and forgets a body that is too large, up to a bound: most clients see
/// a broken connection in place of an answer that comes before they have sent everything.
async fn discard(mut body: Body, within: Duration) {
    let read = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = match left.checked_sub(frame.data_ref().map_or(0, |data| data.len())) {
                Some(left) => left,
                None => return,
            };
        }
    };
    // Late or not, the answer is the same.
    let _ = tokio::time::timeout(within, read).await;
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
