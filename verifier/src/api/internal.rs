//! What a verifier on another host asks its registrar, with a client
//! certificate that is listed as such.
//!
//! | method and path | answer |
//! | --- | --- |
//! | `GET /v1/internal/registrations?after=ID&limit=N`, `?name=TEXT&limit=N`, `?node=ID` | [`RegistrationList`] |
//! | `GET /v1/internal/registrations/{id}` | [`Registration`] |
//! | `POST /v1/internal/registrations/{id}/keep` | [`Kept`] |

use super::list::ListQuery;
use super::{Answer, Refusal, node_id, parameters};
use crate::domain::{ClientKind, Registration, RegistrationLine};
use crate::limit::Standing;
use crate::server::App;
use crate::tls::Peer;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use halfkey_protocol::Reason;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A page of the list.
#[derive(Debug, Serialize, Deserialize)]
pub struct RegistrationList {
    /// By node id.
    pub registrations: Vec<RegistrationLine>,
}

/// It never expires.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Node id.
    pub node_id: String,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<str>);

/// The routes under `/v1/internal`.
pub fn routes(app: Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/registrations", get(list))
        .route("/registrations/{id}", get(one))
        .route("/registrations/{id}/keep", post(keep))
        .layer(from_fn_with_state(app, |State(app): State<Arc<App>>, peer, request, next| {
            authenticate(app, ClientKind::Verifier, peer, request, next)
        }))
}

/// Lets a request pass whose certificate is listed as `kind`, and says who it is.
pub async fn authenticate(
    app: Arc<App>,
    kind: ClientKind,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let refuse = |detail: String| Refusal::new(Reason::Unauthorized, detail);
    if kind == ClientKind::Operator && app.config.operators_only_there && !peer.at_operators {
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
            peer.prove(Standing::Client);
            request.extensions_mut().insert(Caller(client.name.into()));
            Ok(next.run(request).await)
        }
        _ => Err(refuse(format!("certificate {fingerprint} is not listed as {}", kind.as_str()))),
    }
}

async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Answer<RegistrationList> {
    let query = parameters(query)?;
    let (limit, which) = (query.limit(), query.which()?);
    let registrations = app.db.run(move |records| records.registrations(&which, limit)).await?;
    Ok(axum::Json(RegistrationList { registrations }))
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<Registration> {
    let node = node_id(&id)?;
    match app.db.run(move |records| records.registration(node)).await? {
        Some(registration) => Ok(axum::Json(registration)),
        None => Err(Refusal::new(Reason::UnknownNode, format!("node {node}"))),
    }
}

async fn keep(State(app): State<Arc<App>>, Path(id): Path<String>) -> Answer<Kept> {
    let node = node_id(&id)?;
    app.db.run(move |records| records.keep_registration(node)).await?;
    Ok(axum::Json(Kept { node_id: node.to_string() }))
}
