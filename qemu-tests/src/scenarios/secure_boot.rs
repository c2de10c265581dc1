//! 21 to 24, 28: Secure Boot with the owner's keys, and a policy that names the signer instead of hashes.

use super::World;
use super::updates::{propose, unattended};
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::{Estate, LABEL};
use crate::image::keys::Signer;
use crate::image::system::{REVOKED, Release, System};
use crate::machine::Reached;
use crate::rig::Rig;
use crate::story::Who::{Attacker, Machine, Operator, Verifier};
use crate::variables::Trust;
use halfkey_protocol::Reason;
use halfkey_testkit::hex;
use sha2::{Digest, Sha256};

/// A policy by signer: the new kernel needs nobody's decision.
pub fn signed(world: &mut World) -> Result<()> {
    let World { rig, story, estate, .. } = trusting_signer(world)?;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let newest = System { release: Release::Newest, ..estate.system.clone() };
    let (mut boot, estate) = estate.lend()?;
    story.does(Machine, "has a new kernel, signed by the owner, and proposes it");
    let proposed = propose(&mut boot, rig, &newest, 0)?;
    story.does(Verifier, format!("takes it: {}", proposed.message));
    estate.keep_running(boot);
    unattended(rig, estate, newest)?;
    story.proves("signed by the policy's signer: it boots unattended");
    Ok(())
}

/// A dbx update: more images are revoked.
pub fn dbx(world: &mut World) -> Result<()> {
    let World { rig, story, estate, .. } = trusting_signer(world)?;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "gets a dbx update");
    let trust = Trust::Own(rig.images.keys.enrolled(&[Signer::Owner], REVOKED + 1)?);
    estate.off()?;
    estate.machine.install_trusting(rig, &estate.system, &trust)?;
    let mut boot = estate.boot()?;
    boot.expect(Reached::System)?;
    estate.was_attested(&boot.marker()?)?;
    estate.keep_running(boot);
    story.proves("the policy says dbx_at_least: it boots unattended");

    story.does(Operator, format!("tries a policy that says dbx: halfkey policy test FILE --against {LABEL}"));
    let policy = estate.policy()?.replace("\ndbx_at_least =", "\ndbx =");
    let (code, said) = estate.test(&policy)?;
    ensure!(code != 0, "a dbx with one more entry passes a policy that lists it:\n{said}");
    ensure!(said.contains("dbx"), "what is denied is not named:\n{said}");
    story.proves("a policy that lists dbx exactly would have denied this boot, and says so");
    Ok(())
}

/// Another key gets into db, and signs: Secure Boot alone would boot it.
pub fn other_signer(world: &mut World) -> Result<()> {
    let World { rig, story, estate, .. } = trusting_signer(world)?;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "puts a key of his own into db and boots an image that he signed");
    let keys = &rig.images.keys;
    let trust = Trust::Own(keys.enrolled(&[Signer::Owner, Signer::Stranger], REVOKED)?);
    let system = System { signer: Some(Signer::Stranger), ..estate.system.clone() };
    let stranger = hex(&Sha256::digest(keys.certificate(Signer::Stranger)?));
    denied(rig, estate, &system, &trust, &[&["pcr 7", "db", &stranger], &["pcr 4", "boot application"]])?;
    story.does(Verifier, format!("denies: {}", estate.last_record()?.summary.message));
    story.proves("denied: the stranger's certificate and his image are named");
    restore(rig, estate)
}

/// Secure Boot is switched off: anything boots.
pub fn unsigned(world: &mut World) -> Result<()> {
    let World { rig, story, estate, .. } = trusting_signer(world)?;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(
        Attacker,
        "clears the firmware's keys, so that Secure Boot is off, and boots an unsigned image",
    );
    let system = System { signer: None, ..estate.system.clone() };
    let version = &rig.images.kernel(system.release)?.version;
    denied(rig, estate, &system, &Trust::Nobody, &[&["pcr 7", "SecureBoot"], &["pcr 4", version]])?;
    story.does(Verifier, format!("denies: {}", estate.last_record()?.summary.message));
    story.proves("denied: the variable SecureBoot and the image are named");
    restore(rig, estate)
}

/// A policy that allows words of the command line, and forbids one: the signer's own images must keep to it.
pub fn token(world: &mut World) -> Result<()> {
    const FORBIDDEN: &str = "panic=1";
    let World { rig, story, estate, .. } = trusting_signer(world)?;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let key = FORBIDDEN.split('=').next().unwrap_or_default();
    story.does(Operator, format!("allows the words of the command line one by one, and forbids {key}="));
    let before = estate.policy()?;
    let kept: Vec<&str> = before.lines().filter(|line| !line.starts_with("command_line = ")).collect();
    let allowed: Vec<_> = estate.system.cmdline.split(' ').filter(|word| *word != REQUIRED).collect();
    let rules = format!(
        "[command_line]\nallowed = {allowed:?}\nrequired = [{REQUIRED:?}]\nforbidden = [\"{key}=*\"]\n"
    );
    estate.apply(&format!("{}\n\n{rules}", kept.join("\n")))?;
    story.does(Operator, format!("signs an image with {FORBIDDEN} in its command line"));
    let cmdline = format!("{} {FORBIDDEN}", estate.system.cmdline);
    let system = System { cmdline, ..estate.system.clone() };
    let trust = system.path.trust(&rig.images.keys)?;
    denied(rig, estate, &system, &trust, &[&["command_line.forbidden", FORBIDDEN]])?;
    let findings = estate.last_record()?.findings;
    let other = findings.iter().find(|finding| !finding.to_string().contains(FORBIDDEN));
    ensure!(other.is_none(), "something else than the forbidden word was found: {other:?}");
    story.does(Verifier, format!("denies: {}", estate.last_record()?.summary.message));
    story.proves("denied: the forbidden word is named, and nothing else");
    estate.apply(&before)?;
    restore(rig, estate)
}

/// What the floor wants of every command line.
const REQUIRED: &str = "systemd.import_credentials=no";

/// The next boot is denied, and the findings name all of this.
fn denied(rig: &Rig, estate: &mut Estate, system: &System, trust: &Trust, named: &[&[&str]]) -> Result<()> {
    estate.off()?;
    estate.machine.install_trusting(rig, system, trust)?;
    let mut boot = estate.boot()?;
    boot.expect(Reached::Prompt)?;
    estate.was_denied(Reason::PolicyMismatch.code())?;
    boot.pull_plug();
    named.iter().try_for_each(|texts| estate.was_found(texts))
}

fn restore(rig: &Rig, estate: &Estate) -> Result<()> {
    estate.machine.install(rig, &estate.system)
}

/// Sees to it that the enrolled machine's policy names the owner as signer, where `learn` wrote hashes.
fn trusting_signer(world: &mut World) -> Result<&mut World> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let policy = estate.policy()?;
    if policy.contains("sections = \"signed\"") {
        return Ok(world);
    }
    story.does(Operator, "lets the policy name the signer of the images instead of their hashes");
    let owner = hex(&Sha256::digest(rig.images.keys.certificate(Signer::Owner)?));
    let policy = by_signer(&policy, &owner);
    estate.apply(&policy)?;
    Ok(world)
}

/// What `learn` wrote, with the signer in the place of the hashes of image, initrd and sections.
fn by_signer(policy: &str, signer: &str) -> String {
    let mut lines = Vec::new();
    let mut in_sections = false;
    for line in policy.lines() {
        if in_sections {
            in_sections = line != "]";
            continue;
        }
        match line.split_once(" = ") {
            Some(("sections", _)) => in_sections = true,
            Some(("initrd", _)) => {
                lines.extend(["initrd = \"signed\"".into(), "sections = \"signed\"".into()])
            }
            Some(("authenticode", _)) => lines.push(format!("signer = [\"sha256:{signer}\"]")),
            _ => lines.push(line.into()),
        }
    }
    lines.join("\n") + "\n"
}
