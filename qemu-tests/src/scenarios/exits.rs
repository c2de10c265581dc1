//! Ways out of the initramfs that are not the agent's own. The machine need not be enrolled: what
//! counts is that PCR 15 is not zero when a shell or a prompt appears.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::initrd::ExtraFile;
use crate::image::system::{BootPath, System};
use crate::lab::closed_fence;
use crate::lab::machine::{BOOT, Boot, Line, Machine, Reached};
use crate::story::Who;

/// Ways to a shell of the initramfs: an argument on the kernel command line, the unit that it starts, and where that listens.
const WAYS: &[(&str, &str, Line)] = &[
    ("rd.break=initqueue", "dracut-emergency.service", Line::Console),
    ("rd.systemd.unit=emergency.target", "emergency.service", Line::Console),
    ("rd.systemd.unit=rescue.target", "rescue.service", Line::Console),
    ("rd.systemd.debug_shell=ttyS1", "debug-shell.service", Line::Second),
];

/// Nothing else of ours may close the fence before the shell does.
const MASKED: &str = "rd.systemd.mask=halfkey-unlock.service rd.luks=0";

/// Asks PID 1 about each unit that gives a shell, as those do that read from a terminal: whether it has loaded our drop-in,
/// and runs the fence. (dracut-cmdline-ask reads a line; every policy forbids what starts it.)
const ASK_PID_1: &str = "for f in /usr/lib/systemd/system/*.service; do while read -r l; do case $l in StandardInput=tty*) \
    u=${f##*/}; d=no; e=no; [ $u = dracut-cmdline-ask.service ] && break; \
    case $(systemctl show -p DropInPaths --value $u) in */$u.d/*halfkey.conf*) d=yes;; esac; \
    case $(systemctl show -p ExecStart --value $u) in *\"halfkey-agent fence --shell $u \"*) e=yes;; esac; \
    echo $u:$d:$e; break;; esac; done < $f; done";

/// Units of other images that use the root as soon as it is mounted, or change it: each after it and before the target.
const USERS: &[&str] = &["ostree-prepare-root", "bootc-root-setup", "systemd-repart"];

/// Asks PID 1 which of the units that use the mounted root have it looked at first, and which of them come after the first look.
const ASK_FOR_LOOKS: &str = "case $(systemctl show -p Requires --value initrd-root-fs.target) in *halfkey-gate.service*) echo required;; \
    esac; for u in halfkey-gate:ExecStart initrd-parse-etc:ExecStartPre dracut-pre-pivot:ExecStartPre \
    ostree-prepare-root:ExecStartPre bootc-root-setup:ExecStartPre systemd-repart:ExecStartPre; do \
    case $(systemctl show -p ${u#*:} --value ${u%:*}.service) in *'halfkey-agent gate --look'*|*\"halfkey-agent before -- ${u%:*} \"*) echo ${u%:*};; esac; \
    case $(systemctl show -p After --value ${u%:*}.service) in *halfkey-gate.service*) echo later;; esac; done";
/// What it answers.
const LOOKING: &str = "required halfkey-gate initrd-parse-etc later dracut-pre-pivot later ostree-prepare-root later \
    bootc-root-setup later systemd-repart later";

/// What happens to the agent, as a drop-in for its unit.
const CRASHES: &[(&str, &str)] = &[
    ("is killed", "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -KILL $$$$'\n"),
    ("hangs", "[Service]\nExecStart=\nExecStart=/bin/sleep 1000\nTimeoutStartSec=10\n"),
];

/// Each shell of the initramfs finds the fence closed, by its own drop-in.
pub fn shells(context: &mut Context) -> Result<()> {
    let mut open = Vec::new();
    for (argument, unit, line) in WAYS {
        context.story.does(Who::Attacker, format!("boots with {argument} {MASKED}"));
        let mut system = context.env.system(BootPath::Uki);
        system.cmdline = format!("{} {MASKED} {argument}", system.cmdline);
        system.extra.extend(USERS.iter().map(|unit| {
            ExtraFile {
                path: format!("usr/lib/systemd/system/{unit}.service"),
                content:
                    b"[Unit]\nDefaultDependencies=no\nAfter=sysroot.mount\nBefore=initrd-root-fs.target\n\
                [Service]\nType=oneshot\nExecStart=/bin/true\n"
                        .to_vec(),
            }
        }));
        let mut boot = boot(context, &system)?;
        if *line == Line::Console {
            boot.expect(Reached::Shell)?;
        } else {
            boot.wait_second(&["# "], BOOT)?;
        }
        boot.enter_shell(*line)?;
        let fence = boot.ask_shell(*line, "cat /sys/class/tpm/tpm0/pcr-sha256/15")?.to_lowercase();
        if fence != closed_fence() {
            open.push(format!("{unit}: PCR 15 is {fence}"));
        }
        let units = boot.ask_shell(*line, ASK_PID_1)?;
        ensure!(
            units.split(' ').any(|answer| answer.starts_with(unit)),
            "PID 1 does not know {unit}: {units}"
        );
        let bare = units.split(' ').filter(|answer| !answer.ends_with(":yes:yes"));
        open.extend(bare.map(|answer| format!("in the boot with {argument}, PID 1 says {answer}")));
        let before = boot.ask_shell(*line, "systemctl show -p Before --value sysroot.mount")?;
        if !before.contains("initrd-switch-root.service") {
            open.push(format!(
                "PID 1 would switch to a root before all is mounted that the gate must see: {before}"
            ));
        }
        let looks = boot.ask_shell(*line, ASK_FOR_LOOKS)?;
        if looks != LOOKING {
            open.push(format!("PID 1 would have the root used before the gate looks: {looks}"));
        }
        context.story.proves(format!("the shell of {unit} finds the fence at {}...", &fence[..16]));
        boot.pull_plug();
    }
    ensure!(open.is_empty(), "shells that are not fenced:\n    {}", open.join("\n    "));
    Ok(())
}

/// However the agent ends, the fence is closed and the ordinary prompt appears.
pub fn crashes(context: &mut Context) -> Result<()> {
    for (what, conf) in CRASHES {
        context.story.does(Who::Machine, format!("the agent {what}"));
        let path = "usr/lib/systemd/system/halfkey-unlock.service.d/99-test.conf".into();
        let extra = vec![ExtraFile { path, content: conf.as_bytes().to_vec() }];
        let system = System { extra, ..context.env.system(BootPath::Uki) };
        let mut boot = boot(context, &system)?;
        boot.expect(Reached::Prompt)?;
        boot.type_passphrase()?;
        boot.expect(Reached::System)?;
        let marker = boot.marker()?;
        ensure!(marker.fence_was(&closed_fence())?, "the agent {what}: PCR 15 is {}", marker.fence);
        context.story.proves("the prompt appears, the passphrase works, the fence is closed");
        boot.power_off()?;
    }
    Ok(())
}

/// Boots this on a machine that nobody enrolled.
fn boot(context: &mut Context, system: &System) -> Result<Boot> {
    match &context.unenrolled {
        Some(machine) => machine.install(&context.env, system)?,
        None => context.unenrolled = Some(Machine::new(&context.env, system)?),
    }
    context.unenrolled.as_mut().context("there is a machine")?.boot()
}
