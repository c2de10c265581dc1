//! Who asks: a client certificate that is listed.

use super::app::App;
use super::refusal::Refusal;
use crate::domain::ClientKind;
use crate::limit::Proved;
use crate::tls::Peer;
use axum::Extension;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use halfkey_protocol::Reason;
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<str>);

/// Lets a request pass whose certificate is listed as `kind`, and says who it is.
pub async fn authenticate(
    app: Arc<App>,
    kind: ClientKind,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let refuse = |detail: String| Refusal::new(Reason::Unauthorized, detail);
    if kind == ClientKind::Operator && app.config().operators_only_there && !peer.at_operators {
        return Err(Refusal::new(Reason::WrongRole, "operators are served at another address")
            .hint("the settings of the server have it as `operator_listen`"));
    }
    let Some(fingerprint) = peer.certificate.clone() else {
        return Err(refuse("expected a client certificate, found none".into()));
    };
    let listed = fingerprint.clone();
    let client = app.db.run(move |records| records.client(&listed)).await?;
    match client {
        Some(client) if client.kind == kind => {
            peer.prove(Proved::Client);
            request.extensions_mut().insert(Caller(client.name.into()));
            Ok(next.run(request).await)
        }
        _ => Err(refuse(format!("certificate {fingerprint} is not listed as {}", kind.as_str()))),
    }
}
