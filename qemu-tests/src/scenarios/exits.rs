//! 13 and 14, beyond the plan: ways out of the initramfs that are not the agent's own. The machine need not be enrolled: what
//! counts is that PCR 15 is not zero when a shell or a prompt appears.

use super::World;
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::closed_fence;
use crate::image::initrd::ExtraFile;
use crate::image::system::System;
use crate::machine::{BOOT, Boot, MOMENT, Machine, Reached};
use crate::story::Who;
use std::time::Duration;

/// What asks for a shell, on the kernel command line.
const SHELLS: &[&str] = &["rd.break=initqueue", "rd.systemd.unit=emergency.target"];

/// What happens to the agent, as a drop-in for its unit.
const CRASHES: &[(&str, &str)] = &[
    ("is killed", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -KILL $$$$'\n"),
    ("hangs", "[Service]\nExecStart=\nExecStart=/bin/sleep 1000\nTimeoutStartSec=10\n"),
];

/// How long a shell may take to answer before Enter is pressed again.
const LISTENING: Duration = Duration::from_secs(3);

/// Each shell of the initramfs finds the fence closed.
pub fn shells(world: &mut World) -> Result<()> {
    for argument in SHELLS {
        world.story.does(Who::Attacker, format!("boots with {argument}"));
        let mut system = world.rig.with_shells();
        system.cmdline = format!("{} {argument}", system.cmdline);
        let mut boot = boot(world, &system)?;
        let mut tries = 30;
        boot.wait_console(&["Press Enter for maintenance"], BOOT)?;
        // What is typed before sulogin reads is lost.
        while boot.wait_console(&["# "], LISTENING).is_err() {
            ensure!(tries > 0, "{argument}: no shell after Enter");
            tries -= 1;
            boot.type_line("")?;
        }
        boot.type_line("echo PCR-$((10+5)) $(cat /sys/class/tpm/tpm0/pcr-sha256/15)")?;
        boot.wait_console(&["PCR-15 "], MOMENT)?;
        let fence = boot.rest_of_line()?.to_lowercase();
        ensure!(fence == closed_fence(), "{argument}: PCR 15 is {fence}, expected {}", closed_fence());
        world.story.proves("the shell finds the fence closed");
        boot.pull_plug();
    }
    Ok(())
}

/// However the agent ends, the fence is closed and the ordinary prompt appears.
pub fn crashes(world: &mut World) -> Result<()> {
    for (what, conf) in CRASHES {
        world.story.does(Who::Machine, format!("the agent {what}"));
        let path = "usr/lib/systemd/system/halfkey-unlock.service.d/99-test.conf".into();
        let extra = Some(ExtraFile { path, content: conf.as_bytes().to_vec() });
        let system = System { extra, ..world.rig.with_shells() };
        let mut boot = boot(world, &system)?;
        boot.expect(Reached::Prompt)?;
        boot.type_passphrase()?;
        boot.expect(Reached::System)?;
        let marker = boot.marker()?;
        ensure!(marker.fence == closed_fence(), "the agent {what}: PCR 15 is {}", marker.fence);
        world.story.proves("the prompt appears, the passphrase works, the fence is closed");
        boot.power_off()?;
    }
    Ok(())
}

/// Boots this on a machine that nobody enrolled.
fn boot(world: &mut World, system: &System) -> Result<Boot> {
    match &world.stray {
        Some(machine) => machine.install(&world.rig, system)?,
        None => world.stray = Some(Machine::new(&world.rig, system)?),
    }
    world.stray.as_mut().context("there is a machine")?.boot()
}
