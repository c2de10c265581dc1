//! 25 to 28: boot paths with a loader: shim and GRUB under Microsoft's keys, systemd-boot with an entry of type 1.

use super::{World, updates};
use crate::ensure;
use crate::error::{Context, Result};
use crate::image::system::System;
use crate::machine::Reached;
use crate::story::Who::{Attacker, Machine, Operator, Verifier};
use halfkey_protocol::Reason;

/// What a policy may forbid: a boot into single-user mode.
const FORBIDDEN: &str = "systemd.unit=rescue.target";

/// Approved once, then unattended.
pub fn unattended(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "boots once more; nobody is there");
    updates::unattended(rig, estate, estate.system.clone())?;
    story.proves("the boot path that was learned boots unattended");
    Ok(())
}

/// One more command in grub.cfg, which is on the unencrypted EFI system partition.
pub fn grub_command(world: &mut World) -> Result<()> {
    const COMMAND: &str = "set halfkey_rig=attack";
    let message = denied(
        world,
        "adds a command to grub.cfg",
        |system| {
            system.grub_command = Some(COMMAND.into());
        },
        &[&["pcr 8", COMMAND]],
    )?;
    world.story.does(Verifier, format!("denies: {message}"));
    world.story.proves("denied: the command is named");
    Ok(())
}

/// A policy that allows all words on the command line but one.
pub fn token(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Operator, format!("allows any command line, but forbids {FORBIDDEN}"));
    let policy = estate.policy()?;
    let kept: Vec<&str> = policy.lines().filter(|line| !line.starts_with("command_line = ")).collect();
    let rules = format!(
        "[command_line]\nallowed = [\"*\"]\nrequired = [\"systemd.import_credentials=no\", \"efi=noruntime\"]\n\
         forbidden = [\"{FORBIDDEN}\"]\n"
    );
    estate.apply(&format!("{}\n\n{rules}", kept.join("\n")))?;
    let message = denied(
        world,
        "adds a word to the entry",
        |system| {
            system.cmdline += " ";
            system.cmdline += FORBIDDEN;
        },
        &[&["forbidden", FORBIDDEN]],
    )?;
    let findings = world.estate()?.last_record()?.findings;
    let other = findings.iter().find(|finding| !finding.to_string().contains(FORBIDDEN));
    ensure!(other.is_none(), "something else than the forbidden word was found: {other:?}");
    world.story.does(Verifier, format!("denies: {message}"));
    world.story.proves("denied: the forbidden word is named, and nothing else");
    Ok(())
}

/// The next boot is changed, and denied; the findings name all of this. Returns the verdict's message.
fn denied(
    world: &mut World,
    does: &str,
    change: impl FnOnce(&mut System),
    named: &[&[&str]],
) -> Result<String> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, does);
    let mut system = estate.system.clone();
    change(&mut system);
    estate.off()?;
    estate.machine.install(rig, &system)?;
    let mut boot = estate.boot()?;
    boot.expect(Reached::Prompt)?;
    boot.pull_plug();
    estate.machine.install(rig, &estate.system)?;
    estate.was_denied(Reason::PolicyMismatch.code())?;
    named.iter().try_for_each(|texts| estate.was_found(texts))?;
    Ok(estate.last_record()?.summary.message)
}
