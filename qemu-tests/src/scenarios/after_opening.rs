//! Somebody with the disk makes a boot fail after its volumes were opened, and presses Enter. Kernel, initramfs
//! and command line are the genuine ones, so the verifier releases.

use super::Context;
use super::notes::{KILL_THE_GATE, SECOND_DISK_GOES, SOMETHING_STAYS};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::guest::ROOT_LUKS;
use crate::image::{disk, header};
use crate::lab::machine::{BOOT, Boot, Line, MOMENT, Reached};
use crate::lab::{Lab, shell_fence};
use crate::story::Story;
use crate::story::Who::{Attacker, Machine, Verifier};

/// The root's superblock is overwritten, and the disk of the second volume answers with errors.
pub fn damaged(context: &mut Context) -> Result<()> {
    attack(context, |story, lab| {
        story.does(
            Attacker,
            "overwrites the superblock in the root volume; the second disk answers with errors after the opening",
        );
        disk::damage_root(lab.machine.disk(), 0, 64 << 10)?;
        let mut boot = lab.boot()?;
        boot.wait_console(&["opened /dev/vdc as "], BOOT)?;
        boot.break_spare()?;
        Ok(boot)
    })
}

/// The header says another sector size: the key opens the volume, and what is in it is noise.
pub fn sector_size(context: &mut Context) -> Result<()> {
    attack(context, |story, lab| {
        story.does(Attacker, "changes the sector size in the header of the root volume");
        lab.change_header(|file| header::replace(file, "\"sector_size\":4096", "\"sector_size\":512 "))?;
        lab.boot()
    })
}

/// The gate is killed, and SysRq is pressed to kill what closes the volumes.
pub fn gate_killed(context: &mut Context) -> Result<()> {
    attack(context, |story, lab| {
        story.does(Attacker, "kills the gate, and presses SysRq-e and SysRq-i from the opening on");
        let mut boot = lab.boot_noting(KILL_THE_GATE)?;
        // That SysRq is there at all is seen before the opening.
        boot.wait_console(&["dracut initqueue hook"], BOOT)?;
        boot.press_sysrq(&["h"], 4)?;
        boot.wait_console(&["opened /dev/vda2 as "], BOOT)?;
        boot.press_sysrq(&["e", "i"], 40)?;
        let console = boot.console();
        ensure!(console.contains("sysrq: HELP"), "SysRq did nothing before the opening either");
        for done in ["sysrq: Terminate All Tasks", "sysrq: Kill All Tasks"] {
            ensure!(!console.contains(done), "after the opening: {done}");
        }
        Ok(boot)
    })
}

/// 16 bytes of the path of systemd's ELF interpreter are noise, so that PID 1 would find nothing to execute but its last resort,
/// a shell; and the second disk is unplugged after the opening. Something has switched SysRq on again.
pub fn interpreter(context: &mut Context) -> Result<()> {
    let at = context.lab()?.interpreter()?;
    attack(context, |story, lab| {
        story.does(
            Attacker,
            format!("overwrites 16 bytes at {at} in the root volume, and unplugs the second disk after the opening"),
        );
        disk::damage_root(lab.machine.disk(), at, 16)?;
        let mut boot = lab.boot_noting(SECOND_DISK_GOES)?;
        boot.wait_console(&["opened /dev/vdc as "], BOOT)?;
        boot.unplug_spare()?;
        boot.wait_console(&["RIG: the second disk is gone"], MOMENT)?;
        ensure!(
            boot.console().contains("SysRq was switched on again after the opening: it is off"),
            "SysRq is on after the first look"
        );
        let said = ["gate: the system on the root can't be started", "Failed to execute /sbin/init", "\n# "];
        let which = boot.wait_console(&said, MOMENT)?;
        ensure!(which == 0, "PID 1 looks for something else to execute in the root");
        story.does(Machine, "finds that PID 1 could not start the system, and does not hand over to it");
        Ok(boot)
    })
}

/// The kernel itself holds an opened volume, so that nothing can close it, and the gate fails: there is no shell at all.
pub fn something_stays(context: &mut Context) -> Result<()> {
    attack(context, |story, lab| {
        story.does(Machine, "has a loop device over its second volume, and its gate fails");
        let mut boot = lab.boot_noting(SOMETHING_STAYS)?;
        boot.wait_console(&["RIG: a loop device is over"], BOOT)?;
        boot.expect(Reached::Off)?;
        let console = boot.console();
        ensure!(console.contains("expected no open volume, found "), "it does not say what stays open");
        ensure!(console.contains("hint: for a boot with the disk closed"), "it does not say what to do");
        Ok(boot)
    })
}

/// Boots after an attack, presses Enter, and looks what is open.
fn attack(context: &mut Context, run: impl FnOnce(&Story, &mut Lab) -> Result<Boot>) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    lab.off()?;
    let kept = lab.machine.keep_disk()?;
    let result = run(story, lab).and_then(|boot| nothing_open(story, lab, boot));
    lab.machine.put_disk_back(&kept)?;
    result
}

fn nothing_open(story: &Story, lab: &Lab, mut boot: Boot) -> Result<()> {
    let reached = boot.reached()?;
    let record = lab.last_record()?;
    ensure!(record.summary.outcome == "released", "what booted is genuine: {:?}", record.summary);
    story.does(Verifier, "releases: what was booted is what was approved");
    let opened = boot.console().contains("opened /dev/vda2 as ");
    match reached {
        Reached::System => return Err("the machine booted as if nothing had happened".into()),
        Reached::Off => {
            ensure!(!boot.has_marker()?, "a system came up");
            story.proves("the machine switched itself off: nothing is open");
            return boot.wait_off();
        }
        Reached::Prompt => {
            ensure!(!opened, "somebody is asked for a passphrase after the opening");
            story.proves("the volume is refused before it is opened, and the passphrase is asked for");
        }
        Reached::Shell => {
            story.does(Attacker, "presses Enter at the console");
            boot.enter_shell(Line::Console)?;
            let uuids = boot.ask_shell(Line::Console, "cat /sys/block/dm-*/dm/uuid 2>/dev/null")?;
            let mounts = boot.ask_shell(
                Line::Console,
                "while read -r l; do case $l in */sysroot*) echo $l;; esac; done </proc/mounts",
            )?;
            let fence =
                boot.ask_shell(Line::Console, "cat /sys/class/tpm/tpm0/pcr-sha256/15")?.to_lowercase();
            ensure!(
                uuids.is_empty() && mounts.is_empty(),
                "a root shell over open volumes: {uuids} {mounts}, PCR 15 {fence}"
            );
            ensure!(opened, "nothing was opened: the shell shows nothing (volume {ROOT_LUKS})");
            let expected =
                record.expected_fence.context("the verifier expects no fence value for this boot")?;
            let expected = shell_fence(&expected);
            ensure!(fence == expected, "PCR 15 is {fence}, expected {expected}");
            story.does(Machine, "closed all volumes before it gave a shell");
            story.proves("the shell stands over closed disks, and PCR 15 says that there was one");
        }
    }
    boot.pull_plug();
    Ok(())
}
