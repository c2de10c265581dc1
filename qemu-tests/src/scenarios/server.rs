//! The verifier says no, says nothing, or is someone else.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::header;
use crate::lab::LABEL;
use crate::lab::machine::{BOOT, Reached};
use crate::story::Who::{Attacker, Machine, Operator, Verifier};
use crate::verifier;
use halfkey_protocol::Reason;
use std::time::{Duration, Instant};

/// The agent's own deadline, and what systemd and an emulated machine may add to it.
const DEADLINE: Duration = Duration::from_secs(60 + 40);
/// When the late verifier comes up.
const LATE: Duration = Duration::from_secs(15);
/// What the console says when the agent starts.
const UNLOCK_STARTS: &str = "halfkey-unlock";

/// Revoked: denied. Restored: unlocks again.
pub fn revoked(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    lab.off()?;
    story.does(Operator, format!("runs: halfkey revoke {LABEL} --because stolen"));
    lab.tenant.run(&["revoke", LABEL, "--because", "stolen"])?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::Prompt)?;
    lab.was_denied(Reason::Revoked.code())?;
    story.does(Verifier, "denies: the node is revoked");
    story.proves("a stolen machine gets no key any more, and the attempt is on record");
    boot.pull_plug();

    story.does(Operator, format!("runs: halfkey restore {LABEL} --because found"));
    lab.tenant.run(&["restore", LABEL, "--because", "found"])?;
    let mut boot = lab.boot()?;
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    story.proves("restored: it unlocks itself again");
    lab.keep_running(boot);
    Ok(())
}

/// Down for the whole boot: the prompt appears within the deadline. Up 15 s late: unlocked without a prompt.
pub fn down(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Verifier, "is down for the whole boot");
    let mut boot = lab.boot_without_verifier()?;
    boot.wait_console(&[UNLOCK_STARTS], BOOT)?;
    let started = Instant::now();
    boot.expect(Reached::Prompt)?;
    let waited = started.elapsed();
    ensure!(waited < DEADLINE, "the prompt came after {} s", waited.as_secs());
    boot.pull_plug();
    story.proves(format!("no verifier: the ordinary prompt after {} s", waited.as_secs()));

    lab.verifier.start()?;
    story.does(Verifier, format!("is down again, and comes up {} s after the agent started", LATE.as_secs()));
    let mut boot = lab.boot_without_verifier()?;
    boot.wait_console(&[UNLOCK_STARTS], BOOT)?;
    // The scenario is about time that passes.
    std::thread::sleep(LATE);
    lab.verifier.start()?;
    boot.expect(Reached::System)?;
    lab.was_attested(&boot.marker()?)?;
    story.does(Machine, "tried again until someone answered");
    story.proves("a late verifier is found within the deadline: no prompt");
    lab.keep_running(boot);
    Ok(())
}

/// The token names another CA: whoever answers at that address does not get to see an attestation.
pub fn wrong_ca(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "writes another CA into the tokens on the disks");
    lab.off()?;
    let other = env.place("other-verifier");
    let other = verifier::Verifier::init(&env.paths.programs, &other)?;
    let ca = String::from_utf8_lossy(&other.ca()?).into_owned();
    let kept = lab.machine.keep_disk()?;
    // The token of one volume is enough to find the verifier.
    let data = lab.machine.spare().to_owned();
    let (number, token) = header::token(&data)?;
    let result = (|| {
        for file in [None, Some(&data)] {
            let change = |file: &std::path::Path| {
                let (number, mut token) = header::token(file)?;
                token["ca"] = ca.as_str().into();
                header::set_token(file, number, &token)
            };
            file.map_or_else(|| lab.change_header(change), |file| change(file))?;
        }
        let mut boot = lab.boot()?;
        boot.expect(Reached::Prompt)?;
        let recorded = lab.recorded()?;
        ensure!(recorded.is_empty(), "the verifier got evidence: {recorded:?}");
        let console = boot.console().to_lowercase();
        ensure!(
            console.contains("certificate"),
            "the console does not say what is wrong with the certificate"
        );
        story.proves(
            "a server that the token's CA did not sign gets no evidence; the console says why; prompt",
        );
        boot.pull_plug();
        Ok(())
    })();
    lab.machine.put_disk_back(&kept)?;
    header::set_token(&data, number, &token)?;
    result
}
