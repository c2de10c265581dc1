//! What is open, judged again when a policy changed.

use super::Library;
use super::propose::{Trusting, keeps, weigh};
use crate::attest::{Claim, Judgement};
use crate::store::{Documents, Node, Result, Reviewer, Stand, StoredProposal};
use halfkey_protocol::wire::Purpose;
use halfkey_protocol::wire::operator::EvidenceRecord;

impl Reviewer for Library {
    fn boot(&self, node: &Node, record: &EvidenceRecord, documents: &dyn Documents) -> Result<bool> {
        let effective = self.effective(node, documents)?;
        let (Ok(claim), Some(enrollment)) = (Claim::read(&record.finish), &node.current) else {
            return Ok(false);
        };
        match claim.purpose {
            Purpose::Boot if claim.node == node.id => {}
            Purpose::Boot | Purpose::Enroll | Purpose::Runtime | Purpose::Propose => return Ok(false),
        }
        // By what the AK signed, not by what a row says. A log that is no longer kept allows nothing.
        let Ok(quote) = claim.quote(enrollment) else { return Ok(false) };
        let Ok(log) = claim.log(&quote) else { return Ok(false) };
        Ok(match Judgement::of(&effective, log.as_ref(), claim.command_line()) {
            Judgement::Allowed(_) => true,
            Judgement::NoPolicy(_) | Judgement::Against { .. } => false,
        })
    }

    fn proposal(&self, node: &Node, proposal: &StoredProposal, documents: &dyn Documents) -> Result<Stand> {
        let effective = self.effective(node, documents)?;
        let trusting = Trusting::Kept(keeps(proposal, &effective));
        Ok(weigh(&effective, &proposal.record.proposal, proposal.base_boot.as_deref(), trusting))
    }
}
