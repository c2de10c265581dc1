//! Recorded evidence of a boot, judged again. What is said of a boot that waits is said of its quote: a row can be written by
//! whoever writes the database.

use super::checks::{counters, require_newer};
use super::{PolicyResult, enrolled, enrollment};
use crate::domain::{Node, Waiting};
use crate::policies::Governed;
use halfkey_evidence::Rejection;
use halfkey_evidence::appraise::{Appraisal, BoundedEvidence, appraise};
use halfkey_evidence::policy::is_booted;
use halfkey_evidence::ticket::BootTicket;
use halfkey_protocol::wire::operator::{EvidenceRecord, PendingBoot};
use halfkey_protocol::wire::{Proposal, Purpose};
use halfkey_protocol::{NodeId, Reason};

/// A recorded boot of a node, by what its AK signed.
pub struct RecordedBoot<'a> {
    appraisal: Appraisal<'a>,
    policy_result: PolicyResult<'a>,
}

impl<'a> RecordedBoot<'a> {
    /// Checks the quote by the enrolled AK and its fence, replays the logs to it, and judges them.
    ///
    /// # Errors
    /// Those of [`BoundedEvidence::read`] and of the quote, and `Malformed` when it is of another node or purpose.
    pub fn of(node: &Node, record: &'a EvidenceRecord, governed: &'a Governed) -> Result<Self, Rejection> {
        let evidence = BoundedEvidence::read(&record.evidence)?;
        require_boot_of(&evidence, node.id)?;
        let keys = enrolled::keys(Purpose::Boot, enrollment(Purpose::Boot, node)?)?;
        let policy = governed.rules.as_ref().ok().map(|rules| rules.effective.policy());
        let appraisal = appraise(&evidence, &keys, policy)?;
        appraisal.attested()?;
        let policy_result = PolicyResult::of(governed, &appraisal);
        Ok(Self { appraisal, policy_result })
    }

    /// Whether the policy allows it by now.
    pub fn is_allowed(&self) -> bool {
        match self.policy_result {
            PolicyResult::Allowed { .. } => true,
            PolicyResult::NoPolicy(_) | PolicyResult::Against(..) => false,
        }
    }

    /// Whether it is the boot that was proposed, as far as its log shows.
    pub fn is_of(&self, proposal: &Proposal) -> bool {
        self.appraisal.log().is_ok_and(|log| log.is_some_and(|log| is_booted(proposal, log)))
    }

    /// What an operator is shown of the boot that waits by this row, and may approve: the row says which one, since when and until
    /// when; which boot that is, and what is against it, the quote and its logs.
    pub fn waiting(&self, node: &Node, row: PendingBoot) -> Waiting {
        let ticket = BootTicket::of(self.appraisal.quote());
        if ticket.as_str() != row.ticket {
            return Waiting::Unproven(format!("it is of boot {ticket}"));
        }
        let (because, findings) = match (&self.policy_result, self.rolled_back(node)) {
            // Nothing but the counters keeps one from being approved whose node is as it was signed.
            (_, Some(because)) if !row.approvable => (because, Vec::new()),
            (PolicyResult::Allowed { .. }, _) => return Waiting::Allowed,
            (PolicyResult::NoPolicy(because), _) => (because.clone(), Vec::new()),
            (PolicyResult::Against(because, findings), _) => (because.clone(), findings.clone()),
        };
        let (code, message) = (because.reason.code().to_owned(), because.to_string());
        let approvable = row.approvable && node.damage.is_none();
        Waiting::Shown(PendingBoot { code, message, findings, approvable, ..row })
    }

    fn rolled_back(&self, node: &Node) -> Option<Rejection> {
        let because = require_newer(node.current.as_ref()?, counters(self.appraisal.quote())).err()?;
        (because.reason == Reason::CounterRollback).then_some(because)
    }
}

fn require_boot_of(evidence: &BoundedEvidence<'_>, node: NodeId) -> Result<(), Rejection> {
    match evidence.purpose {
        Purpose::Boot if evidence.node == node => Ok(()),
        Purpose::Boot | Purpose::Enroll | Purpose::Runtime | Purpose::Propose => {
            let found = format!("one of node {} for {}", evidence.node, evidence.purpose.as_str());
            Err(Rejection::new(
                Reason::Malformed,
                format!("expected evidence of a boot of node {node}, found {found}"),
            ))
        }
    }
}
