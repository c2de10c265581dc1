//! What nodes ask. They have no certificate: their TPM speaks for them.

use super::finish::Finish;
use crate::appraisal;
use crate::domain::records::Beginning;
use crate::domain::{Node, ProposalDecision, ProposalRequest, Records};
use crate::http::app::App;
use crate::http::body::{Json, SMALL_BODY};
use crate::http::described::{Asker, Routes};
use crate::http::parameters::{common_version, node_id, plain_text, ticket};
use crate::http::refusal::{Answer, Refusal};
use crate::limit::Proved as ProvedPeer;
use crate::long_poll::Known;
use crate::nonce::{self, Scope};
use crate::policies::propose;
use crate::tls::Peer;
use axum::Extension;
use axum::extract::State;
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_protocol::wire::{
    Activate, Activated, Begin, Begun, Evidence, Propose, Proposed, Prove, Proved, Purpose, Register,
    Registered, Verdict, Wait, Waited,
};
use halfkey_protocol::{MAX_BODY, MAX_VOLUMES, NodeId, Reason};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// The longest that a request is held open.
pub const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// `/v1/register`, `/v1/activate`.
pub fn registrar_routes() -> Routes {
    Routes::of(Asker::Anybody)
        .post("/v1/register", "Shows the keys of a TPM; the answer is a challenge for it.", register)
        .post("/v1/activate", "Answers the challenge: the node is registered.", activate)
}

/// `/v1/begin`, `/v1/finish`, `/v1/wait`, `/v1/prove`, `/v1/propose`.
pub fn verifier_routes() -> Routes {
    Routes::of(Asker::Anybody)
        .post("/v1/begin", "Asks for a nonce to quote.", begin)
        .post("/v1/finish", "Hands in evidence; the answer is the verdict on it.", finish)
        .post("/v1/wait", "Waits, at most 25 s, until it is worth asking again.", wait)
        .post("/v1/prove", "Shows that the node has K: the enrollment is complete.", prove)
        .post("/v1/propose", "Proposes what the node will boot next.", propose)
}

async fn register(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Register>,
) -> Answer<Registered> {
    let version = common_version(&message.value.versions)?;
    let registered = app.registrar()?.register(&app.public_db, &message.value, version, peer.source).await?;
    Ok(axum::Json(registered))
}

async fn activate(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Activate, { 2 * SMALL_BODY }>,
) -> Answer<Activated> {
    let challenge = &message.value.challenge;
    let challenge = challenge.array().ok_or_else(|| {
        let what = format!("expected a challenge of 32 bytes, found {}", challenge.len());
        Refusal::new(Reason::Malformed, what)
    })?;
    let node = app.registrar()?.activate(&app.public_db, message.value, challenge, peer.source).await?;
    Ok(axum::Json(Activated { node_id: node.to_string() }))
}

async fn begin(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Begin>,
) -> Answer<Begun> {
    let verifier = app.verifier()?;
    let version = common_version(&message.value.versions)?;
    let node = node_id(&message.value.node_id)?;
    let purpose = match Purpose::parse(&message.value.purpose) {
        Some(Purpose::Runtime) => {
            return Err(Refusal::new(Reason::Conflict, "purpose runtime is not served by this version"));
        }
        Some(purpose @ (Purpose::Boot | Purpose::Enroll | Purpose::Propose)) => purpose,
        None => return Err(Refusal::new(Reason::Malformed, "expected purpose boot, enroll or propose")),
    };
    let named = &message.value.enrollments;
    if named.len() > MAX_VOLUMES || named.iter().any(|id| id.len() > 64) {
        return Err(Refusal::new(
            Reason::Malformed,
            format!("expected at most {MAX_VOLUMES} enrollment ids"),
        ));
    }
    let Beginning { known, registration } = match app.public_db.records().beginning_at_once(node) {
        Some(found) => found?,
        None => {
            let records = app.public_db.records().clone();
            let together = async move { records.beginning_together(node).await.transpose() };
            app.public_db.run_at_once(together, move |records| records.beginning(node)).await?
        }
    };
    let Some(known) = known else { return Err(not_enrolled(&app, node, &peer).await) };
    // A revoked node may begin: its evidence is recorded before it is denied.
    let enrollment = appraisal::enrollment(purpose, &known).map_err(refuse_state)?;
    match verifier.registrar.lately(node, registration).await {
        Ok(Some(now)) if now.register.srk_public != enrollment.registration.srk_public => {
            return Err(Refusal::new(Reason::SrkChanged, format!("node {node}")));
        }
        Ok(_) => {}
        // The tenant checked a copy that came with the enrollment: it serves.
        Err(e) => warn!(%node, error = %e.0, "the registrar can't be asked, going by the enrollment"),
    }
    // Only one that the caller knows already is said: `begin` authenticates nobody.
    let current = named.iter().find(|id| **id == enrollment.id).cloned();
    if current.is_none() && !named.is_empty() {
        info!(%node, current = %enrollment.id, ?named, "the node's disks have other enrollments than this");
    }
    let bank = appraisal::bank(purpose, enrollment);
    let scope = Scope { version, node, purpose, bank };
    let nonce = nonce::issue(&verifier.cluster, &scope, app.clock.now())?;
    let begun = Begun { version, nonce: nonce.into(), bank: bank.name().to_owned(), enrollment: current };
    if purpose == Purpose::Boot {
        verifier.begun.remember(known);
    }
    Ok(axum::Json(begun))
}

async fn finish(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Evidence, MAX_BODY>,
) -> Answer<Verdict> {
    let asking = peer.clone();
    let finish = Finish::new(app.clone(), peer, message)?;
    let node = finish.node();
    match finish.verdict().await? {
        Some(verdict) => Ok(axum::Json(verdict)),
        None => Err(not_enrolled(&app, node, &asking).await),
    }
}

async fn wait(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Wait>,
) -> Answer<Waited> {
    let node = node_id(&message.value.node_id)?;
    let full = || Refusal::new(Reason::RateLimited, "too many waiting requests");
    let now = app.clock.now();
    let named = message.value.ticket.as_deref().map(ticket).transpose()?;
    let known = match named.map(str::to_owned) {
        Some(ticket) => match app.public_db.run(move |records| records.boot(node, &ticket, now)).await? {
            Some(_) => Known::Boot,
            None => Known::Id,
        },
        None => Known::Id,
    };
    // First the seat, then the look: what happens in between wakes.
    let mut waiter = app.long_polls.wait_for_node(node, known, peer.source).ok_or_else(full)?;
    let known = known_node(&app, node, &peer).await?;
    let over = match (&message.value.ticket, known) {
        (Some(_), Some(known)) if known.revoked.is_some() || known.held.is_some() => true,
        (Some(ticket), Some(_)) => {
            let ticket = ticket.clone();
            let boot = app.public_db.run(move |records| records.boot(node, &ticket, now)).await?;
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
    plain_text("an enrollment id", enrollment_id, 64)?;
    if proof.len() != 32 {
        let what = format!("expected a proof of 32 bytes, found {}", proof.len());
        return Err(Refusal::new(Reason::Malformed, what));
    }
    let (enrollment_id, proof) = (enrollment_id.clone(), proof.clone());
    let clock = app.clock.clone();
    app.public_db.run(move |records| records.prove(node, &enrollment_id, &proof, clock.now())).await?;
    info!(%node, "enrollment proved");
    Ok(axum::Json(Proved { node_id: node.to_string() }))
}

async fn propose(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    message: Json<Propose, MAX_BODY>,
) -> Answer<Proposed> {
    let verifier = app.verifier()?.clone();
    let node = BoundedEvidence::read_proposal(&message.value.evidence)?.node;
    let (lifetime, clock, asking) = (app.config().lifetimes.nonce, app.clock.clone(), peer.clone());
    let decide = move |records: &Records| {
        let message = &message.value;
        let evidence = BoundedEvidence::read_proposal(&message.evidence)?;
        let Some(known) = records.node(node)? else { return Ok(None) };
        let enrollment = appraisal::enrollment(Purpose::Propose, &known).inspect_err(log_state)?;
        let now = clock.now();
        let checked =
            propose::CheckedProposal::of(message, &evidence, enrollment, &verifier.cluster, lifetime, now);
        verifier.admit(node, checked.authentic(), &peer)?;
        let request = ProposalRequest { node, now, sha256: checked.sha256(), proposal: checked.proposal() };
        let (ruling, id) = records.propose(&request, &mut |snapshot, documents| {
            checked.rule(snapshot, documents, &verifier.library)
        })?;
        if ruling.counters.is_some() {
            peer.prove(ProvedPeer::Node(node));
        }
        Ok(Some((ruling, id)))
    };
    let Some((ruling, id)) = app.public_db.run(decide).await? else {
        return Err(not_enrolled(&app, node, &asking).await);
    };
    let answer = |outcome: &str, reason: Option<Reason>, message: String| Proposed {
        outcome: outcome.to_owned(),
        code: reason.map(|reason| reason.code().to_owned()),
        message,
        hint: reason.and_then(Reason::hint).map(str::to_owned),
        proposal_id: id,
    };
    let answer = match ruling.decision {
        Ok(ProposalDecision::Accepted(how) | ProposalDecision::Trusted(how)) => answer("accepted", None, how),
        Ok(decision @ (ProposalDecision::Waits(_) | ProposalDecision::OnceBooted(_))) => {
            let once_booted = matches!(decision, ProposalDecision::OnceBooted(_));
            let why = decision.message().to_owned();
            let waits = answer("waiting", Some(Reason::ProposalWaits), why);
            let accept = id.map(|id| match once_booted {
                true => format!("boot it, then `halfkey approve {node} --learn`; `halfkey proposal show {id}` has what is known of it"),
                false => format!("an operator accepts it with `halfkey proposal accept {id}`"),
            });
            Proposed { hint: accept.or(waits.hint), ..waits }
        }
        Err(rejection) => Proposed {
            hint: rejection.advice().map(str::to_owned),
            ..answer("refused", Some(rejection.reason), rejection.to_string())
        },
    };
    app.metrics.proposal(&answer);
    info!(
        %node,
        outcome = %answer.outcome,
        code = answer.code.as_deref(),
        detail = %answer.message,
        proposal = id,
        "proposal"
    );
    Ok(axum::Json(answer))
}

/// The node, or `None` if it is registered and no tenant ever did something with it.
async fn known_node(app: &App, node: NodeId, peer: &Peer) -> Result<Option<Node>, Refusal> {
    match app.public_db.run(move |records| records.node(node)).await? {
        Some(known) => Ok(Some(known)),
        None => require_registered(app, node, peer).await.map(|()| None),
    }
}

/// Of a node with which no tenant ever did something.
///
/// # Errors
/// `UnknownNode` if it is not registered either, `RateLimited` if that is asked too often.
async fn require_registered(app: &App, node: NodeId, peer: &Peer) -> Result<(), Refusal> {
    match app.verifier()?.registrar.knows(node, peer.source).await? {
        Some(true) => Ok(()),
        None => {
            Err(Refusal::new(Reason::RateLimited, "too many questions about nodes that are not enrolled"))
        }
        Some(false) => Err(Refusal::new(Reason::UnknownNode, format!("node {node}"))),
    }
}

/// Why such a node is refused.
async fn not_enrolled(app: &App, node: NodeId, peer: &Peer) -> Refusal {
    let not_enrolled = || Rejection::new(Reason::NotEnrolled, format!("node {node}")).into();
    require_registered(app, node, peer).await.map_or_else(|refusal| refusal, |()| not_enrolled())
}

fn refuse_state(rejection: Rejection) -> Refusal {
    log_state(&rejection);
    rejection.into()
}

pub(super) fn log_state(rejection: &Rejection) {
    if rejection.reason == Reason::RolledBack {
        error!("{}", rejection.detail);
    }
}
