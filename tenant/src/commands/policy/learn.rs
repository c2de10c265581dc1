//! `halfkey policy learn`: a policy from a boot that was checked here.

use crate::client::resolve;
use crate::commands::policy::apply::Desk;
use crate::context::{self, App};
use crate::error::{Error, Result};
use crate::render;
use crate::render::text::clean_short;
use crate::trust::boot::{self, Attester, Boot};
use halfkey_evidence::policy::{self, Assured, Finding, Policy};
use halfkey_protocol::wire::operator::NodeRecord;
use serde::Serialize;
use std::path::Path;

/// `halfkey policy learn --json`.
#[derive(Serialize)]
struct Learned<'a> {
    node_id: String,
    evidence_id: u64,
    name: &'a str,
    policy: &'a str,
}

/// Fetches the boot, checks it, writes the policy.
///
/// # Errors
/// `Untrusted` when the boot does not pass the checks here; `Failed` when no policy can be made from it.
pub fn run(
    app: &App,
    node: &str,
    number: Option<u64>,
    assured: Assured,
    name: Option<&str>,
    output: Option<&Path>,
) -> Result<()> {
    let desk = Desk::open(app)?;
    let id = resolve::resolve(&desk.client, node)?;
    let record = desk.client.node(id)?;
    let attester = Attester::of(id, &record, &desk.key)?;
    if let Err(error) = attester.require_mine() {
        app.out.note(&format!("warning: {error}"));
    }
    let number = match (number, &record.pending) {
        (Some(number), _) => number,
        (None, Some(pending)) => pending.evidence_id,
        (None, None) => boot::last(&desk.client, id, "released boot", boot::released)?,
    };
    let boot = attester.boot(&desk.client, number)?;
    let name = name.unwrap_or(&record.summary.label);
    let text = whole(&boot, &record, assured, name)?;
    if let Some(path) = output {
        context::create(path, text.as_bytes())?;
        app.out.note(&format!("wrote {} from evidence {number}", path.display()));
        if !app.out.is_json() {
            return Ok(());
        }
    }
    let learned = Learned { node_id: id.to_string(), evidence_id: number, name, policy: &text };
    app.out.value(&learned, || text.trim_end().to_owned())
}

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

/// The block that allows this boot, for the policy that governs it.
///
/// # Errors
/// As [`whole`].
pub fn block(boot: &Boot, record: &NodeRecord, assured: Assured, policy: &Policy) -> Result<String> {
    let log = boot.log()?;
    let name = format!("evidence {}", boot.number());
    let made = policy::learn_boot(policy, &log, &boot.claims(), assured, &name);
    let block = made.map_err(|found| not_learned(boot.number(), &found))?;
    Ok(format!("# learned from {}\n{block}", boot::origin(&boot.record, &record.summary.label)))
}

/// A name as it stands in a document: one line of it.
fn title(name: &str) -> String {
    clean_short(name, 64)
}

/// Something is below the floor, or the operator has to say that it is wanted.
fn not_learned(number: u64, found: &[Finding]) -> Error {
    let returned = |finding: &Finding| finding.rule == "boot path";
    let why = if found.iter().all(returned) {
        "what was started before it came back to the firmware, and could have done and measured all that followed"
    } else {
        "it would be below the floor"
    };
    let error = Error::failed(format!(
        "no policy can be learned from evidence {number}: {why}\n{}",
        render::findings(found).trim_end()
    ));
    error.hint(hint(found, returned))
}

fn hint(found: &[Finding], returned: impl Fn(&Finding) -> bool) -> String {
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
    if hints.is_empty() {
        hints.push("change how the machine boots as the expected values say, boot it, and learn from that");
    }
    hints.join("; and ")
}
