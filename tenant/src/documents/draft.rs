//! Texts for policies, before anybody signs them: learned from a boot, or made of a proposal.

use crate::error::{Error, Result};
use crate::render::findings;
use crate::render::text::{clean, clean_lines, clean_short, hex};
use crate::trust::boot::{self, Boot};
use halfkey_evidence::policy::{self, Assured, Finding, KeyUpdate, Policy, rules};
use halfkey_protocol::wire::Proposal;
use halfkey_protocol::wire::operator::NodeRecord;
use halfkey_protocol::wire::policies::Scope;

/// A policy that allows this boot and nothing else.
///
/// # Errors
/// `Failed` with what keeps the boot below the floor.
pub fn whole(boot: &Boot, record: &NodeRecord, assured: Assured, name: &str) -> Result<String> {
    let notes = [
        format!("learned from {}", boot::origin(&boot.record, &record.summary.label)),
        format!("node {}", clean_short(&record.summary.id, 36)),
    ];
    let notes: Vec<_> = notes.iter().map(String::as_str).collect();
    let made = policy::learn(&*boot.log()?, &boot.claims(), assured, &title(name), &notes);
    made.map_err(|found| not_learned(boot.number(), &found))
}

/// What a document lacks to allow a boot, or what files will bring.
#[derive(Default)]
pub struct Gain {
    /// Entries of Secure Boot's variables.
    pub keys: KeyUpdate,
    /// `[[boot]]`, and the `[[event]]`s beside it; empty if one that is there allows the boot.
    pub block: String,
    warnings: Vec<String>,
}

impl Gain {
    /// For the policy that governs the boot; `announced` is what the machine has proposed of it.
    ///
    /// # Errors
    /// As [`whole`].
    pub fn of(
        boot: &Boot,
        record: &NodeRecord,
        assured: Assured,
        policy: &Policy,
        announced: &[Proposal],
    ) -> Result<Self> {
        let (log, claims) = (boot.log()?, boot.claims());
        let keys = KeyUpdate::of_boot(policy, &log, &claims);
        let warnings = keys.warnings(Some(policy));
        let policy = policy.with_keys(&keys);
        if !keys.is_empty() && policy::evaluate(&policy, &log, &claims).accepted() {
            return Ok(Self { keys, block: String::new(), warnings });
        }
        let name = format!("evidence {}", boot.number());
        let made = policy::learn_announced(&policy, &log, &claims, assured, &name, announced);
        let block = made.map_err(|found| not_learned(boot.number(), &found))?;
        let block = format!("# learned from {}\n{block}", boot::origin(&boot.record, &record.summary.label));
        Ok(Self { keys, block, warnings })
    }

    /// A `[[boot]]` alone, or a whole policy.
    pub fn of_block(block: String) -> Self {
        Self { block, ..Self::default() }
    }

    /// Entries alone.
    pub fn of_keys(keys: KeyUpdate, policy: Option<&Policy>) -> Self {
        Self { warnings: keys.warnings(policy), keys, block: String::new() }
    }

    /// The text of a document of this scope with all of it.
    ///
    /// # Errors
    /// `Failed` when its `[secure_boot]` is written in a way that can't be extended.
    pub fn put_into(&self, text: &str, scope: &Scope) -> Result<String> {
        let text = match scope {
            _ if self.keys.is_empty() => Some(text.to_owned()),
            Scope::Additions(_) => self.keys.additions(text),
            _ => self.keys.policy(text),
        };
        let text = text.ok_or_else(|| {
            Error::failed(format!(
                "expected each list of [secure_boot] by its own key in the policy of {scope}, found it written otherwise"
            ))
            .hint(format!("take these in yourself, with `halfkey policy show` and `policy apply`\n{}", self.keys))
        })?;
        Ok(if self.block.is_empty() { text } else { joined(&text, &self.block) })
    }

    /// What the entries mean: a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// For the operator.
    pub fn shown(&self) -> String {
        let mut parts = Vec::new();
        if !self.keys.is_empty() {
            parts.push(clean_lines(&self.keys.to_string()));
        }
        if !self.block.is_empty() {
            parts.push(clean_lines(self.block.trim_end()));
        }
        if !self.warnings.is_empty() {
            let warnings = self.warnings.iter().map(|warning| format!("warning: {}", clean(warning)));
            parts.push(warnings.collect::<Vec<_>>().join("\n"));
        }
        parts.join("\n\n")
    }
}

/// A document and a block after it, with one empty line between.
pub fn joined(document: &str, block: &str) -> String {
    format!("{}\n\n{}\n", document.trim_end(), block.trim())
}

/// A name as it stands in a document: one line of it.
fn title(name: &str) -> String {
    clean_short(name, 64)
}

/// Something is below the floor, or the operator has to say that it is wanted.
fn not_learned(number: u64, found: &[Finding]) -> Error {
    let returned = |finding: &Finding| finding.rule == "boot path";
    let unknown = |finding: &Finding| finding.rule == "unknown event";
    let line = |finding: &Finding| finding.rule == "announced line";
    let why = if found.iter().all(returned) {
        "what was started on the way and came back, or could have, and could have done and measured all that followed"
    } else if found.iter().all(unknown) {
        "it has what neither a text nor the policy nor a proposal explains, and the names in a log are the word of who sent it"
    } else if found.iter().all(line) {
        "it was announced with another command line"
    } else {
        "it would be below the floor"
    };
    let error = Error::failed(format!(
        "no policy can be learned from evidence {number}: {why}\n{}",
        findings(found).trim_end()
    ));
    error.hint(hint(found, returned, unknown, line))
}

fn hint(
    found: &[Finding],
    returned: impl Fn(&Finding) -> bool,
    unknown: impl Fn(&Finding) -> bool,
    line: impl Fn(&Finding) -> bool,
) -> String {
    let mut hints = Vec::new();
    if found.iter().any(|finding| finding.expected.contains("kernel_measures_initrd")) {
        hints.push(
            "boot a uki (`dracut --uefi`, `ukify`); only if this kernel measures every initrd (Linux 6.13 and later, commit c004703ed7ae), give \
             --kernel-measures-initrd",
        );
    }
    if found.iter().any(returned) {
        hints.push(
            "mend the order of the boot entries, boot it, and learn from that; only if you trust what came back like the boot loader, \
             whatever somebody at the machine can make it do, give --trust-returned-images",
        );
    }
    if found.iter().any(unknown) {
        hints.push(
            "`halfkey-agent propose` in the running machine, before it boots what is new, says what GRUB will read; only if you know each of these \
             digests, or trust all that could write the boot files, give --trust-unknown-events",
        );
    }
    if found.iter().any(line) {
        hints.push(
            "ask who has changed the boot entry, or sat at the boot menu; if it was you, or GRUB's configuration was changed since the machine ran, give \
             --trust-command-line",
        );
    }
    if hints.is_empty() {
        hints.push("change how the machine boots as the expected values say, boot it, and learn from that");
    }
    hints.join("; and ")
}

/// The boot that a proposal speaks of, as a policy says it, under a name that the policy does not have yet. What is said of its kernel
/// here is besides what the policy says of the one that the boot is based on.
///
/// # Errors
/// `Failed` with what the policy's rules forbid.
pub fn proposed(
    proposal: &Proposal,
    from: &Policy,
    base: Option<&str>,
    kernel_measures_initrd: bool,
) -> Result<rules::Boot> {
    let assured = Assured { kernel_measures_initrd, ..Assured::default() };
    let mut boot = policy::boot_of(proposal, from, base, assured).map_err(|found| {
        let unsaid = found.iter().any(|finding| finding.expected.contains("kernel_measures_initrd"));
        let hint = if unsaid {
            "what the policy says of one kernel holds for another only if its image says that it is Linux 6.13 or later; if it measures every initrd all \
             the same, say --kernel-measures-initrd"
        } else {
            "change these rules first, with `halfkey policy show` and `policy apply`, if it is what you want"
        };
        Error::failed(format!("the policy's own rules forbid it\n{}", findings(&found).trim_end())).hint(hint)
    })?;
    if from.boots().iter().any(|known| known.name == boot.name) {
        // The same version built again: told apart by its first image.
        let digest = proposal.images.first().map(|image| hex(&image.authenticode)).unwrap_or_default();
        boot.name = format!("{} ({})", boot.name, &digest[..digest.len().min(12)]);
    }
    Ok(boot)
}
