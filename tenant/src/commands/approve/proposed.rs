//! Whether the boot that waits is one that its node proposed before: what GRUB boots is announced, and allowed by its first boot only.

use crate::context::Context;
use crate::documents::governed::Governed;
use crate::documents::signing::SigningContext;
use crate::error::{Exit, Result};
use crate::render;
use crate::render::text::clean_short;
use crate::trust::boot::Boot;
use halfkey_evidence::policy::{is_booted, loaded_by_grub, not_as_proposed, unknown};
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::policies::{Finding, ProposalRecord, ProposalState};

/// Commands of GRUB that are shown; a boot has two.
const COMMANDS: usize = 8;
/// Events that nobody knows, as many as are shown.
const UNKNOWN: usize = 16;

/// Says it, where something waits, and gives what was proposed of this boot. What a node proposes is its word, handed on by the server: it
/// helps who looks, and says which digests are known. Who only releases a boot needs none of it.
///
/// # Errors
/// As every request. Nobody knows then whether the boot is one that was announced, of which more has to be known.
pub fn say(
    context: &Context,
    signing: &SigningContext<'_>,
    id: NodeId,
    boot: &Boot,
) -> Result<Vec<Proposal>> {
    let found = found(signing, id, boot).inspect_err(|error| {
        context.out.note(&format!("note: what the node proposed could not be asked: {error}"));
    })?;
    let Some((text, proposal)) = found else { return Ok(Vec::new()) };
    context.out.note(&text);
    Ok(Vec::from_iter(proposal))
}

fn found(
    signing: &SigningContext<'_>,
    id: NodeId,
    boot: &Boot,
) -> Result<Option<(String, Option<Proposal>)>> {
    let log = match boot.log() {
        Ok(log) => log,
        Err(error) if error.exit == Exit::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // One that was accepted, or booted before, is expected as well; and one that was denied or is over asks no less.
    let list = signing.client.proposals(Some(id), false)?;
    let is_it = |record: &&ProposalRecord| is_booted(&record.proposal, &log);
    let waits = |record: &&ProposalRecord| record.state == ProposalState::Waiting;
    let proposals = || list.proposals.iter();
    let known = proposals().filter(is_it).find(|record| counts(record.state));
    let found = known.or_else(|| proposals().find(is_it)).or_else(|| proposals().find(waits));
    let Some(record) = found else { return Ok(None) };
    let governed = Governed::fetch(signing, id)?.effective()?;
    let policy = governed.as_ref().map(|effective| effective.policy());
    let held = Held {
        is_it: is_booted(&record.proposal, &log),
        differs: not_as_proposed(&record.proposal, &log),
        unknown: unknown(policy, &record.proposal, &log, &boot.claims()),
        by_grub: loaded_by_grub(&log),
    };
    let announced = if counts(record.state) { record.proposal.clone() } else { empty(&record.proposal) };
    Ok(Some((held.text(record), held.is_it.then_some(announced))))
}

/// Whether what a proposal has counts as known.
fn counts(state: ProposalState) -> bool {
    match state {
        ProposalState::Waiting | ProposalState::Accepted | ProposalState::Trusted | ProposalState::Booted => {
            true
        }
        ProposalState::Denied | ProposalState::Superseded => false,
    }
}

/// A proposal of which nothing is known: the boot is expected, and no digest is.
fn empty(proposal: &Proposal) -> Proposal {
    let (images, sections) = (Vec::new(), Vec::new());
    Proposal { images, sections, initrd: None, command_line: None, loader: None, ..proposal.clone() }
}

/// A boot, held against a proposal.
struct Held<'a> {
    /// All digests that were proposed are there. Whoever runs in a boot can have that so.
    is_it: bool,
    differs: Vec<Finding>,
    /// What neither the policy nor the proposal has.
    unknown: Vec<Finding>,
    by_grub: Vec<&'a str>,
}

impl Held<'_> {
    /// Not more than is known: that what was proposed is all that this boot has, beside what the policy knows.
    fn text(&self, record: &ProposalRecord) -> String {
        let over = match record.state {
            ProposalState::Denied => ", which was denied",
            ProposalState::Superseded => ", which is over",
            ProposalState::Waiting
            | ProposalState::Accepted
            | ProposalState::Trusted
            | ProposalState::Booted => "",
        };
        let named = format!("proposal {} ({}{over})", record.id, clean_short(&record.proposal.name, 64));
        let differs = render::findings(&self.differs);
        let differs = differs.trim_end();
        let mut text = match (self.is_it, self.differs.as_slice(), self.unknown.as_slice()) {
            (true, [], []) => format!("this boot has the files of {named}"),
            (true, _, []) => format!("this boot has the files of {named}, but for\n{differs}"),
            (true, [], _) => format!("{named} is not all of this boot"),
            (true, ..) => format!("{named} is not all of this boot, which differs besides\n{differs}"),
            (false, ..) => format!("this boot has not the files of {named}, which waits:\n{differs}"),
        };
        if self.is_it && !self.unknown.is_empty() {
            text.push_str(&self.unknown_text(record.proposal.loader.is_some()));
        }
        if !self.by_grub.is_empty() {
            text.push_str("\ngrub may have read them and used others; it ran");
        }
        for command in self.by_grub.iter().take(COMMANDS) {
            text.push_str(&format!("\n  {}", clean_short(command, 500)));
        }
        if self.by_grub.len() > COMMANDS {
            text.push_str(&format!("\n  and {} more of linux and initrd", self.by_grub.len() - COMMANDS));
        }
        text
    }

    fn unknown_text(&self, by_grub: bool) -> String {
        let files = by_grub && self.unknown.iter().all(|finding| finding.pcr == Some(9));
        let what = match (self.unknown.len(), files) {
            (1, true) => "1 file that GRUB read is not known".to_owned(),
            (count, true) => format!("{count} files that GRUB read are not known"),
            (1, false) => "1 thing that was measured is not known".to_owned(),
            (count, false) => format!("{count} things that were measured are not known"),
        };
        let mut text = format!(
            "\n{what}, by the policy or by the proposal; whatever they are called, one of them may be the initramfs:"
        );
        for finding in self.unknown.iter().take(UNKNOWN) {
            let pcr = finding.pcr.map(|pcr| format!("PCR {pcr} ")).unwrap_or_default();
            text.push_str(&format!("\n  {pcr}{}, {}", finding.found, clean_short(&finding.what, 200)));
        }
        if self.unknown.len() > UNKNOWN {
            text.push_str(&format!("\n  and {} more", self.unknown.len() - UNKNOWN));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfkey_protocol::wire::Proposal;

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
        let held = |is_it, differs: &[Finding], unknown: &[Finding], by_grub: &[&str]| {
            let (differs, unknown) = (differs.to_vec(), unknown.to_vec());
            Held { is_it, differs, unknown, by_grub: by_grub.to_vec() }.text(&record)
        };
        let same = held(true, &[], &[], &[]);
        assert!(
            same.starts_with("this boot has the files of proposal 4 (6.1.0-57") && !same.contains('\u{1b}'),
            "{same}"
        );
        let differs = std::slice::from_ref(&finding);
        let but = held(true, differs, &[], &[]);
        let denied = ProposalRecord { state: ProposalState::Denied, ..record.clone() };
        let said = Held { is_it: true, differs: vec![], unknown: vec![], by_grub: vec![] }.text(&denied);
        assert!(said.contains(", which was denied)"), "{said}");
        assert!(but.contains("), but for\n  PCR 8") && but.ends_with("found     splash"), "{but}");
        let not = held(false, differs, &[], &[]);
        assert!(not.starts_with("this boot has not the files of proposal 4"), "{not}");
        let ran = held(true, &[], &[], &["linux /a", "initrd /b /evil\u{1b}", "initrd"].repeat(4));
        assert!(ran.contains("used others; it ran\n  linux /a\n  initrd /b /evil"), "{ran}");
        assert!(!ran.contains('\u{1b}') && ran.ends_with("and 4 more of linux and initrd"), "{ran}");
        let file = Finding {
            pcr: Some(9),
            found: "sha256:77".into(),
            what: "called \"/fonts/unicode.pf2\"".into(),
            ..finding.clone()
        };
        for differs in [&[][..], differs] {
            let more = held(true, differs, &vec![file.clone(); 20], &[]);
            assert!(!more.contains("this boot has the files"), "{more}");
            assert!(more.contains("\n20 things that were measured are not known"), "{more}");
            assert!(more.contains("\n  PCR 9 sha256:77, called \"/fonts"), "{more}");
            assert!(more.ends_with("\n  and 4 more"), "{more}");
        }
    }
}
