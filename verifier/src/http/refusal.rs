//! A request that was not served.

use crate::domain::{Error, StoreError};
use crate::registrar::Unreachable;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use halfkey_evidence::Rejection;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Problem;
use tracing::{error, info};

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
    pub fn is_ours(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// There is no such thing.
    pub fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// With another status than the reason's.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
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
        let reason = Reason::from_code(&self.problem.code);
        let mut response = (self.status, axum::Json(self.problem)).into_response();
        // For who counts.
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
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
            Error::Store(newer @ StoreError::Newer { .. }) => {
                error!(error = %newer, "the database can't do its work");
                Self::new(Reason::Unavailable, "its database does not answer")
            }
            Error::Store(StoreError::Undecided(what)) => {
                error!(error = %what, "the database can't do its work");
                Self::new(
                    Reason::Unavailable,
                    "its database went away at the commit: look whether it was done before you ask again",
                )
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
