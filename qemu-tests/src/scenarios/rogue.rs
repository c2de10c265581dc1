//! The key must open the disk that then runs, and all that is mounted in it; and no file of another is executed
//! before that is known.

use super::Context;
use super::notes::MOUNTED_IN_ROOT;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::initrd::ExtraFile;
use crate::image::system::{BootPath, System};
use crate::lab::machine::Reached;
use crate::story::Who::{Attacker, Machine, Verifier};
use crate::test_env::TestEnv;
use std::fs;

/// Boots that the attacker takes at most to get his file system mounted.
const TRIES: u32 = 4;
/// Label of the attacker's file system for /var.
const VAR: &str = "rig-var";

/// What the hook says each time.
const LOOKS: &str = "hook: looks into the root";
/// What it would say by the attacker's file.
const CODE_RUNS: &str = "ROGUE-CODE-RUNS";

/// What is approved. As several of dracut's modules do (selinux, integrity, masterkey, ecryptfs), a hook of this initramfs
/// executes a file of the mounted root before switch-root: of the genuine root, by the owner's will. And it wants an exitrd.
pub fn system(env: &TestEnv) -> System {
    let path = format!("{}/pre-pivot/60-owner.sh", env.distribution.hooks);
    let hook = format!(
        "#!/bin/sh\necho '{LOOKS}' >/dev/console\n[ ! -r \"$NEWROOT/etc/owner.sh\" ] || . \"$NEWROOT/etc/owner.sh\"\n{}",
        super::exitrd::WANTED
    );
    System { extra: vec![ExtraFile { path, content: hook.into_bytes() }], ..env.system(BootPath::Uki) }
}

/// A plaintext file system that carries the UUID of the root file system, on a disk that keeps calling for attention so that
/// /dev/disk/by-uuid names it when the root is mounted. Nothing that is measured changes.
pub fn run(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    ensure!(lab.running()?.console().contains(LOOKS), "the hook that would execute a file did not run");
    lab.off()?;
    story.does(Attacker, "plugs in a disk with a plaintext file system that has the root file system's UUID");
    let visitor = lab.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    env.images.plaintext_root("ROGUE-SYSTEM-RUNS", ("etc/owner.sh", CODE_RUNS), &visitor)?;

    // Which device has the link when the root is mounted is a race inside udev. An attacker who loses it, so that the genuine
    // root runs, tries again; his own system must not run even once.
    for _ in 0..TRIES {
        let mut boot = lab.boot()?;
        // A disk that is quiet loses the link to the volume that is opened later.
        boot.announce_visitor()?;
        let reached = boot.reached()?;
        let console = boot.console();
        ensure!(!console.contains("ROGUE-SYSTEM-RUNS"), "the attacker's system ran");
        ensure!(!console.contains(CODE_RUNS), "a file of the attacker's was executed before the gate looked");
        let record = lab.last_record()?;
        ensure!(record.summary.outcome == "released", "the boot is genuine so far: {:?}", record.summary);
        story.does(Verifier, "releases: what was booted is what was approved");
        if reached == Reached::System {
            story.does(Attacker, "lost the race for the link: the genuine root runs; he tries again");
            lab.keep_running(boot);
            lab.off()?;
            continue;
        }
        ensure!(reached == Reached::Off, "expected that the machine switches itself off, but {reached:?}");
        ensure!(!boot.has_marker()?, "a system came up");
        ensure!(console.contains("gate: "), "the gate did not say why it powered off");
        story.does(Machine, "finds another root than the opened one: closes the volumes, powers off");
        ensure!(!console.contains(LOOKS), "the boot went on to the hook with the attacker's root");
        story.proves(
            "the key opens nothing for a root that is not the one it opened, and no file of it was executed",
        );
        boot.wait_off()?;
        return fs::rename(&kept, &visitor).context("can't put a disk back");
    }
    Err(format!("the rogue file system was not mounted in {TRIES} boots: nothing was shown").into())
}

/// The fstab of the root has the initramfs mount /var from a file system that is not encrypted, by its label.
pub fn var(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "has /var on a partition without encryption, mounted by the initramfs");
    let line = format!("LABEL={VAR} /var ext4 nofail,x-initrd.mount 0 0");
    lab.running()?.run(&format!("echo '{line}' >>/etc/fstab && sync"))?;
    lab.off()?;
    let visitor = lab.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    env.images.plaintext(VAR, &visitor)?;
    story.does(Attacker, "has that partition in his hands");
    let mut boot = lab.boot_noting(MOUNTED_IN_ROOT)?;
    let reached = boot.reached()?;
    let record = lab.last_record()?;
    ensure!(record.summary.outcome == "released", "the boot is genuine so far: {:?}", record.summary);
    story.does(Verifier, "releases: what was booted is what was approved");
    ensure!(reached == Reached::Off, "expected that the machine switches itself off, but {reached:?}");
    ensure!(!boot.has_marker()?, "a system came up");
    let console = boot.console();
    // What the gate names it has seen mounted, in whichever of its looks.
    ensure!(console.contains("gate: /sysroot/var"), "the gate did not say why it powered off");
    story.proves("nothing runs with a part of its system from elsewhere");
    boot.wait_off()?;
    fs::rename(&kept, &visitor).context("can't put a disk back")
}
