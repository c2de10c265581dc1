//! Several volumes.

use super::Context;
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::guest::{DATA_LUKS, ROOT_LUKS};
use crate::story::Who::Machine;

/// Root and data are opened with one attestation.
pub fn run(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "has two enrolled volumes: the root, and data on another disk");
    let marker = lab.running()?.marker()?;
    lab.was_attested(&marker)?;
    let agent = marker.agent.as_ref().context("the agent opened nothing")?;
    for uuid in [ROOT_LUKS, DATA_LUKS] {
        let opened = agent.volumes.iter().find(|volume| volume.uuid == uuid);
        let opened = opened.context(format_args!("the agent did not open volume {uuid}"))?;
        ensure!(opened.keyslot != 0, "volume {uuid} was opened with the passphrase's keyslot");
        let mapped =
            marker.mappings.get(&opened.name).context(format_args!("there is no mapping {}", opened.name))?;
        ensure!(mapped.contains(&uuid.replace('-', "")), "mapping {} is {mapped}", opened.name);
    }
    let released: Vec<_> =
        lab.recorded()?.into_iter().filter(|summary| summary.outcome == "released").collect();
    ensure!(released.len() == 1, "one release was expected, the verifier recorded {}", released.len());
    story.proves("both volumes are open, and the verifier was asked once");
    Ok(())
}
