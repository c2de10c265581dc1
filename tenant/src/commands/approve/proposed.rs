//! Whether the boot that waits is one that its node proposed before: what GRUB boots is announced, and allowed by its first boot only.

use crate::context::Context;
use crate::documents::signing::SigningContext;
use crate::error::{Exit, Result};
use crate::render;
use crate::render::text::clean_short;
use crate::trust::boot::Boot;
use halfkey_evidence::policy::{is_booted, loaded_by_grub, not_as_proposed};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::policies::{Finding, ProposalRecord};

/// Commands of GRUB that are shown; a boot has two.
const COMMANDS: usize = 8;

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
        let findings = not_as_proposed(&record.proposal, &log);
        text(record, is_booted(&record.proposal, &log), &findings, &loaded_by_grub(&log))
    }))
}

/// Not more than is known: that the files which were proposed are among those of the boot.
fn text(record: &ProposalRecord, is_it: bool, findings: &[Finding], by_grub: &[&str]) -> String {
    let named = format!("proposal {} ({})", record.id, clean_short(&record.proposal.name, 64));
    let differs = render::findings(findings);
    let differs = differs.trim_end();
    let mut text = match (is_it, findings) {
        (true, []) => format!("this boot has the files of {named}"),
        (true, _) => format!("this boot has the files of {named}, but for\n{differs}"),
        (false, _) => format!("this boot has not the files of {named}, which waits:\n{differs}"),
    };
    if !by_grub.is_empty() {
        text.push_str("\ngrub may have read them and used others; it ran");
    }
    for command in by_grub.iter().take(COMMANDS) {
        text.push_str(&format!("\n  {}", clean_short(command, 500)));
    }
    if by_grub.len() > COMMANDS {
        text.push_str(&format!("\n  and {} more of linux and initrd", by_grub.len() - COMMANDS));
    }
    text
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
            written_by_update: false,
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
        let same = text(&record, true, &[], &[]);
        assert!(
            same.starts_with("this boot has the files of proposal 4 (6.1.0-57") && !same.contains('\u{1b}'),
            "{same}"
        );
        let but = text(&record, true, std::slice::from_ref(&finding), &[]);
        assert!(but.contains("), but for\n  PCR 8") && but.ends_with("found     splash"), "{but}");
        assert!(
            text(&record, false, &[finding], &[]).starts_with("this boot has not the files of proposal 4")
        );
        let ran = text(&record, true, &[], &["linux /a", "initrd /b /evil\u{1b}", "initrd"].repeat(4));
        assert!(ran.contains("used others; it ran\n  linux /a\n  initrd /b /evil"), "{ran}");
        assert!(!ran.contains('\u{1b}') && ran.ends_with("and 4 more of linux and initrd"), "{ran}");
    }
}
