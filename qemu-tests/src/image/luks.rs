//! A LUKS2 volume in a file: header and keyslot by cryptsetup, the payload encrypted here.

use super::xts;
use crate::error::{Context, Result};
use crate::process::{run, run_with_input};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

/// Bytes before the payload: two header copies and the keyslots area.
pub const HEADER: u64 = 16 << 20;
const SECTOR: usize = 4096;
const CHUNK: usize = 4 << 20;

/// Makes a LUKS2 volume at `to` that holds the file system image `payload`, with one passphrase in keyslot 0.
///
/// # Errors
/// If cryptsetup fails or a file can't be read or written.
pub fn create(payload: &Path, uuid: &str, passphrase: &str, to: &Path) -> Result<()> {
    let mut key = [0; xts::KEY_LEN];
    let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
    random.context("no random bytes")?;
    let size = fs::metadata(payload).context(format_args!("can't read {}", payload.display()))?.len();
    let mut out = File::create(to).context(format_args!("can't make {}", to.display()))?;
    out.set_len(HEADER + size).context(format_args!("can't make {}", to.display()))?;

    let key_file = to.with_extension("key");
    fs::write(&key_file, key).context("can't write the volume key")?;
    let result = format(to, uuid, passphrase, &key_file);
    super::cache::remove(&key_file)?;
    result?;

    let mut input = File::open(payload).context(format_args!("can't read {}", payload.display()))?;
    out.seek(SeekFrom::Start(HEADER)).context("can't seek")?;
    let mut chunk = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let take = CHUNK.min(usize::try_from(size - done).unwrap_or(CHUNK));
        input.read_exact(&mut chunk[..take]).context("the file system image ended early")?;
        xts::encrypt(&key, done / 512, SECTOR, &mut chunk[..take]);
        out.write_all(&chunk[..take]).context(format_args!("can't write {}", to.display()))?;
        done += take as u64;
    }
    Ok(())
}

fn format(volume: &Path, uuid: &str, passphrase: &str, key_file: &Path) -> Result<()> {
    let offset = (HEADER / 512).to_string();
    let sector = SECTOR.to_string();
    run_with_input(
        Command::new("cryptsetup")
            .args(["luksFormat", "--batch-mode", "--type", "luks2", "--cipher", "aes-xts-plain64"])
            .args(["--key-size", "512", "--sector-size", &sector, "--offset", &offset, "--uuid", uuid])
            // The passphrase is not what is tested, and Argon2 takes seconds under emulation.
            .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"])
            .arg("--volume-key-file")
            .arg(key_file)
            .arg(volume),
        passphrase.as_bytes(),
    )?;
    Ok(())
}

/// An ext4 file system of `size` bytes with this UUID and the content of `folder`. `command` is mkfs.ext4, as whom it
/// may be.
///
/// # Errors
/// If mkfs fails, for instance because the content does not fit.
pub fn ext4(mut command: Command, folder: Option<&Path>, uuid: &str, size: u64, to: &Path) -> Result<()> {
    let file = File::create(to).context(format_args!("can't make {}", to.display()))?;
    file.set_len(size).context(format_args!("can't make {}", to.display()))?;
    // The block size must not be smaller than LUKS2's sectors, and mkfs picks 1 KiB on small images.
    command.args(["-q", "-F", "-b", "4096", "-m", "0", "-U", uuid, "-E", "lazy_itable_init=0"]);
    if let Some(folder) = folder {
        command.arg("-d").arg(folder);
    }
    run(command.arg(to))?;
    Ok(())
}
