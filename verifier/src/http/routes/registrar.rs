//! What a verifier on another host asks its registrar, with a client
//! certificate that is listed as such.
//!
//! | method and path | answer |
//! | --- | --- |
//! | `GET /v1/internal/registrations?after=ID&limit=N`, `?name=TEXT&limit=N`, `?node=ID` | [`RegistrationList`] |
//! | `GET /v1/internal/registrations/{id}` | [`Registration`] |
//! | `POST /v1/internal/registrations/{id}/keep` | [`Kept`] |

use super::list::ListQuery;
use crate::domain::{ClientKind, Registration};
use crate::http::app::App;
use crate::http::auth::authenticate;
use crate::http::described::{Asker, Routes};
use crate::http::parameters::{InPath, node_id, parameters};
use crate::http::refusal::{Answer, Refusal};
use crate::registrar::wire::{Kept, RegistrationList};
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::middleware::from_fn_with_state;
use halfkey_protocol::Reason;
use std::sync::Arc;

/// The routes under [`super::VERIFIERS`].
pub fn described() -> Routes {
    Routes::of(Asker::Verifier)
        .get("/registrations", "A page of the registrations, by node id.", list)
        .get("/registrations/{id}", "One registration.", one)
        .post("/registrations/{id}/keep", "A tenant enrolls the node: its registration never expires.", keep)
}

/// The same, for verifiers that are listed.
pub fn routes(app: Arc<App>) -> Router<Arc<App>> {
    described().router().layer(from_fn_with_state(app, |State(app): State<Arc<App>>, peer, request, next| {
        authenticate(app, ClientKind::Verifier, peer, request, next)
    }))
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

async fn one(State(app): State<Arc<App>>, InPath(id): InPath) -> Answer<Registration> {
    let node = node_id(&id)?;
    match app.db.run(move |records| records.registration(node)).await? {
        Some(registration) => Ok(axum::Json(registration)),
        None => Err(Refusal::new(Reason::UnknownNode, format!("node {node}"))),
    }
}

async fn keep(State(app): State<Arc<App>>, InPath(id): InPath) -> Answer<Kept> {
    let node = node_id(&id)?;
    app.db.run(move |records| records.keep_registration(node)).await?;
    Ok(axum::Json(Kept { node_id: node.to_string() }))
}
