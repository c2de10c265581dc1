//! Someone had the disk in his hands.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::disk;
use crate::image::guest::PASSPHRASE;
use crate::image::header as luks;
use crate::image::initrd::ExtraFile;
use crate::image::system::System;
use crate::lab::machine::{MOMENT, Reached};
use crate::lab::{Lab, closed_fence};
use crate::story::Story;
use crate::story::Who::{Attacker, Machine, Verifier};
use crate::test_env::TestEnv;
use halfkey_protocol::Reason;

/// `init=/bin/sh` on the command line: denied, the prompt appears, the passphrase still works, and the shell that was
/// meant to steal the key finds the fence closed.
pub fn cmdline(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "adds init=/bin/sh to the kernel command line on the EFI system partition");
    let mut system = lab.system.clone();
    system.cmdline += " init=/bin/sh";
    with(env, lab, &system, |lab| {
        let mut boot = lab.boot()?;
        boot.expect(Reached::Prompt)?;
        lab.was_denied(Reason::PolicyMismatch.code())?;
        let record = lab.last_record()?;
        story.does(Verifier, format!("denies: {}", record.summary.message));
        lab.was_found(&["command_line", "init=/bin/sh"])?;
        story.does(Machine, "asks for the passphrase; the owner types it");
        boot.type_passphrase()?;
        boot.wait_console(&["# "], crate::lab::machine::BOOT)?;
        boot.type_line("/usr/lib/rig/marker; echo marker-$((6*7))")?;
        boot.wait_console(&["marker-42"], MOMENT)?;
        let marker = boot.marker()?;
        ensure!(
            marker.cmdline.ends_with("init=/bin/sh"),
            "another command line was booted: {}",
            marker.cmdline
        );
        ensure!(marker.fence_was(&closed_fence())?, "the fence is {}, expected closed", marker.fence);
        ensure!(marker.agent.is_none(), "the agent claims to have opened something");
        boot.type_line("sync; mount -o remount,ro /; poweroff -f -f")?;
        boot.wait_off()?;
        story.proves(
            "a changed boot gets no key; the passphrase still works; the shell finds the fence closed",
        );
        Ok(())
    })
}

/// One more file in the initramfs.
pub fn initramfs(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "adds one file to the initramfs");
    let file = ExtraFile { path: "usr/lib/halfkey/extra".into(), content: b"#!/bin/sh\n".to_vec() };
    let system = System { extra: vec![file], ..lab.system.clone() };
    with(env, lab, &system, |lab| {
        let mut boot = lab.boot()?;
        boot.expect(Reached::Prompt)?;
        lab.was_denied(Reason::PolicyMismatch.code())?;
        lab.was_found(&["initrd", "sha256:"])?;
        story.proves("one changed file in the initramfs: denied, and a prompt");
        boot.pull_plug();
        Ok(())
    })
}

/// Boots another system, then puts the approved one back.
fn with(
    env: &TestEnv,
    lab: &mut Lab,
    system: &System,
    run: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    lab.off()?;
    lab.machine.install(env, system)?;
    run(lab)?;
    lab.machine.install(env, &lab.system)
}

/// The disk in another machine.
pub fn other_tpm(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "puts the disk into a machine with another (genuine) TPM");
    lab.off()?;
    let other = env.place("other-tpm");
    env.manufacturer.make(&other)?;
    lab.machine.exchange_tpm(&other)?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::Signature.code())?;
    story.proves("another TPM can't sign for this node: nothing unlocks, and the verifier has it on record");
    boot.pull_plug();
    lab.machine.exchange_tpm(&other)
}

/// The genuine token in another LUKS2 header with the same UUID and the attacker's passphrase.
pub fn header(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    let (number, token) = {
        let file = lab.header_file()?;
        luks::token(&file)?
    };
    lab.off()?;
    // The machine is part of the lab that the closure works on.
    let kept = lab.machine.keep_disk()?;
    let result = lookalike(env, story, lab, number, &token);
    lab.machine.put_disk_back(&kept)?;
    result
}

fn lookalike(
    env: &TestEnv,
    story: &Story,
    lab: &mut Lab,
    number: u32,
    token: &serde_json::Value,
) -> Result<()> {
    const ATTACKER: &str = "the attacker's own passphrase";
    story.does(
        Attacker,
        "replaces the root volume by one of his own: same UUID, the genuine token, his passphrase",
    );
    let volume = lab.machine.disk().with_extension("lookalike");
    std::fs::copy(env.images.lookalike(ATTACKER)?, &volume).context("can't copy a volume")?;
    luks::add_keyslot(&volume, ATTACKER, luks::keyslot(token)?)?;
    luks::set_token(&volume, number, token)?;
    disk::set_root(lab.machine.disk(), &volume)?;
    std::fs::remove_file(&volume).context("can't remove a volume")?;

    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    let record = lab.last_record()?;
    ensure!(
        record.summary.outcome == "released",
        "firmware and command line are genuine: {:?}",
        record.summary
    );
    story.does(Verifier, "releases: what was booted is what was approved");
    story.does(Machine, "finds that the key does not open the volume, closes the fence and asks");
    boot.type_passphrase()?;
    boot.expect(Reached::Prompt)
        .context(format_args!("{PASSPHRASE:?} must not open the attacker's volume"))?;
    boot.type_secret(ATTACKER)?;
    boot.expect(Reached::System)?;
    let marker = boot.marker()?;
    ensure!(marker.fence_was(&closed_fence())?, "the fence is {}, expected closed", marker.fence);
    let expected = record.expected_fence.context("the verifier expects no fence value for this boot")?;
    ensure!(
        !marker.fence_was(&halfkey_testkit::hex(&expected))?,
        "the attacker's system has the fence of an attested boot"
    );
    story.proves("the attacker's system runs, but with a closed fence: no verifier takes it for the machine");
    boot.power_off()
}
