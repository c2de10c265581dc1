//! Shim and GRUB under Microsoft's keys, and any boot path with a loader.

use super::{Context, updates};
use crate::error::{Context as _, Result};
use crate::image::system::System;
use crate::lab::machine::Reached;
use crate::story::Who::{Attacker, Machine, Verifier};
use halfkey_protocol::Reason;

/// Approved once, then unattended.
pub fn unattended(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "boots once more; nobody is there");
    updates::unattended(env, lab, lab.system.clone())?;
    story.proves("the boot path that was learned boots unattended");
    Ok(())
}

/// One more command in grub.cfg, which is on the unencrypted EFI system partition.
pub fn grub_command(context: &mut Context) -> Result<()> {
    const COMMAND: &str = "set halfkey_rig=attack";
    let message = denied(
        context,
        "adds a command to grub.cfg",
        |system| {
            system.grub_command = Some(COMMAND.into());
        },
        &[&["pcr 8", COMMAND]],
    )?;
    context.story.does(Verifier, format!("denies: {message}"));
    context.story.proves("denied: the command is named");
    Ok(())
}

/// The next boot is changed, and denied; the findings name all of this. Returns the verdict's message.
pub(super) fn denied(
    context: &mut Context,
    does: &str,
    change: impl FnOnce(&mut System),
    named: &[&[&str]],
) -> Result<String> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, does);
    let mut system = lab.system.clone();
    change(&mut system);
    lab.off()?;
    lab.machine.install(env, &system)?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    boot.pull_plug();
    lab.machine.install(env, &lab.system)?;
    lab.was_denied(Reason::PolicyMismatch.code())?;
    named.iter().try_for_each(|texts| lab.was_found(texts))?;
    Ok(lab.last_record()?.summary.message)
}
