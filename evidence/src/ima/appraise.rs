//! The rules against the entries that were proven.
//!
//! [`judge`] says of one entry what allows it, and costs no more than a look-up for most; [`describe`] says for people why one is
//! refused, and may look through whole lists for what was expected. [`appraise`] does both for all that is new.

use super::IMA_PCR;
use super::boot_aggregate::{BootAggregate, BootPcrs, compare};
use super::entry::{Entry, FileDigest};
use super::field::Field;
use super::path_pattern::PathPattern;
use super::replay::{Advance, BOOT_AGGREGATE, Outcome, Unverifiable};
use super::rules::{BufferContent, Rules, Violations};
use super::shown;
use super::signature::SignatureFault;
use super::signers::{Budget, MAX_SIGNATURES};
use crate::quote::hex;
use halfkey_protocol::wire::policies::Finding;

/// Most refusals that are described; more are counted.
pub const MAX_FINDINGS: usize = 100;
/// The same entry by kernels that look for a TPM once more.
const LATE_AGGREGATE: &[u8] = b"boot_aggregate_late";
/// Most digests and paths that one finding names.
const MAX_NAMED: usize = 3;

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict<'r> {
    /// A kernel began, in the boot that was quoted.
    Boot(BootAggregate),
    /// Its digest is on the list of this name.
    Listed(&'r str),
    /// It is signed by the key of this name.
    Signed(&'r str),
    /// Nothing is asked of its path.
    NotJudged(&'r PathPattern),
    /// The rule for buffers of this name allows it.
    Buffer(&'r str),
    /// A violation, as the rules let pass.
    Violation,
    /// Nothing allows it.
    Refused(Refusal<'r>),
}

/// Why an entry is refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal<'r> {
    /// It has no digest and name that can be read: an unknown template, or other fields in front.
    Unreadable,
    /// It is a violation.
    Violation,
    /// It says that a kernel began, and not in this boot.
    BootAggregate(BootAggregate),
    /// A second kernel was started by kexec.
    SecondKernel,
    /// A buffer that no rule names.
    Buffer,
    /// Its rule allows other content only.
    BufferContent(&'r str),
    /// Its rule allows anything, but this may be a file with its signature under another label.
    BufferMayBeFile(&'r str),
    /// The content that is in the list is not what was measured.
    BufferDigest,
    /// The digest is on no list, and there is no signature, or one that counts for nothing.
    Unlisted(Option<SignatureFault>),
}

/// Says what becomes of an entry.
///
/// `number` is that of [`Advance::entries`]; `boot` has PCR 0 to 9 of this boot, as far as they are known; `budget` is that of the list.
pub fn judge<'r>(
    rules: &'r Rules,
    boot: &[BootPcrs<'_>],
    number: u64,
    entry: &Entry<'_>,
    budget: &mut Budget,
) -> Verdict<'r> {
    if entry.is_violation() {
        return violation(rules, entry);
    }
    let (Some(name), Some(digest)) = (entry.name(), entry.digest()) else {
        return Verdict::Refused(Refusal::Unreadable);
    };
    if name == BOOT_AGGREGATE || name == LATE_AGGREGATE {
        return boot_aggregate(rules, number, name, compare(&digest, boot));
    }
    if let Some(content) = entry.field(Field::Buf) {
        return buffer(rules, name, &digest, content);
    }
    if let Some(listed) = rules.lists.iter().find(|listed| listed.list.contains(&digest, name)) {
        return Verdict::Listed(&listed.name);
    }
    if let Some(pattern) = rules.leaves_out(name) {
        return Verdict::NotJudged(pattern);
    }
    match entry.field(Field::Sig) {
        None | Some([]) => Verdict::Refused(Refusal::Unlisted(None)),
        Some(signature) => match rules.signers.verify(&digest, signature, budget) {
            Ok(signer) => Verdict::Signed(signer.name()),
            Err(fault) => Verdict::Refused(Refusal::Unlisted(Some(fault))),
        },
    }
}

fn violation<'r>(rules: &'r Rules, entry: &Entry<'_>) -> Verdict<'r> {
    let refused = Verdict::Refused(Refusal::Violation);
    match rules.violations {
        Violations::Allow => Verdict::Violation,
        Violations::Refuse => refused,
        Violations::NotJudgedOnly => {
            entry.name().and_then(|name| rules.leaves_out(name)).map_or(refused, Verdict::NotJudged)
        }
    }
}

/// A file, too, can be called so, in a file system that is mounted nowhere. Only what is the very first can be nothing else.
fn boot_aggregate(rules: &Rules, number: u64, name: &[u8], found: BootAggregate) -> Verdict<'static> {
    match found {
        BootAggregate::Matches if number > 0 && name == BOOT_AGGREGATE && !rules.kexec => {
            Verdict::Refused(Refusal::SecondKernel)
        }
        BootAggregate::Matches => Verdict::Boot(found),
        BootAggregate::OfAnotherBank | BootAggregate::Zero if number == 0 => Verdict::Boot(found),
        BootAggregate::OfAnotherBank | BootAggregate::Zero | BootAggregate::Differs => {
            Verdict::Refused(Refusal::BootAggregate(found))
        }
    }
}

fn buffer<'r>(rules: &'r Rules, name: &[u8], digest: &FileDigest<'_>, content: &[u8]) -> Verdict<'r> {
    // The kernel measures the digest of what it puts beside it. Without this a list could show another text.
    if digest.hash().is_none_or(|hash| *hash.digest(content) != *digest.bytes) {
        return Verdict::Refused(Refusal::BufferDigest);
    }
    let mut named = rules.buffers.iter().filter(|rule| rule.is_for(name)).peekable();
    let Some(first) = named.peek().copied() else { return Verdict::Refused(Refusal::Buffer) };
    match named.find(|rule| rule.allows(content)) {
        Some(rule) => Verdict::Buffer(rule.name()),
        None => Verdict::Refused(match first.content() {
            BufferContent::Any => Refusal::BufferMayBeFile(first.name()),
            BufferContent::Texts(_) | BufferContent::Digests(_) => Refusal::BufferContent(first.name()),
        }),
    }
}

/// What all new entries of a list come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListAppraisal {
    /// How many entries are on a list.
    pub listed: u64,
    /// Signed.
    pub signed: u64,
    /// Of paths that are not judged.
    pub not_judged: u64,
    /// Violations, those that were let pass and those that were refused.
    pub violations: u64,
    /// Everything else that is allowed: kernels that began, and buffers.
    pub other: u64,
    /// Refused.
    pub refused: u64,
    /// What is wrong: the list as a whole, then the first entries that were refused, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
}

impl ListAppraisal {
    /// Whether nothing is wrong.
    pub fn accepted(&self) -> bool {
        self.findings.is_empty() && self.refused == 0
    }
}

/// Judges what is new in a list. Of one that comes in parts each is judged, by the same budget.
pub fn appraise(
    rules: &Rules,
    boot: &[BootPcrs<'_>],
    advance: &Advance<'_>,
    budget: &mut Budget,
) -> ListAppraisal {
    let mut result =
        ListAppraisal { findings: of_outcome(rules, advance).into_iter().collect(), ..Default::default() };
    for (number, entry) in advance.entries() {
        let verdict = judge(rules, boot, number, &entry, budget);
        if entry.is_violation() {
            result.violations += 1;
        }
        match verdict {
            Verdict::Listed(_) => result.listed += 1,
            Verdict::Signed(_) => result.signed += 1,
            Verdict::NotJudged(_) => result.not_judged += 1,
            Verdict::Boot(_) | Verdict::Buffer(_) => result.other += 1,
            Verdict::Violation => {}
            Verdict::Refused(refusal) => {
                result.refused += 1;
                if result.findings.len() < MAX_FINDINGS {
                    result.findings.push(describe(rules, number, &entry, &refusal));
                }
            }
        }
    }
    result
}

/// Why an entry is refused, for people.
pub fn describe(rules: &Rules, number: u64, entry: &Entry<'_>, refusal: &Refusal<'_>) -> Finding {
    let name = shown(entry.name());
    let what = format!("ima entry {number}, {name}");
    let found = entry.digest().map_or_else(|| "no digest".to_owned(), |digest| shown_digest(&digest));
    match refusal {
        Refusal::Unreadable => finding(
            what,
            "each entry",
            "a template with digest and name in front",
            &format!("template {}", entry.template),
        )
        .with_hint("start the kernel with ima_template=ima-sig, or ima-sigv2"),
        Refusal::Violation => {
            finding(what, "violations", "none", "a file that was open for reading and for writing at once")
        }
        Refusal::BootAggregate(aggregate) => {
            finding(what, "boot aggregate", "the digest of this boot's pcrs", &{
                match aggregate {
                    BootAggregate::Zero => "zeros".to_owned(),
                    BootAggregate::OfAnotherBank => format!("{found}, of a bank that is not known"),
                    BootAggregate::Matches | BootAggregate::Differs => found,
                }
            })
        }
        Refusal::SecondKernel => finding(what, "kexec", "one kernel", "another one, started by kexec"),
        Refusal::Buffer => finding(what, "no rule", "a rule for buffers of this name", &shown_buffer(entry)),
        Refusal::BufferContent(rule) => {
            let rule = format!("buffer {rule}");
            finding(what, &rule, "what the rule lists", &shown_buffer(entry))
        }
        Refusal::BufferMayBeFile(rule) => {
            let expected = "content that is no signature of a file";
            finding(what, &format!("buffer {rule}"), expected, &shown_buffer(entry))
                .with_hint("a file with its signature gives the same entry: allow this content by its digest")
        }
        Refusal::BufferDigest => {
            finding(what, "each buffer", &format!("content with {found}"), &shown_buffer(entry))
        }
        Refusal::Unlisted(fault) => unlisted(rules, what, entry, found, *fault),
    }
}

fn unlisted(
    rules: &Rules,
    what: String,
    entry: &Entry<'_>,
    mut found: String,
    fault: Option<SignatureFault>,
) -> Finding {
    let (name, digest) = (entry.name().unwrap_or_default(), entry.digest());
    let mut expected: Vec<String> = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for listed in &rules.lists {
        let digests = listed.list.expected(name, MAX_NAMED);
        if !digests.is_empty() {
            expected.extend(digests.iter().map(|digest| format!("{digest} (list {})", listed.name)));
            named.push(&listed.name);
        }
        let elsewhere = digest.map_or(Vec::new(), |digest| listed.list.paths_of(&digest, MAX_NAMED));
        if !elsewhere.is_empty() {
            let paths: Vec<_> = elsewhere.into_iter().map(|path| shown(Some(path))).collect();
            found.push_str(&format!(", which list {} has for {}", listed.name, paths.join(", ")));
        }
    }
    if let Some(fault) = fault {
        found.push_str(&format!(", {fault}"));
    }
    let rule = match named.as_slice() {
        [] => "no rule".to_owned(),
        names => format!("list {}", names.join(", ")),
    };
    if expected.is_empty() {
        expected.push(match (rules.lists.len(), rules.signers.len()) {
            (_, 0) => "a digest that is listed".to_owned(),
            (0, _) => "a signature by a key of the keyring".to_owned(),
            _ => "a digest that is listed, or a signature by a key of the keyring".to_owned(),
        });
    }
    expected.truncate(MAX_NAMED);
    let finding = finding(what, &rule, &expected.join(" or "), &found);
    match fault {
        Some(SignatureFault::NotTried) => finding.with_hint(&format!(
            "at most {MAX_SIGNATURES} signatures of a list are tried: list digests of files that are used often"
        )),
        _ => finding,
    }
}

/// What is wrong with the list as a whole.
fn of_outcome(rules: &Rules, advance: &Advance<'_>) -> Option<Finding> {
    let broken = "a kernel that has extended the pcr for each entry since the machine was started";
    let of_list = |expected: &str, found: &str| finding("ima list".to_owned(), "each list", expected, found);
    let reboot = "reboot the machine";
    Some(match advance.outcome() {
        Outcome::Proven | Outcome::Restarted if advance.state().is_broken() => {
            of_list(broken, "one that has failed to").with_hint(reboot)
        }
        Outcome::Proven => return None,
        Outcome::Restarted if rules.kexec => return None,
        Outcome::Restarted => {
            finding("ima list".to_owned(), "kexec", "one kernel", "another one, started by kexec")
        }
        Outcome::Broken { lost } => {
            let found = format!("entries {} to {} that are in the list only", lost.start, lost.end - 1);
            of_list(broken, &found).with_hint(reboot)
        }
        Outcome::Waiting { .. } => of_list("a list that reaches what was quoted", "one that ends before"),
        Outcome::Differs { tried } => {
            let found = format!("another, with {tried} new entries");
            of_list(&format!("a list that gives the quoted pcr {IMA_PCR}"), &found)
                .with_hint("if nobody has changed it, the tpm may have failed: reboot the machine")
        }
        Outcome::Unverifiable(why) => match why {
            Unverifiable::Missing { wanted, found } => of_list(
                &format!("entries from {wanted} on"),
                &format!("entries from {found} on"),
            )
            .with_hint(
                "if the machine has no older ones, somebody trims its list: reboot it, and keep them from it",
            ),
            Unverifiable::Trimmed => {
                of_list("boot_aggregate as first entry", "another one: the list was trimmed")
                    .with_hint(reboot)
            }
            Unverifiable::Shorter { proven, found } => {
                of_list(&format!("at least the {proven} entries of before"), &format!("{found}"))
            }
            Unverifiable::NotExtended => {
                of_list("a kernel that extends its tpm", "one that found no tpm when it began")
            }
            Unverifiable::NoEntries => {
                of_list("an entry for each kernel that began", "none, and a pcr that was never extended")
                    .with_hint("start the kernel with ima_policy=tcb")
            }
            Unverifiable::OtherPcr { entry, pcr } => {
                of_list(&format!("pcr {IMA_PCR} in each entry"), &format!("pcr {pcr} in entry {entry}"))
                    .with_hint("leave pcr= out of ima's policy")
            }
        },
    })
}

fn finding(what: String, rule: &str, expected: &str, found: &str) -> Finding {
    Finding {
        pcr: Some(IMA_PCR),
        event: None,
        what,
        rule: rule.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        hint: None,
    }
}

trait WithHint {
    fn with_hint(self, hint: &str) -> Self;
}

impl WithHint for Finding {
    fn with_hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

fn shown_digest(digest: &FileDigest<'_>) -> String {
    let kind = match digest.kind {
        super::DigestKind::File => "",
        super::DigestKind::Verity => "verity:",
    };
    // A name of the kernel's, or of whoever made this list.
    format!(
        "{kind}{}:{}",
        shown(Some(digest.algorithm.as_bytes())),
        hex(&digest.bytes[..digest.bytes.len().min(64)])
    )
}

fn shown_buffer(entry: &Entry<'_>) -> String {
    match entry.field(Field::Buf).unwrap_or_default() {
        [] => "nothing".to_owned(),
        text if text.iter().all(|byte| matches!(byte, 0x20..=0x7e)) => shown(Some(text)),
        bytes => format!("{} bytes with {}", bytes.len(), shown_digest_of(entry)),
    }
}

fn shown_digest_of(entry: &Entry<'_>) -> String {
    entry.digest().map_or_else(|| "no digest".to_owned(), |digest| shown_digest(&digest))
}
