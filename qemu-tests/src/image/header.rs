//! LUKS2 headers in files, as someone with access to the disk reads and changes them.

use crate::error::{Context, Result};
use crate::process::{run, run_with_input};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;

/// The token of type `halfkey` in a volume or header file: its number and its JSON.
///
/// # Errors
/// If there is none, or cryptsetup can't read the header.
pub fn token(volume: &Path) -> Result<(u32, Value)> {
    let text = run(Command::new("cryptsetup").args(["luksDump", "--dump-json-metadata"]).arg(volume))?;
    let metadata: Value =
        serde_json::from_str(&text).context("cryptsetup printed something else than JSON")?;
    let tokens = metadata["tokens"].as_object().context("the header has no tokens")?;
    let found = tokens.iter().find(|(_, token)| token["type"] == "halfkey");
    let (number, token) = found.context(format_args!("{} has no halfkey token", volume.display()))?;
    Ok((number.parse().context("a token has a number")?, token.clone()))
}

/// The keyslot of a token.
///
/// # Errors
/// If it names none.
pub fn keyslot(token: &Value) -> Result<u32> {
    let slot = token["keyslots"][0].as_str().and_then(|slot| slot.parse().ok());
    slot.context(format_args!("the token names no keyslot: {}", token["keyslots"]))
}

/// Puts a token in the place of another.
///
/// # Errors
/// If cryptsetup refuses it.
pub fn set_token(volume: &Path, number: u32, token: &Value) -> Result<()> {
    let number = number.to_string();
    // `--token-replace` came with 2.6; removing first serves all. There may be none.
    let _ = run(Command::new("cryptsetup").args(["token", "remove", "--token-id", &number]).arg(volume));
    let mut import = Command::new("cryptsetup");
    import.args(["token", "import", "--json-file", "-", "--token-id", &number]).arg(volume);
    run_with_input(&mut import, token.to_string().as_bytes())?;
    Ok(())
}

/// Adds a keyslot with this number and a passphrase that nobody keeps.
///
/// # Errors
/// If cryptsetup refuses.
pub fn add_keyslot(volume: &Path, passphrase: &str, slot: u32) -> Result<()> {
    let new = volume.with_extension("newkey");
    std::fs::write(&new, "a passphrase that nobody keeps").context("can't write a key file")?;
    let mut add = Command::new("cryptsetup");
    add.args(["luksAddKey", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
    add.args(["--key-file", "-", "--new-key-slot", &slot.to_string()]).arg(volume).arg(&new);
    let result = run_with_input(&mut add, passphrase.as_bytes());
    super::cache::remove(&new)?;
    result.map(drop)
}

/// Replaces a text by another of the same length in both copies of the header, and corrects their checksums: whoever has
/// the disk can.
///
/// # Errors
/// If a copy does not hold it, or the file can't be written.
pub fn replace(volume: &Path, from: &str, to: &str) -> Result<()> {
    // Of the binary header (LUKS2 On-Disk Format Specification, 2.1): where its size and its checksum are.
    const SIZE: std::ops::Range<usize> = 8..16;
    const CHECKSUM: std::ops::Range<usize> = 448..512;
    crate::ensure!(from.len() == to.len(), "{from:?} and {to:?} differ in length");
    let mut bytes = std::fs::read(volume).context("can't read a header")?;
    let size = bytes[SIZE].try_into().map(u64::from_be_bytes).context("eight bytes")?;
    let size = usize::try_from(size).context("a header is small")?;
    for copy in bytes.chunks_mut(size).take(2) {
        let at = copy.windows(from.len()).position(|window| window == from.as_bytes());
        let at = at.context(format_args!("the header does not hold {from:?}"))?;
        copy[at..at + from.len()].copy_from_slice(to.as_bytes());
        copy[CHECKSUM].fill(0);
        let checksum = Sha256::digest(&*copy);
        copy[CHECKSUM][..checksum.len()].copy_from_slice(&checksum);
    }
    std::fs::write(volume, bytes).context("can't write a header")
}
