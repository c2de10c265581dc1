//! LUKS2 headers in files, as someone with access to the disk reads and changes them.

use crate::error::{Context, Result};
use crate::process::{run, run_with_input};
use serde_json::Value;
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
    super::remove(&new)?;
    result.map(drop)
}
