//! What nodes ask. They have no certificate: their TPM speaks for them.

use super::{Answer, Json, Refusal, common_version, node_id};
use crate::attest::{Assessment, Claim, Lifetimes};
use crate::nonce::{self, Scope};
use crate::server::App;
use crate::store::{Case, Node, StoreError};
use crate::tls::Peer;
use crate::unix_now;
use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Router};
use halfkey_evidence::Rejection;
use halfkey_protocol::wire::{
    Activate, Activated, Begin, Begun, Finish, Prove, Proved, Purpose, Register, Registered, Verdict, Wait,
    Waited,
};
use halfkey_protocol::{MAX_BODY, NodeId, Reason};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info, warn};

/// The longest that a request is held open.
pub const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// `/v1/register`, `/v1/activate`.
pub fn registrar_routes() -> Router<Arc<App>> {
    Router::new().route("/v1/register", post(register)).route("/v1/activate", post(activate))
}

/// `/v1/begin`, `/v1/finish`, `/v1/wait`, `/v1/prove`.
pub fn verifier_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/begin", post(begin))
        .route("/v1/finish", post(finish))
        .route("/v1/wait", post(wait))
        .route("/v1/prove", post(prove))
}

async fn register(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Register>,
) -> Answer<Registered> {
    let version = common_version(&message.value.versions)?;
    let registered = app.registrar()?.register(&app.db, message.value, version, peer.source).await?;
    Ok(axum::Json(registered))
}

async fn activate(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Activate>,
) -> Answer<Activated> {
    let node = node_id(&message.value.node_id)?;
    app.registrar()?.activate(&app.db, node, &message.value.proof, peer.source).await?;
    Ok(axum::Json(Activated { node_id: node.to_string() }))
}

async fn begin(State(app): State<Arc<App>>, message: Json<Begin>) -> Answer<Begun> {
    let verifier = app.verifier()?;
    let version = common_version(&message.value.versions)?;
    let node = node_id(&message.value.node_id)?;
    let purpose = match Purpose::parse(&message.value.purpose) {
        Some(Purpose::Runtime | Purpose::Propose) => {
            return Err(Refusal::new(Reason::Conflict, "purpose runtime is not served by this version"));
        }
        Some(purpose) => purpose,
        None => return Err(Refusal::new(Reason::Malformed, "expected purpose boot or enroll")),
    };
    // A revoked node may begin: its evidence is recorded before it is denied.
    let known = enrolled_node(&app, node, purpose).await?;
    let enrollment = Claim::enrollment(purpose, &known).map_err(|reason| refuse_state(reason, node))?;
    match verifier.registrar.registration(node).await {
        Ok(Some(now)) if now.register.srk_public != enrollment.registration.srk_public => {
            return Err(Refusal::new(Reason::SrkChanged, format!("node {node}"))
                .hint("enroll the node again with `halfkey enroll NODE`"));
        }
        Ok(_) => {}
        // The tenant checked a copy that came with the enrollment: it serves.
        Err(e) => warn!(%node, error = %e.0, "the registrar can't be asked, going by the enrollment"),
    }
    let scope = Scope { version, node, purpose, bank: enrollment.bank };
    let nonce = nonce::issue(&verifier.cluster, &scope, unix_now())?;
    Ok(axum::Json(Begun { version, nonce: nonce.into(), bank: enrollment.bank.name().to_owned() }))
}

async fn finish(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Finish, MAX_BODY>,
) -> Answer<Verdict> {
    let verifier = app.verifier()?.clone();
    let claim = Claim::read(&message.value)?;
    let (node, purpose) = (claim.node, claim.purpose);
    let known = enrolled_node(&app, node, purpose).await?;
    let lifetimes = Lifetimes { nonce: app.config.lifetimes.nonce, pending: app.config.lifetimes.pending };
    let keep = app.config.limits.evidence_kept;
    // Checking and recording go on when the node hangs up, and the memory of the body stays accounted.
    let judge = move |store: &dyn crate::store::Store| {
        let finish = &message.value;
        let refused = |e: Rejection| StoreError::Refused(e.reason, e.detail);
        let claim = Claim::read(finish).map_err(refused)?;
        let enrollment = Claim::enrollment(purpose, &known)
            .map_err(|reason| StoreError::Refused(reason, format!("node {node}")))?;
        let now = unix_now();
        let assessment = Assessment::of(&claim, enrollment, &verifier.cluster, lifetimes, now);
        // Only what the node signed counts against it: anybody can name it.
        let limited = |what: String| Err(StoreError::Refused(Reason::RateLimited, what));
        if assessment.authentic() {
            if !verifier.evidence_rate.take(node) {
                return limited(format!("too much evidence of node {node}"));
            }
        } else if !verifier.forged_by_source.take(peer.source) {
            return limited("too much evidence from this address that is not a node's".to_owned());
        } else if !verifier.forged_rate.take(node) {
            return limited("too much evidence that is not this node's".to_owned());
        }
        let case = Case { node, now, ticket: assessment.ticket(), finish, keep };
        store.attest(&case, &mut |standing| assessment.rule(standing, &verifier.release))
    };
    let verdict = app.db.change(node, judge).await?;
    info!(
        %node,
        purpose = purpose.as_str(),
        outcome = %verdict.outcome,
        code = verdict.code.as_deref(),
        detail = %verdict.message,
        evidence = verdict.evidence_id,
        "verdict"
    );
    Ok(axum::Json(verdict))
}

async fn wait(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Wait>,
) -> Answer<Waited> {
    let node = node_id(&message.value.node_id)?;
    let full = || Refusal::new(Reason::RateLimited, "too many waiting requests");
    // First the seat, then the look: what happens in between wakes.
    let mut waiter = app.hub.wait_for_node(node, peer.source).ok_or_else(full)?;
    let known = known_node(&app, node).await?;
    let over = match (&message.value.ticket, known) {
        (_, Some(known)) if known.revoked.is_some() && message.value.ticket.is_some() => true,
        (Some(ticket), Some(_)) => {
            let ticket = ticket.clone();
            let boot = app.db.read(move |store| store.boot(node, &ticket, unix_now())).await?;
            boot.is_none_or(|boot| boot.decision.is_some())
        }
        (Some(_), None) => true,
        (None, known) => known.is_some_and(|known| known.open.is_some()),
    };
    drop(message);
    debug!(%node, over, "waiting");
    let changed = over || waiter.happens(LONGEST_WAIT).await;
    Ok(axum::Json(Waited { changed }))
}

async fn prove(State(app): State<Arc<App>>, message: Json<Prove>) -> Answer<Proved> {
    let Prove { node_id: id, enrollment_id, proof } = &message.value;
    let node = node_id(id)?;
    if proof.len() != 32 || enrollment_id.len() > 64 {
        return Err(Refusal::new(Reason::Malformed, "expected a proof of 32 bytes and an enrollment id"));
    }
    let (enrollment_id, proof) = (enrollment_id.clone(), proof.clone());
    app.db.change(node, move |store| store.prove(node, &enrollment_id, &proof, unix_now())).await?;
    info!(%node, "enrollment proved");
    Ok(axum::Json(Proved { node_id: node.to_string() }))
}

/// The node, or `None` if it is registered and no tenant ever did something with it.
async fn known_node(app: &App, node: NodeId) -> Result<Option<Node>, Refusal> {
    if let Some(known) = app.db.read(move |store| store.node(node)).await? {
        return Ok(Some(known));
    }
    match app.verifier()?.registrar.registration(node).await? {
        Some(_) => Ok(None),
        None => Err(Refusal::new(Reason::UnknownNode, format!("node {node}"))
            .hint("register it with `halfkey-agent enroll`")),
    }
}

/// The node, with an enrollment that serves this purpose.
async fn enrolled_node(app: &App, node: NodeId, purpose: Purpose) -> Result<Node, Refusal> {
    let known = known_node(app, node).await?.ok_or(Reason::NotEnrolled);
    let usable = known.and_then(|known| Claim::enrollment(purpose, &known).map(drop).map(|()| known));
    usable.map_err(|reason| refuse_state(reason, node))
}

fn refuse_state(reason: Reason, node: NodeId) -> Refusal {
    let refusal = Refusal::new(reason, format!("node {node}"));
    match reason {
        Reason::NotEnrolled => refusal.hint("a tenant enrolls it with `halfkey enroll NODE`"),
        Reason::EnrollmentOpen => {
            refusal.hint("finish the enrollment on the node with `halfkey-agent enroll`")
        }
        Reason::EnrollmentUsed => refusal.hint("a tenant enrolls it again with `halfkey enroll NODE`"),
        _ => refusal,
    }
}
