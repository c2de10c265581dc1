//! 11 and 36: the key must open the disk that then runs, and all that is mounted in it.

use super::World;
use super::notes::MOUNTED_IN_ROOT;
use crate::ensure;
use crate::error::{Context, Result};
use crate::machine::Reached;
use crate::story::Who::{Attacker, Machine, Verifier};
use std::fs;

/// Boots that the attacker takes at most to get his file system mounted.
const TRIES: u32 = 4;
/// Label of the attacker's file system for /var.
const VAR: &str = "rig-var";

/// A plaintext file system that carries the UUID of the root file system, on a disk that keeps calling for attention so that
/// /dev/disk/by-uuid names it when the root is mounted. Nothing that is measured changes.
pub fn run(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    estate.off()?;
    story.does(Attacker, "plugs in a disk with a plaintext file system that has the root file system's UUID");
    let visitor = estate.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    rig.images.plaintext_root("ROGUE-SYSTEM-RUNS", &visitor)?;

    // Which device has the link when the root is mounted is a race inside udev. An attacker who loses it, so that the genuine
    // root runs, tries again; his own system must not run even once.
    for _ in 0..TRIES {
        let mut boot = estate.boot()?;
        // A disk that is quiet loses the link to the volume that is opened later.
        boot.announce_visitor()?;
        let reached = boot.reached()?;
        let console = boot.console();
        ensure!(!console.contains("ROGUE-SYSTEM-RUNS"), "the attacker's system ran");
        let record = estate.last_record()?;
        ensure!(record.summary.outcome == "released", "the boot is genuine so far: {:?}", record.summary);
        story.does(Verifier, "releases: what was booted is what was approved");
        if reached == Reached::System {
            story.does(Attacker, "lost the race for the link: the genuine root runs; he tries again");
            estate.keep_running(boot);
            estate.off()?;
            continue;
        }
        ensure!(reached == Reached::Off, "expected that the machine switches itself off, but {reached:?}");
        ensure!(!boot.has_marker()?, "a system came up");
        ensure!(console.contains("gate: "), "the gate did not say why it powered off");
        story.does(Machine, "finds another root than the opened one: closes the volumes, powers off");
        story.proves("the key opens nothing for a root that is not the one it opened");
        boot.wait_off()?;
        return fs::rename(&kept, &visitor).context("can't put a disk back");
    }
    Err(format!("the rogue file system was not mounted in {TRIES} boots: nothing was shown").into())
}

/// The fstab of the root has the initramfs mount /var from a file system that is not encrypted, by its label.
pub fn var(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "has /var on a partition without encryption, mounted by the initramfs");
    let line = format!("LABEL={VAR} /var ext4 nofail,x-initrd.mount 0 0");
    estate.running()?.run(&format!("echo '{line}' >>/etc/fstab && sync"))?;
    estate.off()?;
    let visitor = estate.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    rig.images.plaintext(VAR, &visitor)?;
    story.does(Attacker, "has that partition in his hands");
    let mut boot = estate.boot_noting(MOUNTED_IN_ROOT)?;
    let reached = boot.reached()?;
    let record = estate.last_record()?;
    ensure!(record.summary.outcome == "released", "the boot is genuine so far: {:?}", record.summary);
    story.does(Verifier, "releases: what was booted is what was approved");
    ensure!(reached == Reached::Off, "expected that the machine switches itself off, but {reached:?}");
    ensure!(!boot.has_marker()?, "a system came up");
    let console = boot.console();
    ensure!(console.contains("RIG: /sysroot/var is mounted"), "it was not mounted: nothing was shown");
    ensure!(console.contains("gate: /sysroot/var"), "the gate did not say why it powered off");
    story.proves("nothing runs with a part of its system from elsewhere");
    boot.wait_off()?;
    fs::rename(&kept, &visitor).context("can't put a disk back")
}
