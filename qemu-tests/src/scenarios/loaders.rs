//! 25 and 26: shim and GRUB under Microsoft's keys; 27: any boot path with a loader.

use super::{World, updates};
use crate::error::{Context, Result};
use crate::image::system::System;
use crate::machine::Reached;
use crate::story::Who::{Attacker, Machine, Verifier};
use halfkey_protocol::Reason;

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

/// The next boot is changed, and denied; the findings name all of this. Returns the verdict's message.
pub(super) fn denied(
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
