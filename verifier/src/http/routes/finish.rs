//! Evidence comes in: it is checked by what `begin` read of the node, if that still holds when the ruling is recorded, else by what is
//! read again.

use super::node::log_state;
use crate::appraisal::{self, AuthenticatedEvidence};
use crate::domain::{
    self, Error, EvidenceRequest, Node, NodeSnapshot, PolicySource, Records, StoredProposal,
};
use crate::http::app::{App, Verifier};
use crate::http::body::Json;
use crate::http::refusal::Refusal;
use crate::http::trace;
use crate::limit::Proved;
use crate::nonce;
use crate::parked::wait;
use crate::tls::Peer;
use halfkey_evidence::appraise::BoundedEvidence;
use halfkey_protocol::wire::{Evidence, Purpose, SignedDocument, Verdict};
use halfkey_protocol::{MAX_BODY, NodeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tracing::{debug, info};

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
    /// It was counted already.
    admitted: AtomicBool,
}

/// Logs that take longer to read than others should wait for a thread that serves them all, in bytes.
const LONG_LOGS: usize = 256 << 10;

/// How it is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// On a thread that must not block, if that can be.
    AtOnce,
    /// On one that may.
    Blocking,
}

/// For who must not block: nothing is looked up.
struct Unread;

impl PolicySource for Unread {
    fn signed_document(&self, _: u64) -> domain::Result<Option<SignedDocument>> {
        Err(Error::unavailable("it is read elsewhere"))
    }

    fn stored_proposal(&self, _: u64) -> domain::Result<Option<StoredProposal>> {
        Err(Error::unavailable("it is read elsewhere"))
    }
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
        Ok(Self {
            app,
            verifier,
            peer,
            message,
            node,
            purpose,
            start: Instant::now(),
            trace,
            admitted: AtomicBool::new(false),
        })
    }

    /// Whose it says it is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The verdict, which is recorded; none if no tenant ever did something with the node.
    ///
    /// # Errors
    /// `RateLimited`, `RolledBack`; when the database can't be written.
    pub async fn verdict(self) -> domain::Result<Option<Verdict>> {
        let db = self.app.public_db.clone();
        if !db.records().has_turns() || !self.verifier.release.is_here() || self.has_long_logs() {
            return db.run(move |records| self.judge(records)).await;
        }
        let this = Arc::new(self);
        let (first, records) = (this.clone(), db.records().clone());
        let at_once = async move { Ok(first.judge_at_once(&records).await?.map(Some)) };
        db.run_at_once(at_once, move |records| this.judge(records)).await
    }

    /// The same without a thread that blocks: nearly all boots of a storm come this way. None if it has to be found by
    /// [`Finish::judge`].
    async fn judge_at_once(&self, records: &Records) -> domain::Result<Option<Verdict>> {
        let Some(known) = self.begun() else { return Ok(None) };
        let evidence = BoundedEvidence::read(&self.message.value)?;
        self.rule(records, &evidence, &known, Read::AtBegin, How::AtOnce).await
    }

    fn judge(&self, records: &Records) -> domain::Result<Option<Verdict>> {
        let evidence = BoundedEvidence::read(&self.message.value)?;
        let rule = |known: &Node, read| wait(self.rule(records, &evidence, known, read, How::Blocking));
        if let Some(known) = self.begun()
            && let Some(verdict) = rule(&known, Read::AtBegin)?
        {
            return Ok(Some(verdict));
        }
        let Some(known) = records.node(self.node)? else { return Ok(None) };
        rule(&known, Read::Now)
    }

    fn begun(&self) -> Option<Arc<Node>> {
        match self.purpose {
            Purpose::Boot => self.verifier.begun.take(self.node),
            Purpose::Enroll | Purpose::Runtime | Purpose::Propose => None,
        }
    }

    fn has_long_logs(&self) -> bool {
        let Evidence { event_log, systemd_log, ima_log, .. } = &self.message.value;
        let logs = [event_log, systemd_log, ima_log].into_iter().flatten();
        logs.map(|log| log.len()).sum::<usize>() > LONG_LOGS
    }

    /// None if what was read at `begin` does not hold any more, or the quote is not by the AK of then, or something has to be waited
    /// for where that can't be: nothing was recorded.
    async fn rule(
        &self,
        records: &Records,
        evidence: &BoundedEvidence<'_>,
        known: &Node,
        read: Read,
        how: How,
    ) -> domain::Result<Option<Verdict>> {
        let Self { app, verifier, peer, node, purpose, .. } = self;
        let (sent, now, config) = (&self.message.value, app.clock.now(), app.config());
        let enrollment = appraisal::enrollment(*purpose, known).inspect_err(log_state)?;
        let documents: &(dyn PolicySource + Sync) = match how {
            How::AtOnce => &Unread,
            How::Blocking => records,
        };
        let governed = match (verifier.library.governed(known, documents), read) {
            (Ok(governed), _) => governed,
            (Err(_), Read::AtBegin) => return Ok(None),
            (Err(e), Read::Now) => return Err(e),
        };
        let lifetimes = &config.lifetimes;
        let sender = AuthenticatedEvidence::of(evidence, enrollment, &verifier.cluster, lifetimes.nonce, now);
        if read == Read::AtBegin && !sender.authentic() {
            return Ok(None);
        }
        // Before its logs are read: who asks too often is not worth that.
        if !self.admitted.swap(true, Ordering::Relaxed) {
            verifier.admit(*node, sender.authentic(), peer)?;
        }
        debug!(%node, authentic = sender.authentic(), "evidence is appraised");
        let checked = sender.appraise(&governed, lifetimes.pending);
        let request = EvidenceRequest {
            node: *node,
            now,
            ticket: checked.ticket(),
            evidence: sent,
            keep: config.limits.evidence_kept,
            trace: self.trace.clone(),
        };
        let mut newer = false;
        let mut rule = |snapshot: &NodeSnapshot| {
            if read == Read::AtBegin && !checked.holds_for(&snapshot.node) {
                return None;
            }
            let ruling = checked.rule(snapshot, &verifier.release, &verifier.cluster);
            newer = ruling.quoted.is_some_and(|quoted| quoted.newer);
            Some(ruling)
        };
        let verdict = match how {
            How::Blocking => records.attest_if(&request, &mut rule)?,
            How::AtOnce => records.attest_in_turn(&request, &mut rule).await.transpose()?.flatten(),
        };
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
