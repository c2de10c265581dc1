//! 29 to 31: somebody with the disk makes a boot fail after its volumes were opened, and presses Enter. Kernel, initramfs and
//! command line are the genuine ones, so the verifier releases.

use super::World;
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::{Estate, shell_fence};
use crate::image::guest::ROOT_LUKS;
use crate::image::initrd::ExtraFile;
use crate::image::system::{BootPath, System};
use crate::image::{disk, header};
use crate::machine::{BOOT, Boot, Line, Reached};
use crate::rig::Rig;
use crate::story::Story;
use crate::story::Who::{Attacker, Machine, Verifier};

/// On the second disk: the gate is to be killed in this boot.
const KILL: &str = " kill-the-gate";

/// A gate that is killed before it has done anything, if the second disk says so: nothing that is measured differs.
const GATE: &str = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'case $$(cat /dev/vdb) in *kill-the-gate*) kill -KILL $$$$ ;; esac; \
    exec /usr/bin/halfkey-agent gate --exec /usr/bin/systemctl --no-block switch-root /sysroot'\n";

/// What the operator approves. The owner of this machine has SysRq, which the agent must see to.
pub fn system(rig: &Rig) -> System {
    let mut system = rig.system(BootPath::Uki);
    let path = "usr/lib/systemd/system/initrd-switch-root.service.d/zzz-test.conf".into();
    system.extra = vec![ExtraFile { path, content: GATE.as_bytes().to_vec() }];
    // Else dracut waits minutes for a file system that is not there.
    system.cmdline += " rd.retry=30 sysctl.kernel.sysrq=1";
    system
}

/// The root's superblock is overwritten, and the disk of the second volume stops answering.
pub fn damaged(world: &mut World) -> Result<()> {
    attack(world, |story, estate| {
        story.does(
            Attacker,
            "overwrites the superblock in the root volume; the second disk answers with errors after the opening",
        );
        disk::damage_root(estate.machine.disk(), 0, 64 << 10)?;
        let mut boot = estate.boot()?;
        boot.wait_console(&["opened /dev/vdc as "], BOOT)?;
        boot.break_spare()?;
        Ok(boot)
    })
}

/// The header says another sector size: the key opens the volume, and what is in it is noise.
pub fn sector_size(world: &mut World) -> Result<()> {
    attack(world, |story, estate| {
        story.does(Attacker, "changes the sector size in the header of the root volume");
        estate.change_header(|file| header::replace(file, "\"sector_size\":4096", "\"sector_size\":512 "))?;
        estate.boot()
    })
}

/// The gate is killed, and SysRq is pressed to kill what closes the volumes.
pub fn gate_killed(world: &mut World) -> Result<()> {
    attack(world, |story, estate| {
        story.does(Attacker, "kills the gate, and presses SysRq-e and SysRq-i from the opening on");
        estate.machine.note = KILL;
        let boot = estate.boot();
        estate.machine.note = "";
        let mut boot = boot?;
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

/// Boots after an attack, presses Enter, and looks what is open.
fn attack(world: &mut World, run: impl FnOnce(&Story, &mut Estate) -> Result<Boot>) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    estate.off()?;
    let kept = estate.machine.keep_disk()?;
    let result = run(story, estate).and_then(|boot| nothing_open(story, estate, boot));
    estate.machine.put_disk_back(&kept)?;
    result
}

fn nothing_open(story: &Story, estate: &Estate, mut boot: Boot) -> Result<()> {
    let reached = boot.reached()?;
    let record = estate.last_record()?;
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
