//! 25 to 27: boot paths with a loader: shim and GRUB under Microsoft's keys, systemd-boot with an entry of type 1.

use super::{World, updates};
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::{Estate, LABEL};
use crate::image::system::System;
use crate::machine::Reached;
use crate::story::Story;
use crate::story::Who::{Attacker, Machine, Operator, Verifier};
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

/// The kernel of Debian 12 does not measure an initrd that its command line names: no policy can be made of such a boot.
pub(super) fn is_not_learned(story: &Story, estate: &Estate) -> Result<()> {
    story.does(Operator, format!("looks at the boot and runs: halfkey approve {LABEL}"));
    let (code, said) = estate.tenant.try_run(&["approve", LABEL, "--yes"])?;
    let texts = ["kernel_measures_initrd = true, a uki, or the events of grub", "hint: boot a uki"];
    let unsaid = texts.iter().find(|text| !said.contains(**text));
    ensure!(code != 0, "a boot whose initramfs nothing pins was learned:\n{said}");
    ensure!(unsaid.is_none(), "the refusal does not say {unsaid:?}:\n{said}");
    story.proves("refused, with the reason and what to do: nothing pins the initramfs on this path");
    story.does(Operator, "releases this one boot: halfkey approve --once");
    Ok(())
}

/// A boot entry can be approved for once; every boot asks again.
pub fn entry(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    let (code, said) = estate.tenant.try_run(&["policy", "show", &format!("node:{LABEL}")])?;
    ensure!(code != 0, "the machine has a policy that nobody could have made:\n{said}");
    story.proves("approved for once it is unlocked; there is no policy, so the next boot waits again");
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
