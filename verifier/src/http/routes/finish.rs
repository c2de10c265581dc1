//! Evidence comes in: it is checked by what `begin` read of the node, if that still holds when the ruling is recorded, else by what is
//! read again.

use super::node::log_state;
use crate::appraisal::{self, CheckedEvidence, Lifetimes};
use crate::domain::{self, EvidenceRequest, Node, Records};
use crate::http::app::{App, Verifier};
use crate::http::body::Json;
use crate::http::refusal::Refusal;
use crate::http::trace;
use crate::limit::Proved;
use crate::nonce;
use crate::tls::Peer;
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_protocol::wire::{Evidence, Purpose, Verdict};
use halfkey_protocol::{MAX_BODY, NodeId};
use std::sync::Arc;
use std::time::Instant;
use tracing::info;

/// Evidence that is within bounds, and all that ruling on it needs. Checking, recording and telling go on when the node hangs up, and the
/// memory of the body stays accounted.
pub struct Finish {
    app: Arc<App>,
    verifier: Arc<Verifier>,
    peer: Peer,
    message: Json<Evidence, MAX_BODY>,
    node: NodeId,
    purpose: Purpose,
    start: Instant,
    trace: Option<String>,
}

/// When the node was read that evidence is checked by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// At its `begin`.
    AtBegin,
    /// For just this.
    Now,
}

impl Finish {
    /// Reads evidence.
    ///
    /// # Errors
    /// `WrongRole`; those of [`BoundedEvidence::read`].
    pub fn new(app: Arc<App>, peer: Peer, message: Json<Evidence, MAX_BODY>) -> Result<Self, Refusal> {
        let verifier = app.verifier()?.clone();
        let BoundedEvidence { node, purpose, .. } = BoundedEvidence::read(&message.value)?;
        let trace = trace::current().map(|trace| trace.to_string());
        Ok(Self { app, verifier, peer, message, node, purpose, start: Instant::now(), trace })
    }

    /// Whose it says it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The verdict, which is recorded; none if no tenant ever did something with the node.
    ///
    /// # Errors
    /// `RateLimited`, `RolledBack`; when the database can't be written.
    pub fn judge(&self, records: &Records) -> domain::Result<Option<Verdict>> {
        let evidence = BoundedEvidence::read(&self.message.value)?;
        let mut admitted = false;
        if self.purpose == Purpose::Boot
            && let Some(known) = self.verifier.begun.take(self.node)
            && let Some(verdict) = self.rule(records, &evidence, &known, Read::AtBegin, &mut admitted)?
        {
            return Ok(Some(verdict));
        }
        let Some(known) = records.node(self.node)? else { return Ok(None) };
        self.rule(records, &evidence, &known, Read::Now, &mut admitted)
    }

    /// None if what was read at `begin` does not hold any more, or the quote is not by the AK of then: nothing was recorded.
    fn rule(
        &self,
        records: &Records,
        evidence: &BoundedEvidence<'_>,
        known: &Node,
        read: Read,
        admitted: &mut bool,
    ) -> domain::Result<Option<Verdict>> {
        let Self { app, verifier, peer, node, purpose, .. } = self;
        let (sent, now, config) = (&self.message.value, app.clock.now(), app.config());
        let enrollment = appraisal::enrollment(*purpose, known).inspect_err(log_state)?;
        let governed = match (verifier.library.governed(known, records), read) {
            (Ok(governed), _) => governed,
            (Err(_), Read::AtBegin) => return Ok(None),
            (Err(e), Read::Now) => return Err(e),
        };
        let lifetimes = Lifetimes { nonce: config.lifetimes.nonce, pending: config.lifetimes.pending };
        let checked = CheckedEvidence::of(evidence, enrollment, &governed, &verifier.cluster, lifetimes, now);
        if read == Read::AtBegin && !checked.authentic() {
            return Ok(None);
        }
        if !std::mem::replace(admitted, true) {
            verifier.admit(*node, checked.authentic(), peer)?;
        }
        let request = EvidenceRequest {
            node: *node,
            now,
            ticket: checked.ticket(),
            evidence: sent,
            keep: config.limits.evidence_kept,
            trace: self.trace.clone(),
        };
        let mut newer = false;
        let verdict = records.attest_if(&request, &mut |snapshot| {
            if read == Read::AtBegin && !checked.holds_for(&snapshot.node) {
                return None;
            }
            let ruling = checked.rule(snapshot, &verifier.release, &verifier.cluster);
            newer = ruling.quoted.is_some_and(|quoted| quoted.newer);
            Some(ruling)
        })?;
        let Some(verdict) = verdict else { return Ok(None) };
        if newer {
            peer.prove(Proved::Node(*node));
        }
        info!(
            %node,
            purpose = purpose.as_str(),
            outcome = %verdict.outcome,
            code = verdict.code.as_deref(),
            detail = %verdict.message,
            evidence = verdict.evidence_id,
            ms = self.start.elapsed().as_millis() as u64,
            "verdict"
        );
        let begun = checked.authentic().then(|| nonce::made(&sent.nonce)).flatten();
        app.metrics.verdict(*purpose, &verdict, begun.map(|begun| now.saturating_sub(begun)));
        Ok(Some(verdict))
    }
}
