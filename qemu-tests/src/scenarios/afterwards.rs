//! 3: whoever breaks into the running system comes too late.

use super::World;
use crate::ensure;
use crate::error::{Context, Result};
use crate::story::Who::Attacker;
use halfkey_protocol::Reason;

/// As root in the guest: U can't be unsealed, V isn't released, and `status` says so.
pub fn run(world: &mut World) -> Result<()> {
    world.estate()?;
    let World { story, estate, .. } = world;
    let estate = estate.as_mut().context("there is an enrolled machine")?;
    story.does(Attacker, "is root in the running system");
    let boot = estate.running()?;
    let status: serde_json::Value =
        serde_json::from_str(&boot.run("halfkey-agent status --json")?).context("status --json")?;
    ensure!(status["tpm"]["fence"] == "opened", "status says that the fence is {}", status["tpm"]["fence"]);
    ensure!(status["tpm"]["can_unseal"] == false, "status says that the half could be unsealed");
    let (code, said) = boot.script("halfkey-agent unlock --dry-run")?;
    ensure!(code != 0, "a second unlock succeeded: {said}");
    ensure!(
        estate.last_record()?.summary.code.as_deref() == Some(Reason::FenceExtended.code()),
        "not refused: {said}"
    );
    story.proves("V is not released: fence_extended");
    Ok(())
}
