//! What operators ask, with a client certificate that is listed as such. The
//! actor in the audit trail is the name on the certificate.

use super::node::LONGEST_WAIT;
use super::{list, policies};
use crate::domain::{
    Approval, By, ClientKind, Error, NewDocument, NewEnrollment, Records, Registration, legible,
};
use crate::http::app::{App, Verifier};
use crate::http::auth::{Caller, authenticate};
use crate::http::body::Json;
use crate::http::described::{Asker, Routes};
use crate::http::in_turn::{Adds, in_turn};
use crate::http::parameters::{InPath, node_id, parameters, plain_text};
use crate::http::refusal::{Answer, Refusal};
use crate::policies::apply::{self, require_here};
use crate::{CLOCK_TOLERANCE, utc};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use halfkey_evidence::registration;
use halfkey_evidence::signed_document::open_enrollment;
use halfkey_protocol::document::{Kind, Opened, Scope};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::SignedDocument;
use halfkey_protocol::wire::credential_digest;
use halfkey_protocol::wire::operator::{
    AuditList, Because, Deny, Enroll, EvidenceList, EvidenceRecord, Head, NodeRecord, NodeState, NodeSummary,
    SequencePart, ServerInfo,
};
use halfkey_protocol::{Bytes, MAX_SERVERS, NodeId, Reason};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Most entries of an answer.
const MAX_ENTRIES: u64 = 1000;

/// The routes under [`super::OPERATORS`].
pub fn described() -> Routes {
    Routes::of(Asker::Operator)
        .get("/info", "What a workstation needs to sign for this deployment.", server_info)
        .get("/sequence", "Documents of the deployment's sequence, oldest first.", sequence)
        .get("/nodes", "A page of the nodes.", list::nodes)
        .get("/nodes/{id}", "All that is known of a node.", node)
        .post("/nodes/{id}/enrollment", "Enrolls a node.", enroll)
        .post("/nodes/{id}/approve", "Releases a boot that waits.", approve)
        .post("/nodes/{id}/deny", "Denies a boot that waits.", deny)
        .post("/nodes/{id}/revoke", "Revokes a node.", revoke)
        .post("/nodes/{id}/restore", "Takes a revocation back.", restore)
        .post("/nodes/{id}/hold", "Denies a node's boots until it is released.", hold)
        .post("/nodes/{id}/release", "Takes a hold back.", release)
        .get("/nodes/{id}/evidence", "The newest evidence of a node.", evidence_of)
        .get("/evidence/{number}", "One piece of evidence, whole.", evidence)
        .get("/audit", "Entries of the audit trail.", audit)
        .merge(policies::routes())
}

/// The same, for operators who are listed.
pub fn routes(app: Arc<App>) -> Router<Arc<App>> {
    described().router().layer(from_fn_with_state(app, |State(app): State<Arc<App>>, peer, request, next| {
        authenticate(app, ClientKind::Operator, peer, request, next)
    }))
}

async fn server_info(State(app): State<Arc<App>>) -> Answer<ServerInfo> {
    let verifier = app.verifier()?;
    let head = app.db.run(|records| records.head()).await?;
    Ok(axum::Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        deployment: verifier.deployment.to_string(),
        head: Head { number: head.number, sha256: head.sha256.into() },
        release_public: verifier.release.public().into(),
        ca: verifier.ca.clone(),
        servers: app.config().urls.clone(),
    }))
}

#[derive(Deserialize, JsonSchema)]
struct After {
    /// Those with a larger number.
    after: Option<u64>,
}

async fn sequence(
    State(app): State<Arc<App>>,
    query: Result<Query<After>, QueryRejection>,
) -> Answer<SequencePart> {
    let after = parameters(query)?.after.unwrap_or(0);
    let documents = app.db.run(move |records| records.documents_after(after)).await?;
    Ok(axum::Json(SequencePart { documents }))
}

async fn node(State(app): State<Arc<App>>, InPath(id): InPath) -> Answer<NodeRecord> {
    record(&app, node_id(&id)?).await
}

async fn enroll(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<Enroll>,
) -> Answer<NodeRecord> {
    let node = node_id(&id)?;
    let verifier = app.verifier()?;
    let Some(registered) = verifier.registrar.registration(node).await? else {
        return Err(Refusal::new(Reason::UnknownNode, format!("node {node}")));
    };
    let request = message.value;
    let document = check_enrollment(verifier, node, &registered, &request, app.clock.now())?;
    verifier.registrar.keep(node).await?;
    let clock = app.clock.clone();
    let by = caller.clone();
    let stored = in_turn(&app, &caller, Adds::Signed, move |records| {
        let new = NewEnrollment {
            node,
            id: &document.id,
            label: &document.label,
            document: NewDocument { opened: &document.opened, signed: &request.signed },
            registration: &registered.register,
            bank: document.bank,
            c_v: &request.c_v,
            c_u: &request.c_u,
        };
        records.enroll(&new, By { actor: &by.0, now: clock.now() })
    });
    stored.await?;
    info!(%node, "enrolled, waiting for the node's proof");
    record(&app, node).await
}

async fn approve(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<SignedDocument>,
) -> Answer<NodeRecord> {
    let lifetime = app.config().lifetimes.approval;
    let library = app.verifier()?.library.clone();
    let approve = move |records: &Records, node, document: NewDocument<'_>, by: By<'_>| {
        let approval = Approval { document, expires: by.now.saturating_add(lifetime) };
        records.approve(node, &approval, &*library, by)
    };
    give(&app, caller, &id, message, (Kind::Approval, Scope::Approval), "boot approved", approve).await
}

async fn deny(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<Deny>,
) -> Answer<NodeRecord> {
    let node = node_id(&id)?;
    let Deny { ticket, because } = message.value;
    plain_text("a reason", &because, 512)?;
    let clock = app.clock.clone();
    let denied = app
        .db
        .run(move |records| records.deny(node, &ticket, &because, By { actor: &caller.0, now: clock.now() }));
    denied.await?;
    info!(%node, "boot denied");
    record(&app, node).await
}

async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<Because>,
) -> Answer<NodeRecord> {
    let node = node_id(&id)?;
    let because = message.value.because;
    plain_text("a reason", &because, 512)?;
    // A node that only registered can be revoked too, and keeps its suggested label.
    // Whatever is wrong with its record keeps nobody from revoking it.
    let label = match label_of(&app, node).await {
        Ok(label) => Some(label),
        Err(refusal) if refusal.is_missing() => None,
        Err(refusal) => return Err(refusal),
    };
    let clock = app.clock.clone();
    let by = caller.clone();
    let revoked = in_turn(&app, &caller, Adds::Entry, move |records| {
        records.revoke(node, label.as_deref(), &because, By { actor: &by.0, now: clock.now() })
    });
    revoked.await?;
    info!(%node, "revoked");
    decided(&app, node).await
}

/// A node's label; none if its record can't be shown.
///
/// # Errors
/// `NotFound`.
pub async fn label_of(app: &App, node: NodeId) -> Result<String, Refusal> {
    match record(app, node).await {
        Ok(record) => Ok(record.0.summary.label),
        Err(refusal) if refusal.is_ours() => Ok(String::new()),
        Err(refusal) => Err(refusal),
    }
}

async fn restore(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<SignedDocument>,
) -> Answer<NodeRecord> {
    let what = (Kind::Restoration, Scope::Revocation as fn(_) -> _);
    give(&app, caller, &id, message, what, "restored", Records::restore).await
}

async fn hold(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<Because>,
) -> Answer<NodeRecord> {
    let node = node_id(&id)?;
    let because = message.value.because;
    plain_text("a reason", &because, 512)?;
    let clock = app.clock.clone();
    let by = caller.clone();
    let held = in_turn(&app, &caller, Adds::Entry, move |records| {
        records.hold(node, &because, By { actor: &by.0, now: clock.now() })
    });
    held.await?;
    info!(%node, "held");
    decided(&app, node).await
}

async fn release(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    InPath(id): InPath,
    message: Json<SignedDocument>,
) -> Answer<NodeRecord> {
    let what = (Kind::Release, Scope::Hold as fn(_) -> _);
    give(&app, caller, &id, message, what, "hold taken back", Records::release).await
}

/// What gives a node something, signed by its tenant: a document of this kind, for this scope. `done` says in the log what it was.
async fn give(
    app: &App,
    caller: Caller,
    id: &str,
    message: Json<SignedDocument>,
    (kind, scope): (Kind, fn(NodeId) -> Scope),
    done: &'static str,
    decision: impl FnOnce(&Records, NodeId, NewDocument<'_>, By<'_>) -> Result<(), Error> + Send + 'static,
) -> Answer<NodeRecord> {
    let node = node_id(id)?;
    let signed = message.value;
    let opened = apply::decision(kind, &scope(node), &signed, app.verifier()?.deployment, app.clock.now())?;
    // The ticket of a boot is one as well.
    plain_text("a reason", &opened.body, 512)?;
    let clock = app.clock.clone();
    let by = caller.clone();
    let decided_on = in_turn(app, &caller, Adds::Signed, move |records| {
        let document = NewDocument { opened: &opened, signed: &signed };
        decision(records, node, document, By { actor: &by.0, now: clock.now() })
    });
    decided_on.await?;
    info!(%node, "{done}");
    decided(app, node).await
}

/// What a node's record is after a decision, which stands although its record can't be shown.
pub async fn decided(app: &App, node: NodeId) -> Answer<NodeRecord> {
    record(app, node)
        .await
        .map_err(|refusal| refusal.hint("the decision is recorded; only the node's record can't be shown"))
}

#[derive(Deserialize, JsonSchema)]
struct Limit {
    /// So many at most.
    limit: Option<u64>,
}

async fn evidence_of(
    State(app): State<Arc<App>>,
    InPath(id): InPath,
    query: Result<Query<Limit>, QueryRejection>,
) -> Answer<EvidenceList> {
    let node = node_id(&id)?;
    let limit = parameters(query)?.limit.unwrap_or(50).min(MAX_ENTRIES);
    let evidence = app.db.run(move |records| records.evidence_of(node, limit)).await?;
    Ok(axum::Json(EvidenceList { evidence }))
}

async fn evidence(State(app): State<Arc<App>>, InPath(number): InPath) -> Answer<EvidenceRecord> {
    let missing = || Refusal::new(Reason::NotFound, format!("there is no evidence {number:.20}"));
    let id = number.parse::<u64>().map_err(|_| missing())?;
    let found = app.db.run(move |records| records.evidence(id)).await?;
    found.map(axum::Json).ok_or_else(missing)
}

#[derive(Deserialize, JsonSchema)]
struct Trail {
    /// Entries with a larger number, the oldest of them; without it the newest.
    after: Option<u64>,
    /// Of this node, by its id.
    node: Option<String>,
    /// So many at most.
    limit: Option<u64>,
    /// Seconds to wait for one, at most 25.
    wait: Option<u64>,
}

async fn audit(
    State(app): State<Arc<App>>,
    query: Result<Query<Trail>, QueryRejection>,
) -> Answer<AuditList> {
    let Trail { after, node, limit, wait } = parameters(query)?;
    let node = node.as_deref().map(node_id).transpose()?;
    let limit = limit.unwrap_or(100).min(MAX_ENTRIES);
    let until = Instant::now() + Duration::from_secs(wait.unwrap_or(0)).min(LONGEST_WAIT);
    let mut waiter = match wait {
        Some(_) => Some(
            app.long_polls
                .wait_for_audit()
                .ok_or_else(|| Refusal::new(Reason::RateLimited, "too many waiting requests"))?,
        ),
        None => None,
    };
    loop {
        let entries = app.db.run(move |records| records.audit(after, node, limit)).await?;
        let left = until.saturating_duration_since(Instant::now());
        let more = match &mut waiter {
            Some(waiter) if entries.is_empty() => waiter.happens(left).await,
            _ => false,
        };
        if !more {
            return Ok(axum::Json(AuditList { entries }));
        }
    }
}

/// What the verifier takes from a signed document.
struct Document {
    id: String,
    label: String,
    bank: PcrBank,
    opened: Opened,
}

/// Whether the document is signed, and about this node, these keys, these credentials and this verifier.
fn check_enrollment(
    verifier: &Verifier,
    node: NodeId,
    registered: &Registration,
    request: &Enroll,
    now: u64,
) -> Result<Document, Refusal> {
    let wrong = |what: &str| Refusal::new(Reason::EnrollmentSignature, what);
    let (opened, document) = open_enrollment(&request.signed)?;
    require_here(&opened, verifier.deployment)?;
    let checked = registration::check(&registered.register)?;
    for (what, right) in [
        ("scope", opened.scope == Scope::Enrollment(node)),
        ("ek_name", *document.ek_name == *checked.ek_name()),
        ("ak_name", *document.ak_name == *checked.ak_name()),
        ("srk_name", *document.srk_name == *checked.srk_name()),
        ("c_u_sha256", *document.c_u_sha256 == credential_digest(&request.c_u)),
        ("c_v_sha256", *document.c_v_sha256 == credential_digest(&request.c_v)),
        ("release_public", *document.release_public == *verifier.release.public()),
        ("proof_sha256", document.proof_sha256.len() == 32),
        ("servers", (1..=MAX_SERVERS).contains(&document.servers.len())),
        ("ca", document.ca.contains("BEGIN CERTIFICATE")),
    ] {
        if !right {
            return Err(wrong(&format!("{what} is not that of this node, request or verifier")));
        }
    }
    if document.challenge.len() != 32 || document.challenge != registered.challenge {
        // The node would not take it.
        let what = "expected the challenge that the node activated last, found another";
        return Err(wrong(what).hint("the node registered anew meanwhile: enroll it again"));
    }
    if opened.created > now.saturating_add(CLOCK_TOLERANCE) {
        // It would become the floor of the node's clock: its TLS would refuse this server until then.
        let (found, here) = (utc(opened.created), utc(now));
        let what = format!("the enrollment was created at {found}, and here it is {here}");
        return Err(Refusal::new(Reason::Conflict, what).hint("set the clock of the operator's machine"));
    }
    let credentials = [&request.c_u, &request.c_v];
    if credentials.iter().any(|c| c.id_object.len() > 512 || c.secret.len() > 1024) {
        return Err(Refusal::new(Reason::TooLarge, "a credential is larger than a TPM makes it"));
    }
    plain_text("a label", &document.label, 128)?;
    plain_text("an enrollment id", &document.enrollment_id, 64)?;
    Ok(Document {
        bank: PcrBank::from_name(&document.bank).ok_or_else(|| wrong("expected bank sha256 or sha384"))?,
        id: document.enrollment_id,
        label: document.label,
        opened,
    })
}

/// All that is known of a node.
///
/// # Errors
/// `NotFound`; those of the database and the registrar.
pub async fn record(app: &App, node: NodeId) -> Answer<NodeRecord> {
    let (library, now) = (app.verifier()?.library.clone(), app.clock.now());
    let look = move |records: &Records| {
        let known = records.node(node)?;
        let governing = known.as_ref().and_then(|known| known.governing.policy.as_ref());
        // None of what is damaged: the rest is shown all the same.
        let (policy, of_policy) = match governing {
            Some(policy) => legible(records.policy(&policy.scope, Some(policy.version)))?,
            None => (None, None),
        };
        let (pending, of_pending) = legible(records.pending(node, &*library, now))?;
        for why in [of_policy, of_pending].into_iter().flatten() {
            warn!(%node, "the database is damaged: {why}");
        }
        Ok((known, policy, pending))
    };
    let (known, policy, pending) = app.db.run(look).await?;
    let copied = known.as_ref().is_some_and(|known| known.open.is_some() || known.current.is_some());
    let registered = match app.verifier()?.registrar.registration(node).await {
        Ok(registered) => registered,
        // Revoking must not wait for another host.
        Err(e) if copied => {
            warn!(%node, error = %e.0, "the registrar can't be asked, going by the enrollment");
            None
        }
        Err(e) => return Err(e.into()),
    };
    let unknown = || Refusal::new(Reason::NotFound, format!("there is no node {node}"));
    let id = node.to_string();
    let Some(known) = known else {
        let registered = registered.ok_or_else(unknown)?;
        return Ok(axum::Json(NodeRecord {
            summary: registered_summary(id, &registered),
            registered_at: registered.registered_at,
            registration: Some(registered.register),
            challenge: registered.challenge,
            enrollment: None,
            open: None,
            pending: None,
            policy: None,
            revoked_because: None,
            held: None,
            tpm_firmware: None,
        }));
    };
    let suggested = registered.as_ref().map(|registered| registered_summary(id.clone(), registered));
    let released = known.current.as_ref().and_then(|current| current.released.as_ref());
    let cloned = released.is_some_and(|released| released.twin.is_some());
    let state = known.state();
    let (enrollment, open) = match (known.current, known.open) {
        (Some(current), open) => (Some(current), open),
        (None, open) => (open, None),
    };
    let (registration, challenge, registered_at, seen) = match registered {
        Some(sent) => (Some(sent.register), sent.challenge, sent.registered_at, sent.last_seen),
        // The registrar does not know it. The copy that the tenant checked is here, if it was enrolled.
        None => {
            let copy = enrollment.as_ref().map(|enrollment| enrollment.registration.clone());
            (copy, Bytes::default(), 0, 0)
        }
    };
    Ok(axum::Json(NodeRecord {
        summary: NodeSummary {
            id,
            label: own_label(&known.label, suggested.as_ref()),
            state,
            pending: pending.is_some(),
            held: known.held.is_some(),
            cloned,
            last_seen: known.last_seen.max(seen),
            last_outcome: known.last_outcome,
            last_code: known.last_code,
        },
        registration,
        challenge,
        registered_at,
        enrollment: enrollment.map(|enrollment| enrollment.signed),
        open: open.map(|open| open.signed),
        pending,
        policy: policy.map(|policy| policy.summary),
        revoked_because: known.revoked,
        held: known.held,
        tpm_firmware: known.tpm_firmware,
    }))
}

fn registered_summary(id: String, registration: &Registration) -> NodeSummary {
    NodeSummary {
        id,
        label: registration.register.label.clone(),
        state: NodeState::Registered,
        pending: false,
        held: false,
        cloned: false,
        last_seen: registration.last_seen,
        last_outcome: None,
        last_code: None,
    }
}

fn own_label(label: &str, suggested: Option<&NodeSummary>) -> String {
    match (label, suggested) {
        ("", Some(suggested)) => suggested.label.clone(),
        (label, _) => label.to_owned(),
    }
}
