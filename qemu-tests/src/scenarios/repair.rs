//! An owner repairs a machine that boots unattended, and what somebody added to its disk meanwhile.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::disk;
use crate::image::guest::{DATA_LUKS, PASSPHRASE};
use crate::lab::machine::{Line, Reached};
use crate::lab::{LABEL, closed_fence};
use crate::story::Who::{Attacker, Machine, Operator};
use halfkey_protocol::Reason;

/// LUKS mappings that there are.
const OPEN: &str = "cat /sys/class/block/dm-*/dm/uuid 2>/dev/null";
/// What systemd's generator would make of the partitions on the disk of the root, were it not masked.
const GPT_AUTO: &str = "mkdir /tmp/units && /lib/systemd/system-generators/systemd-gpt-auto-generator /tmp/units /tmp/units /tmp/units; \
    ls /tmp/units; rm -r /tmp/units";

/// Held: a shell with the disk closed, in which the passphrase opens it. Released, with a disk missing: a prompt, with all closed.
/// With the disk back: unattended, and a swap area that was added to the disk is left alone.
pub fn run(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    lab.off()?;
    story.does(Operator, format!("runs: halfkey hold {LABEL} --because \"the root file system is damaged\""));
    lab.tenant.run(&["hold", LABEL, "--because", "the root file system is damaged"])?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::Held.code())?;
    story.does(Machine, "asks for the passphrase; the owner types another, until there is a shell");
    // How often it asks differs: three times in systemd 252, twice in 257.
    for last in [false, false, true] {
        boot.type_secret("not the passphrase")?;
        match boot.reached()? {
            Reached::Shell => break,
            Reached::Prompt if !last => {}
            other => {
                return Err(format!("expected a shell after the wrong passphrase, found {other:?}").into());
            }
        }
    }
    boot.enter_shell(Line::Console)?;
    let open = boot.ask_shell(Line::Console, OPEN)?;
    let fence = boot.ask_shell(Line::Console, "cat /sys/class/tpm/tpm0/pcr-sha256/15")?.to_lowercase();
    ensure!(open.is_empty(), "open in the shell of a held machine: {open}");
    ensure!(fence == closed_fence(), "PCR 15 is {fence}, expected closed");
    let repair = format!(
        "echo {PASSPHRASE} | cryptsetup open /dev/vda2 root; e2fsck -f -y /dev/mapper/root >/dev/null 2>&1; echo $?"
    );
    let checked = boot.ask_shell(Line::Console, &repair)?;
    ensure!(checked == "0" || checked == "1", "e2fsck ended with {checked}");
    boot.type_line("exit")?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    ensure!(
        marker.agent.is_none() && marker.fence_was(&closed_fence())?,
        "it counts as attested: {marker:?}"
    );
    story.proves("a held machine gives a shell over closed disks; repaired with the passphrase, it goes on");
    boot.power_off()?;

    story.does(Operator, format!("runs: halfkey release {LABEL}; the second disk is still out"));
    lab.tenant.run(&["release", LABEL])?;
    lab.machine.plugged.spare = false;
    let boot = lab.boot();
    lab.machine.plugged.spare = true;
    let mut boot = boot?;
    boot.expect(Reached::Prompt)?;
    let console = boot.console();
    let missing = format!("volume {DATA_LUKS} of the enrollment is not there");
    ensure!(console.contains(&missing), "the console does not say that {missing}");
    ensure!(console.contains("RIG: root asks over [],"), "something is open at the prompt");
    ensure!(!console.contains("opened /dev/"), "something was opened");
    story.proves("without one of its volumes nothing is opened: the passphrase is asked for");
    boot.pull_plug();

    story.does(Machine, "has the second disk back");
    story.does(Attacker, "adds a swap partition to the disk of the root");
    disk::add_swap(lab.machine.disk())?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    let kind = boot.run("blkid -o value -s TYPE /dev/vda3")?;
    ensure!(kind.trim() == "swap", "there is no swap partition to be left alone: {kind}");
    let units = boot.run(GPT_AUTO)?;
    ensure!(units.contains("swap"), "nothing would swap there anyway: {units}");
    let swaps = boot.run("cat /proc/swaps")?;
    ensure!(swaps.lines().count() == 1, "the system swaps:\n{swaps}");
    story.proves("released and whole, it unlocks itself again; what was added to its disk is not used");
    lab.keep_running(boot);
    Ok(())
}
