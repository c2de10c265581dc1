//! 6, 7 and 8: the verifier says no, says nothing, or is someone else.

use super::World;
use crate::ensure;
use crate::error::{Context, Result};
use crate::estate::LABEL;
use crate::image::header;
use crate::machine::{BOOT, Reached};
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
pub fn revoked(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    estate.off()?;
    story.does(Operator, format!("runs: halfkey revoke {LABEL} --because stolen"));
    estate.tenant.run(&["revoke", LABEL, "--because", "stolen"])?;
    let mut boot = estate.boot()?;
    boot.expect(Reached::Prompt)?;
    estate.was_denied(Reason::Revoked.code())?;
    story.does(Verifier, "denies: the node is revoked");
    story.proves("a stolen machine gets no key any more, and the attempt is on record");
    boot.pull_plug();

    story.does(Operator, format!("runs: halfkey restore {LABEL} --because found"));
    estate.tenant.run(&["restore", LABEL, "--because", "found"])?;
    let mut boot = estate.boot()?;
    boot.expect(Reached::System)?;
    estate.was_attested(&boot.marker()?)?;
    story.proves("restored: it unlocks itself again");
    estate.keep_running(boot);
    Ok(())
}

/// Down for the whole boot: the prompt appears within the deadline. Up 15 s late: unlocked without a prompt.
pub fn down(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Verifier, "is down for the whole boot");
    let mut boot = estate.boot_without_verifier()?;
    boot.wait_console(&[UNLOCK_STARTS], BOOT)?;
    let started = Instant::now();
    boot.expect(Reached::Prompt)?;
    let waited = started.elapsed();
    ensure!(waited < DEADLINE, "the prompt came after {} s", waited.as_secs());
    boot.pull_plug();
    story.proves(format!("no verifier: the ordinary prompt after {} s", waited.as_secs()));

    estate.verifier.start()?;
    story.does(Verifier, format!("is down again, and comes up {} s after the agent started", LATE.as_secs()));
    let mut boot = estate.boot_without_verifier()?;
    boot.wait_console(&[UNLOCK_STARTS], BOOT)?;
    // The scenario is about time that passes.
    std::thread::sleep(LATE);
    estate.verifier.start()?;
    boot.expect(Reached::System)?;
    estate.was_attested(&boot.marker()?)?;
    story.does(Machine, "tried again until someone answered");
    story.proves("a late verifier is found within the deadline: no prompt");
    estate.keep_running(boot);
    Ok(())
}

/// The token names another CA: whoever answers at that address does not get to see an attestation.
pub fn wrong_ca(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { rig, story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "writes another CA into the tokens on the disks");
    estate.off()?;
    let other = rig.place("other-verifier");
    let other = verifier::Verifier::init(&rig.paths.programs, &other)?;
    let ca = String::from_utf8_lossy(&other.ca()?).into_owned();
    let kept = estate.machine.keep_disk()?;
    // The token of one volume is enough to find the verifier.
    let data = estate.machine.spare().to_owned();
    let (number, token) = header::token(&data)?;
    let result = (|| {
        for file in [None, Some(&data)] {
            let change = |file: &std::path::Path| {
                let (number, mut token) = header::token(file)?;
                token["ca"] = ca.as_str().into();
                header::set_token(file, number, &token)
            };
            file.map_or_else(|| estate.change_header(change), |file| change(file))?;
        }
        let mut boot = estate.boot()?;
        boot.expect(Reached::Prompt)?;
        let recorded = estate.recorded()?;
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
    estate.machine.put_disk_back(&kept)?;
    header::set_token(&data, number, &token)?;
    result
}
