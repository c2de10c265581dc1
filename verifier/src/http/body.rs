//! Bodies: how large, how fast, and how much memory for all of them.

use super::app::App;
use super::auth::Caller;
use super::refusal::Refusal;
use crate::config::Limits;
use crate::limit::{Full, Share, Work};
use crate::tls::Peer;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use halfkey_protocol::Reason;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Largest body of everything but evidence and policies, in bytes.
pub const SMALL_BODY: usize = 64 << 10;

/// Most of a too large body that is read and forgotten, in bytes.
const MAX_DISCARDED: usize = 2 * halfkey_protocol::MAX_BODY;

/// Bytes of a body that are not charged: what most requests have.
const FREE_BODY: usize = 8 << 10;

/// Most values in a body: fields and items of lists. Nothing that is asked here has a twentieth of it, and what is in base64 is one. A
/// value can take eight times as much memory as its text, which nobody has accounted for.
const MAX_VALUES: usize = 1024;

/// What a body grows by, in bytes.
const STEP: usize = 32 << 10;

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
        let config = app.config();
        let limits = &config.limits;
        let announced: Option<usize> =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Refusal::new(Reason::Unavailable, "a request without a connection"))?;
        // Only after `authenticate`.
        let listed = request.extensions().get::<Caller>().is_some();
        let share = if listed { &app.client_bodies } else { &app.bodies }.share(peer.source);
        let wrong = require_json(request.headers());
        let mut body = request.into_body();
        if let Err(refusal) = wrong {
            discard(body, limits).await;
            return Err(refusal);
        }
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
            let frame = frame.map_err(|_| {
                Refusal::new(Reason::Malformed, "the body did not arrive in time")
                    .with_status(StatusCode::REQUEST_TIMEOUT)
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
        require_few_values(&bytes)?;
        let value = serde_json::from_slice(&bytes).map_err(|e| Refusal::new(Reason::Malformed, e))?;
        Ok(Self { value, _share: share, _work: work })
    }
}

/// There is a comma between any two, and base64 has none.
fn require_few_values(body: &[u8]) -> Result<(), Refusal> {
    // By parts that a byte can count, which a processor does many at a time.
    let of_part =
        |part: &[u8]| part.iter().fold(0_u8, |count, byte| count.wrapping_add(u8::from(*byte == b',')));
    let commas: usize = body.chunks(usize::from(u8::MAX)).map(|part| usize::from(of_part(part))).sum();
    if commas < MAX_VALUES {
        return Ok(());
    }
    let what = format!("expected at most {MAX_VALUES} values, found {commas} commas");
    Err(Refusal::new(Reason::Malformed, what))
}

/// What is not said to be JSON is not read as such: a browser sends other types for any page, with the operator's certificate. Nothing
/// is decompressed, so no few bytes become many.
fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let said = |name: &HeaderName| match headers.get(name) {
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        None => String::new(),
    };
    let wrong = |name: &HeaderName, expected: &str, found: &str| {
        let found = if found.is_empty() { "none".to_owned() } else { format!("{found:.40?}") };
        let what = format!("expected {name} {expected}, found {found}");
        Err(Refusal::new(Reason::Malformed, what).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    };
    let content = said(&CONTENT_TYPE);
    let media_type = content.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return wrong(&CONTENT_TYPE, "application/json", &content);
    }
    let encoding = said(&CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return wrong(&CONTENT_ENCODING, "identity", &encoding);
    }
    Ok(())
}

/// Reads and forgets a body that is too large, or of another type, up to a bound: most clients see
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
