//! Whether the boot that waits is one that its node proposed before: what GRUB boots is announced, and allowed by its first boot only.

use crate::context::Context;
use crate::documents::signing::SigningContext;
use crate::error::{Exit, Result};
use crate::render;
use crate::render::text::clean_short;
use crate::trust::boot::Boot;
use halfkey_evidence::policy::{is_booted, not_as_proposed};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::policies::{Finding, ProposalRecord};

/// Says it, where something waits. What a node proposes is its word, handed on by the server: it helps who looks, and decides nothing. So
/// nothing is in its way either.
pub fn say(context: &Context, signing: &SigningContext<'_>, id: NodeId, boot: &Boot) {
    match shown(signing, id, boot) {
        Ok(None) => {}
        Ok(Some(text)) => context.out.note(&text),
        Err(error) => context.out.note(&format!("note: what the node proposed could not be asked: {error}")),
    }
}

fn shown(signing: &SigningContext<'_>, id: NodeId, boot: &Boot) -> Result<Option<String>> {
    let log = match boot.log() {
        Ok(log) => log,
        Err(error) if error.exit == Exit::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let list = signing.client.proposals_before(None, Some(id), true)?;
    let is_it = |record: &&ProposalRecord| is_booted(&record.proposal, &log);
    let found = list.proposals.iter().find(is_it).or(list.proposals.first());
    Ok(found.map(|record| {
        text(record, is_booted(&record.proposal, &log), &not_as_proposed(&record.proposal, &log))
    }))
}

fn text(record: &ProposalRecord, is_it: bool, findings: &[Finding]) -> String {
    let named = format!("proposal {} ({})", record.id, clean_short(&record.proposal.name, 64));
    let differs = render::findings(findings);
    let differs = differs.trim_end();
    match (is_it, findings) {
        (true, []) => format!("this is the boot of {named}"),
        (true, _) => format!("this is the boot of {named}, but for\n{differs}"),
        (false, _) => format!("this is not the boot of {named}, which waits:\n{differs}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::wire::Proposal;
    use halfkey_protocol::wire::policies::ProposalState;

    #[test]
    fn it_is_said_which_one_and_what_differs() {
        let proposal = Proposal {
            version: 1,
            name: "6.1.0-57\u{1b}[2J".into(),
            bank: "sha256".into(),
            images: Vec::new(),
            sections: Vec::new(),
            initrd: None,
            command_line: None,
            loader: None,
        };
        let record = ProposalRecord {
            id: 4,
            node_id: String::new(),
            at: 0,
            state: ProposalState::Waiting,
            message: String::new(),
            proposal,
            from_evidence: 1,
        };
        let finding = Finding {
            pcr: Some(8),
            event: None,
            what: "command line".into(),
            rule: "proposal".into(),
            expected: "quiet".into(),
            found: "splash".into(),
            hint: None,
        };
        let same = text(&record, true, &[]);
        assert!(
            same.starts_with("this is the boot of proposal 4 (6.1.0-57") && !same.contains('\u{1b}'),
            "{same}"
        );
        let but = text(&record, true, std::slice::from_ref(&finding));
        assert!(but.contains("), but for\n  PCR 8") && but.ends_with("found     splash"), "{but}");
        assert!(text(&record, false, &[finding]).starts_with("this is not the boot of proposal 4"));
    }
}
