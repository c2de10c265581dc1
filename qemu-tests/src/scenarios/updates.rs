//! 15 to 20: the kernel of an enrolled machine is updated: announced in every way there is, and not at all.

use super::World;
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::{Estate, LABEL};
use crate::image::initrd::ExtraFile;
use crate::image::system::{Release, System};
use crate::machine::{Boot, Reached};
use crate::process::run;
use crate::rig::Rig;
use crate::story::Who::{Machine, Operator, Verifier};
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
pub fn surprise(world: &mut World) -> Result<()> {
    world.estate()?;
    world.by_passphrase = Some(surprised(world)?);
    Ok(())
}

fn surprised(world: &mut World) -> Result<Boot> {
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..estate.system.clone() };
    let version = &rig.images.kernel(Release::Newest)?.version;
    story.does(Machine, format!("gets a new kernel, {version}; nobody tells the verifier"));
    let mut boot = boot_other(rig, estate, &newest)?;
    boot.expect(Reached::Prompt)?;
    estate.was_denied(Reason::PolicyMismatch.code())?;
    estate.was_found(&["pcr 4", "boot application", version])?;
    story.does(Verifier, format!("denies: {}", estate.last_record()?.summary.message));
    let (code, explained) = estate.tenant.try_run(&["policy", "explain", LABEL])?;
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
pub fn unattested(world: &mut World) -> Result<()> {
    world.estate()?;
    let mut boot = match world.by_passphrase.take() {
        Some(boot) => boot,
        None => surprised(world)?,
    };
    let World { rig, story, .. } = world;
    let newest = System { release: Release::Newest, ..world.group.system(rig) };
    story.does(Machine, "was opened by its passphrase, and proposes the kernel that it runs");
    let proposed = propose(&mut boot, rig, &newest, REFUSED)?;
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
pub fn predicted(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..estate.system.clone() };
    let uki = rig.images.uki(&newest)?;
    story.does(Operator, format!("runs: halfkey policy predict --uki FILE --add --node {LABEL}"));
    let file = uki.to_string_lossy();
    let version = &rig.images.kernel(Release::Newest)?.version;
    let predict = ["policy", "predict", "--uki", &file, "--name", version];
    estate.tenant.run(&[&predict[..], &["--add", "--node", LABEL, "--yes"]].concat())?;
    let fence = unattended(rig, estate, newest)?;
    story.proves(format!(
        "{version} was predicted: it boots unattended; PCR 15 = {}... as expected",
        &fence[..16]
    ));
    Ok(())
}

/// Back to the old kernel: while the policy still allows it, and afterwards.
pub fn rollback(world: &mut World) -> Result<()> {
    world.estate()?;
    if world.estate()?.system.release == Release::Previous {
        predicted(world)?;
    }
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let newest = estate.system.clone();
    let previous = System { release: Release::Previous, ..newest.clone() };
    let version = &rig.images.kernel(Release::Previous)?.version;
    story.does(Machine, format!("goes back to {version}, which the policy still allows"));
    unattended(rig, estate, previous.clone())?;
    story.proves("within the policy a rollback boots unattended");

    story.does(Operator, format!("takes {version} out of the policy"));
    estate.apply(&without_first_boot(&estate.policy()?)?)?;
    let mut boot = boot_other(rig, estate, &previous)?;
    boot.expect(Reached::Prompt)?;
    estate.was_denied(Reason::PolicyMismatch.code())?;
    estate.was_found(&["pcr 4", "boot application", version])?;
    story.proves("outside the policy it is denied, by its name");
    boot.pull_plug();
    estate.system = newest;
    estate.machine.install(rig, &estate.system)
}

/// Nobody signed it and nobody foretold it: the operator decides, before the reboot.
pub fn proposal(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    estate.machine.install(rig, &estate.system)?;
    let rebuilt = rebuilt(&estate.system, "one");
    let (mut boot, estate) = estate.lend()?;
    story.does(Machine, "has a rebuilt initramfs, and runs: halfkey-agent propose --uki FILE");
    let proposed = propose(&mut boot, rig, &rebuilt, WAITS)?;
    estate.keep_running(boot);
    let waiting = estate.tenant.proposals(false)?;
    let [waits] = waiting.as_slice() else {
        return Err(format!("expected one proposal that waits, found {}", waiting.len()).into());
    };
    ensure!(Some(waits.id) == proposed.proposal_id, "the machine was told another number than {}", waits.id);
    story.does(Verifier, format!("lets it wait: {}", waits.message));
    story.does(Operator, format!("runs: halfkey proposal accept {}", waits.id));
    estate.tenant.run(&["proposal", "accept", &waits.id.to_string(), "--yes"])?;
    ensure!(estate.tenant.proposals(false)?.is_empty(), "an accepted proposal still waits");
    unattended(rig, estate, rebuilt)?;
    let became = estate.tenant.proposals(true)?;
    let state = became.iter().find(|known| known.id == waits.id).map(|known| known.state);
    ensure!(state == Some(ProposalState::Booted), "the proposal became {state:?} after it booted");
    story.proves("accepted before the reboot: it boots unattended, and is on record as booted");
    Ok(())
}

/// The opt-out: the operator trusts root on that machine, for a day and one proposal.
pub fn opt_out(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Operator, "adds [trust_root_with_next_boot] to the policy: until tomorrow, one proposal");
    let tomorrow = run(Command::new("date").args(["--utc", "--date", "tomorrow", "+%FT%TZ"]))?;
    let table = format!("[trust_root_with_next_boot]\nuntil = {}\ncount = 1\n", tomorrow.trim());
    estate.apply(&format!("{}\n{table}", estate.policy()?))?;

    let (first, second) = (rebuilt(&estate.system, "two"), rebuilt(&estate.system, "three"));
    let (mut boot, estate) = estate.lend()?;
    story.does(Machine, "has a rebuilt initramfs, and proposes it");
    let proposed = propose(&mut boot, rig, &first, ACCEPTED)?;
    story.does(Verifier, format!("takes it: {}", proposed.message));
    estate.keep_running(boot);
    unattended(rig, estate, first)?;
    let (mut boot, estate) = estate.lend()?;
    let proposed = propose(&mut boot, rig, &second, WAITS)?;
    estate.keep_running(boot);
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
fn boot_other(rig: &Rig, estate: &mut Estate, system: &System) -> Result<Boot> {
    estate.off()?;
    estate.machine.install(rig, system)?;
    estate.boot()
}

/// Reboots into this system, which must come up by itself; it is what the machine boots from now on. Returns its fence.
pub(super) fn unattended(rig: &Rig, estate: &mut Estate, system: System) -> Result<String> {
    let mut boot = boot_other(rig, estate, &system)?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    estate.was_attested(&marker)?;
    estate.keep_running(boot);
    estate.system = system;
    Ok(marker.fence)
}

/// Brings the system's image into the guest and proposes it there.
pub(super) fn propose(boot: &mut Boot, rig: &Rig, system: &System, expected: i32) -> Result<Proposed> {
    const FILE: &str = "/root/linux-next.efi";
    boot.send_file(&rig.images.uki(system)?, FILE)?;
    let (code, said) = boot.script(&format!(
        "halfkey-agent propose --uki {FILE} --json --timeout 120; code=$?; rm {FILE}; exit $code"
    ))?;
    ensure!(code == expected, "propose: expected exit code {expected}, found {code}:\n{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    let answer: Value = serde_json::from_str(line).context(format_args!("propose said {said}"))?;
    serde_json::from_value(answer["answer"].clone()).context(format_args!("propose said {said}"))
}
