//! The disk: GPT, an EFI system partition with the UKI, and the LUKS2 root.

use crate::error::{Context, Result};
use crate::process::{run, run_with_input};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
const ESP_START: u64 = MIB;
const ESP_SIZE: u64 = 96 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;

/// Writes a fresh disk: `root` is a LUKS2 volume in a file.
///
/// # Errors
/// If a tool fails or the host's disk is full.
pub fn create(root: &Path, uki: &Path, to: &Path) -> Result<()> {
    let size = fs::metadata(root).context(format_args!("can't read {}", root.display()))?.len();
    let mut disk = File::create(to).context(format_args!("can't make {}", to.display()))?;
    // One MiB for the second copy of the partition table.
    disk.set_len(ROOT_START + size + MIB).context(format_args!("can't make {}", to.display()))?;
    let table = format!(
        "label: gpt\nlabel-id: 5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A50\n\
         start={}, size={}, type=U, uuid=5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A51, name=esp\n\
         start={}, size={}, type=L, uuid=5A1F0E7C-33A4-4E5B-9B6E-0C1D2E3F4A52, name=root\n",
        ESP_START / 512,
        ESP_SIZE / 512,
        ROOT_START / 512,
        size / 512
    );
    run_with_input(Command::new("/sbin/sfdisk").arg("--quiet").arg(to), table.as_bytes())?;

    let esp = to.with_extension("esp");
    let file = File::create(&esp).context(format_args!("can't make {}", esp.display()))?;
    file.set_len(ESP_SIZE).context(format_args!("can't make {}", esp.display()))?;
    run(Command::new("/sbin/mkfs.vfat").args(["-F", "32", "-i", "48414c46", "-n", "ESP"]).arg(&esp))?;
    copy_at(&esp, &mut disk, ESP_START)?;
    fs::remove_file(&esp).context("can't remove a temporary file")?;
    copy_at(root, &mut disk, ROOT_START)?;
    drop(disk);
    for folder in ["::/EFI", "::/EFI/BOOT"] {
        run(Command::new("mmd").arg("-i").arg(esp_of(to)).arg(folder))?;
    }
    set_uki(to, uki)
}

/// Replaces the UKI on a disk that no machine runs from.
///
/// # Errors
/// If mtools fails.
pub fn set_uki(disk: &Path, uki: &Path) -> Result<()> {
    run(Command::new("mcopy").args(["-o", "-i"]).arg(esp_of(disk)).arg(uki).arg("::/EFI/BOOT/BOOTX64.EFI"))?;
    Ok(())
}

/// The LUKS2 header of the root volume.
///
/// # Errors
/// If the disk can't be read or written.
pub fn header(disk: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(disk).context(format_args!("can't open {}", disk.display()))?;
    let mut bytes = vec![0; usize::try_from(super::luks::HEADER).expect("a header is small")];
    file.seek(SeekFrom::Start(ROOT_START)).context("can't seek")?;
    file.read_exact(&mut bytes).context(format_args!("can't read {}", disk.display()))?;
    Ok(bytes)
}

/// Puts a volume in the place of the root volume.
///
/// # Errors
/// If the disk can't be written.
pub fn set_root(disk: &Path, root: &Path) -> Result<()> {
    let mut file =
        File::options().write(true).open(disk).context(format_args!("can't open {}", disk.display()))?;
    copy_at(root, &mut file, ROOT_START)
}

fn esp_of(disk: &Path) -> String {
    format!("{}@@{ESP_START}", disk.display())
}

fn copy_at(from: &Path, to: &mut File, offset: u64) -> Result<()> {
    let mut file = File::open(from).context(format_args!("can't open {}", from.display()))?;
    to.seek(SeekFrom::Start(offset)).context("can't seek")?;
    let mut buffer = vec![0; 4 << 20];
    loop {
        let read = file.read(&mut buffer).context(format_args!("can't read {}", from.display()))?;
        if read == 0 {
            return to.flush().context("can't write the disk");
        }
        to.write_all(&buffer[..read]).context("can't write the disk")?;
    }
}
