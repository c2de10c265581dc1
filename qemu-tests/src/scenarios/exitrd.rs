//! What a running system executes when it shuts down must not be what somebody left on a disk that is not encrypted.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::initrd::{ExtraFile, cpio, with_files};
use crate::story::Who::{Attacker, Machine};
use std::fs;

/// In a hook of the initramfs: as dracut's own modules for LVM, MD, multipath, iSCSI and NFS do it, with LVM in each boot.
pub const WANTED: &str = "need_shutdown\n[ ! -e /run/initramfs/.need_shutdown ] || echo 'hook: an exitrd is wanted' >/dev/console\n";

/// What the attacker's program says if it reads the host name in the root that is still open.
const RUNS: &str = "EXITRD-RUNS-OVER guest";
const SHUTDOWN: &str = "#!/bin/busybox sh\nPATH=/bin\nbusybox mount -o remount,rw /oldroot\n\
     busybox cp /oldroot/etc/hostname /oldroot/etc/seen\n\
     echo EXITRD-RUNS-OVER $(busybox cat /oldroot/etc/seen) >/dev/console\n\
     busybox sync\nbusybox reboot -f\n";

/// dracut's service for the shutdown is there and enabled, as dracut-core brings it; and the owner has made it his own in /etc.
const INSTALLED: &str = "cd /usr/lib/systemd/system && test -x /usr/lib/dracut/dracut-initramfs-restore && \
    test -e sysinit.target.wants/dracut-shutdown.service && cp dracut-shutdown.service /etc/systemd/system/ && \
    systemctl daemon-reload";

/// /boot is not encrypted, and an initramfs of the attacker's is on it. Without an attested boot's care, dracut unpacks it at
/// shutdown, and PID 1 goes on in it.
pub fn run(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let archive = lab.machine.logs().join("exitrd.cpio");
    let busybox = fs::read("/bin/busybox").context("can't read busybox\nhint: make deps")?;
    let file = |path: &str, content: &[u8]| ExtraFile { path: path.into(), content: content.to_vec() };
    let files = [file("bin/busybox", &busybox), file("shutdown", SHUTDOWN.as_bytes())];
    // dracut skips a first archive, which would be that of microcode.
    let early = cpio(&[file("early_cpio", b"1\n")]);
    fs::write(&archive, with_files(&early, &files)).context("can't write an archive")?;

    let (mut boot, lab) = lab.lend()?;
    lab.was_attested(&boot.marker()?)?;
    ensure!(
        boot.console().contains("hook: an exitrd is wanted"),
        "nothing in the initramfs wanted an exitrd"
    );
    boot.run(INSTALLED)?;
    story.does(Attacker, "has left an initramfs of his own on /boot, which is not encrypted");
    boot.run("mkfs.ext4 -q -F -b 4096 /dev/vdd && mount /dev/vdd /boot")?;
    boot.send_file(&archive, "/run/exitrd.cpio")?;
    boot.run("mv /run/exitrd.cpio /boot/initrd.img-$(uname -r) && sync")?;
    let state = boot.run("systemctl show -P LoadState dracut-shutdown.service")?;
    story.does(Attacker, "presses Ctrl-Alt-Del");
    let console = boot.press_ctrl_alt_del()?;
    ensure!(!console.contains(RUNS), "the attacker's program ran over the open root");
    ensure!(state.trim() == "masked", "dracut-shutdown.service is {}", state.trim());
    story.does(Machine, "shuts down without it");
    story.proves("what is on /boot is not executed when the running system shuts down");
    Ok(())
}
