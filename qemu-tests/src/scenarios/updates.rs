//! The kernel of an enrolled machine is updated: announced in every way there is, and not at all.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::initrd::ExtraFile;
use crate::image::system::{Release, System};
use crate::lab::machine::{Boot, Reached};
use crate::lab::{LABEL, Lab};
use crate::process::run;
use crate::story::Who::{Machine, Operator, Verifier};
use crate::test_env::TestEnv;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Proposed;
use halfkey_protocol::wire::policies::ProposalState;
use serde_json::Value;
use std::process::Command;

/// `halfkey-agent propose`: accepted, waits, refused.
const ACCEPTED: i32 = 0;
const WAITS: i32 = 7;
const REFUSED: i32 = 6;

/// Nobody announced the new kernel: denied, and both verdict and explanation name it. The passphrase still works.
pub fn surprise(context: &mut Context) -> Result<()> {
    context.lab()?;
    context.by_passphrase = Some(surprised(context)?);
    Ok(())
}

fn surprised(context: &mut Context) -> Result<Boot> {
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..lab.system.clone() };
    let version = &env.images.kernel(Release::Newest)?.version;
    story.does(Machine, format!("gets a new kernel, {version}; nobody tells the verifier"));
    let mut boot = boot_other(env, lab, &newest)?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::PolicyMismatch.code())?;
    lab.was_found(&["pcr 4", "boot application", version])?;
    story.does(Verifier, format!("denies: {}", lab.last_record()?.summary.message));
    let (code, explained) = lab.tenant.try_run(&["policy", "explain", LABEL])?;
    ensure!(
        code != 0 && explained.contains(version.as_str()),
        "the explanation does not name {version}:\n{explained}"
    );
    story.proves("denied, by the name of the new kernel; `halfkey policy explain` says so");
    boot.type_passphrase()?;
    boot.expect(Reached::System)?;
    Ok(boot)
}

/// Whoever knows the passphrase may be anybody: from such a boot no proposal is taken.
pub fn unattested(context: &mut Context) -> Result<()> {
    context.lab()?;
    let mut boot = match context.by_passphrase.take() {
        Some(boot) => boot,
        None => surprised(context)?,
    };
    let Context { env, story, .. } = context;
    let newest = System { release: Release::Newest, ..context.group.system(env) };
    story.does(Machine, "was opened by its passphrase, and proposes the kernel that it runs");
    let proposed = propose(&mut boot, env, &newest, REFUSED)?;
    ensure!(
        proposed.code.as_deref() == Some(Reason::ProposalUnattested.code()),
        "the proposal was refused for another reason, {:?}: {}",
        proposed.code,
        proposed.message
    );
    story.proves("refused: this boot was not released by attestation");
    boot.power_off()
}

/// The operator predicts what the new kernel will measure; then it boots unattended.
pub fn predicted(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..lab.system.clone() };
    let uki = env.images.uki(&newest)?;
    story.does(Operator, format!("runs: halfkey policy predict --uki FILE --add --node {LABEL}"));
    let file = uki.to_string_lossy();
    let version = &env.images.kernel(Release::Newest)?.version;
    let predict = ["policy", "predict", "--uki", &file, "--name", version];
    lab.tenant.run(&[&predict[..], &["--add", "--node", LABEL, "--yes"]].concat())?;
    let fence = unattended(env, lab, newest)?;
    story.proves(format!(
        "{version} was predicted: it boots unattended; PCR 15 = {}... as expected",
        &fence[..16]
    ));
    Ok(())
}

/// Back to the old kernel: while the policy still allows it, and afterwards.
pub fn rollback(context: &mut Context) -> Result<()> {
    context.lab()?;
    if context.lab()?.system.release == Release::Previous {
        predicted(context)?;
    }
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let newest = lab.system.clone();
    let previous = System { release: Release::Previous, ..newest.clone() };
    let version = &env.images.kernel(Release::Previous)?.version;
    story.does(Machine, format!("goes back to {version}, which the policy still allows"));
    unattended(env, lab, previous.clone())?;
    story.proves("within the policy a rollback boots unattended");

    story.does(Operator, format!("takes {version} out of the policy"));
    lab.apply(&without_first_boot(&lab.policy()?)?)?;
    let mut boot = boot_other(env, lab, &previous)?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::PolicyMismatch.code())?;
    lab.was_found(&["pcr 4", "boot application", version])?;
    story.proves("outside the policy it is denied, by its name");
    boot.pull_plug();
    lab.system = newest;
    lab.machine.install(env, &lab.system)
}

/// Nobody signed it and nobody foretold it: the operator decides, before the reboot.
pub fn proposal(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    lab.machine.install(env, &lab.system)?;
    let rebuilt = rebuilt(&lab.system, "one");
    let (mut boot, lab) = lab.lend()?;
    story.does(Machine, "has a rebuilt initramfs, and runs: halfkey-agent propose --uki FILE");
    let proposed = propose(&mut boot, env, &rebuilt, WAITS)?;
    lab.keep_running(boot);
    let waiting = lab.tenant.proposals(false)?;
    let [waits] = waiting.as_slice() else {
        return Err(format!("expected one proposal that waits, found {}", waiting.len()).into());
    };
    ensure!(Some(waits.id) == proposed.proposal_id, "the machine was told another number than {}", waits.id);
    story.does(Verifier, format!("lets it wait: {}", waits.message));
    story.does(Operator, format!("runs: halfkey proposal accept {}", waits.id));
    lab.tenant.run(&["proposal", "accept", &waits.id.to_string(), "--yes"])?;
    ensure!(lab.tenant.proposals(false)?.is_empty(), "an accepted proposal still waits");
    unattended(env, lab, rebuilt)?;
    let became = lab.tenant.proposals(true)?;
    let state = became.iter().find(|known| known.id == waits.id).map(|known| known.state);
    ensure!(state == Some(ProposalState::Booted), "the proposal became {state:?} after it booted");
    story.proves("accepted before the reboot: it boots unattended, and is on record as booted");
    Ok(())
}

/// The opt-out: the operator trusts root on that machine, for a day and one proposal.
pub fn opt_out(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Operator, "adds [trust_root_with_next_boot] to the policy: until tomorrow, one proposal");
    let tomorrow = run(Command::new("date").args(["--utc", "--date", "tomorrow", "+%FT%TZ"]))?;
    let table = format!("[trust_root_with_next_boot]\nuntil = {}\ncount = 1\n", tomorrow.trim());
    lab.apply(&format!("{}\n{table}", lab.policy()?))?;

    let (first, second) = (rebuilt(&lab.system, "two"), rebuilt(&lab.system, "three"));
    let (mut boot, lab) = lab.lend()?;
    story.does(Machine, "has a rebuilt initramfs, and proposes it");
    let proposed = propose(&mut boot, env, &first, ACCEPTED)?;
    story.does(Verifier, format!("takes it: {}", proposed.message));
    lab.keep_running(boot);
    unattended(env, lab, first)?;
    let (mut boot, lab) = lab.lend()?;
    let proposed = propose(&mut boot, env, &second, WAITS)?;
    lab.keep_running(boot);
    ensure!(
        proposed.message.contains("trust_root_with_next_boot"),
        "why a second one waits is not said: {}",
        proposed.message
    );
    story.proves("one update without an operator, unattended; a second proposal waits");
    Ok(())
}

/// The policy without the first of its two `[[boot]]`s: what was learned stands before what was added.
fn without_first_boot(policy: &str) -> Result<String> {
    const BOOT: &str = "[[boot]]\n";
    let pieces: Vec<&str> = policy.split(BOOT).collect();
    let [rest, _, last] = pieces.as_slice() else {
        return Err(format!("expected two boots in the policy, found {}", pieces.len() - 1).into());
    };
    Ok([rest, BOOT, last].concat())
}

/// The same system with another initramfs.
fn rebuilt(system: &System, content: &str) -> System {
    let file = ExtraFile { path: "usr/lib/halfkey/rebuilt".into(), content: content.into() };
    System { extra: vec![file], ..system.clone() }
}

/// Boots what is not approved (yet).
fn boot_other(env: &TestEnv, lab: &mut Lab, system: &System) -> Result<Boot> {
    lab.off()?;
    lab.machine.install(env, system)?;
    lab.boot()
}

/// Reboots into this system, which must come up by itself; it is what the machine boots from now on. Returns its fence.
pub(super) fn unattended(env: &TestEnv, lab: &mut Lab, system: System) -> Result<String> {
    let mut boot = boot_other(env, lab, &system)?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    lab.was_attested(&marker)?;
    lab.keep_running(boot);
    lab.system = system;
    Ok(marker.fence)
}

/// Brings the system's image into the guest, onto its root, and proposes it there as a hook does.
pub(super) fn propose(boot: &mut Boot, env: &TestEnv, system: &System, expected: i32) -> Result<Proposed> {
    const FILE: &str = "/root/linux-next.efi";
    boot.send_file(&env.images.uki(system)?, FILE)?;
    let (code, said) = boot.script(&format!(
        "halfkey-agent propose --uki {FILE} --written {FILE} --json --timeout 120; code=$?; rm {FILE}; exit $code"
    ))?;
    ensure!(code == expected, "propose: expected exit code {expected}, found {code}:\n{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let answer: Value = serde_json::from_str(line).context(format_args!("propose said {said}"))?;
    serde_json::from_value(answer["answer"].clone()).context(format_args!("propose said {said}"))
}
