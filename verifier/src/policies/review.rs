//! What is open, judged again when a policy changed.

use super::Library;
use super::propose::{Trusting, keeps, weigh};
use crate::appraisal::RecordedBoot;
use crate::domain::{
    BootReviewer, Node, PolicySource, ProposalDecision, Result, Reviewer, StoredProposal, Waiting,
};
use halfkey_protocol::wire::operator::{EvidenceRecord, PendingBoot};

impl BootReviewer for Library {
    fn boot(&self, node: &Node, record: &EvidenceRecord, documents: &dyn PolicySource) -> Result<bool> {
        let governed = self.governed(node, documents)?;
        // By what the AK signed, not by what a row says. A log that is no longer kept allows nothing.
        Ok(RecordedBoot::of(node, record, &governed).is_ok_and(|boot| boot.is_allowed()))
    }

    fn waiting(
        &self,
        node: &Node,
        row: PendingBoot,
        record: &EvidenceRecord,
        documents: &dyn PolicySource,
    ) -> Result<Waiting> {
        let governed = self.governed(node, documents)?;
        Ok(match RecordedBoot::of(node, record, &governed) {
            Ok(boot) => boot.waiting(node, row),
            Err(because) => Waiting::Unproven(because.to_string()),
        })
    }
}

impl Reviewer for Library {
    fn proposal(
        &self,
        node: &Node,
        proposal: &StoredProposal,
        documents: &dyn PolicySource,
    ) -> Result<ProposalDecision> {
        let governed = self.governed(node, documents)?;
        let trusting = Trusting::Kept(keeps(proposal, &governed));
        Ok(weigh(&governed, &proposal.record.proposal, proposal.base_boot.as_deref(), trusting))
    }

    fn is_booted(
        &self,
        node: &Node,
        proposal: &StoredProposal,
        record: &EvidenceRecord,
        documents: &dyn PolicySource,
    ) -> Result<bool> {
        let governed = self.governed(node, documents)?;
        let boot = RecordedBoot::of(node, record, &governed);
        Ok(boot.is_ok_and(|boot| boot.is_of(&proposal.record.proposal)))
    }
}
