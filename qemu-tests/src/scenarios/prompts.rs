//! A prompt for a passphrase that comes after an opening finds everything closed.

use super::Context;
use super::notes::{OTHER_VOLUME_ASKS, TAKE_THE_NAME};
use crate::ensure;
use crate::error::{Context as _, Result};
use crate::image::guest::OTHER_LUKS;
use crate::lab::machine::{BOOT, Boot, MOMENT, Reached};
use crate::lab::{Lab, passphrase_fence};
use crate::story::Who::{Machine, Verifier};
use std::fs;

/// The first volume is opened, the second can't be: the first is closed again before its passphrase is asked for.
pub fn take_back(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    story.does(Machine, "has another mapping with the name that its second volume is to get");
    let mut boot = lab.boot_noting(TAKE_THE_NAME)?;
    asks_over_nothing(lab, &mut boot, "root")?;
    story.does(Verifier, "releases: what was booted is what was approved");
    story.does(Machine, "opened the root, not the other volume: closes the root again and asks");
    boot.expect(Reached::Prompt)?;
    boot.type_passphrase()?;
    boot.expect(Reached::System)?;
    let record = lab.last_record()?;
    let expected = record.expected_fence.context("the verifier expects no fence value for this boot")?;
    let marker = boot.marker()?;
    ensure!(marker.fence_was(&passphrase_fence(&expected))?, "PCR 15 is {} in the system", marker.fence);
    story.proves(
        "no prompt over an open volume, and the passphrase works; PCR 15 says that it opened this boot",
    );
    boot.power_off()
}

/// A volume that no enrollment knows is to be opened after the others.
pub fn other_volume(context: &mut Context) -> Result<()> {
    context.lab()?;
    let Context { env, story, lab, .. } = context;
    let lab = lab.as_mut().context("there is an enrolled machine")?;
    lab.off()?;
    let visitor = lab.machine.visitor().to_path_buf();
    let kept = visitor.with_extension("kept");
    fs::rename(&visitor, &kept).context("can't set a disk aside")?;
    env.images.volume(OTHER_LUKS, &visitor)?;
    story.does(Machine, "asks for the passphrase of a volume that is not enrolled, after the opening");
    let mut boot = lab.boot_noting(OTHER_VOLUME_ASKS)?;
    asks_over_nothing(lab, &mut boot, "other")?;
    boot.expect(Reached::Prompt)?;
    story.proves("what attestation opened is closed before that prompt");
    boot.pull_plug();
    fs::rename(&kept, &visitor).context("can't put a disk back")
}

/// The root was opened by attestation; when the passphrase for `mapping` is asked for, nothing is open, and PCR 15 tells.
fn asks_over_nothing(lab: &Lab, boot: &mut Boot, mapping: &str) -> Result<()> {
    boot.wait_console(&["opened /dev/vda2 as root"], BOOT)?;
    boot.wait_console(&[&format!("RIG: {mapping} asks over [")], MOMENT)?;
    let seen = boot.rest_of_line()?.to_lowercase();
    let record = lab.last_record()?;
    ensure!(record.summary.outcome == "released", "what booted is genuine: {:?}", record.summary);
    let expected = record.expected_fence.context("the verifier expects no fence value for this boot")?;
    let expected = format!("], pcr 15 = {}", passphrase_fence(&expected));
    ensure!(seen == expected, "at the prompt for {mapping}: expected `{expected}`, found `{seen}`");
    Ok(())
}
