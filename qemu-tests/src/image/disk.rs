//! The disk: GPT, an EFI system partition with what boots, and the LUKS2 root.

use crate::error::{Context, Result};
use crate::process::{run, run_with_input};
use crate::variables::{Partition, guid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;
const ESP_START: u64 = MIB;
const ESP_SIZE: u64 = 96 * MIB;
const ROOT_START: u64 = ESP_START + ESP_SIZE;

/// The EFI system partition, as the firmware finds it.
pub const ESP: Partition = Partition {
    start: ESP_START / 512,
    size: ESP_SIZE / 512,
    guid: guid(0x5a1f_0e7c, 0x33a4, 0x4e5b, *b"\x9b\x6e\x0c\x1d\x2e\x3f\x4a\x51"),
};

/// A file for the EFI system partition.
pub struct EspFile {
    /// Its path, with slashes, none in front.
    pub path: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
pub enum Content {
    /// The same as in this one.
    File(PathBuf),
    /// This.
    Text(String),
}

/// Writes a fresh disk: `root` is a LUKS2 volume in a file. Nothing boots from it yet.
///
/// # Errors
/// If a tool fails or the host's disk is full.
pub fn create(root: &Path, to: &Path) -> Result<()> {
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
    copy_at(root, &mut disk, ROOT_START)
}

/// Writes a disk with one partition, which holds the file system `from`. Returns the partition's UUID.
///
/// # Errors
/// If a tool fails or the host's disk is full.
pub fn single(from: &Path, to: &Path) -> Result<&'static str> {
    const UUID: &str = "5a1f0e7c-33a4-4e5b-9b6e-0c1d2e3f4a60";
    let size = fs::metadata(from).context(format_args!("can't read {}", from.display()))?.len();
    let mut disk = File::create(to).context(format_args!("can't make {}", to.display()))?;
    disk.set_len(size + 2 * MIB).context(format_args!("can't make {}", to.display()))?;
    let table = format!("label: gpt\nstart={}, size={}, type=L, uuid={UUID}\n", MIB / 512, size / 512);
    run_with_input(Command::new("/sbin/sfdisk").arg("--quiet").arg(to), table.as_bytes())?;
    copy_at(from, &mut disk, MIB)?;
    Ok(UUID)
}

/// What systemd's stub (261 and later) keeps on the ESP from one boot to the next: with a variable of the firmware it makes the secret that
/// hangs behind the initrd. An update of a real machine leaves it alone.
const MIXIN: (&str, &str) = ("loader", "boot-secret-mixin");

/// Makes these the only files on the EFI system partition of a disk that no machine runs from, with what a stub keeps there.
///
/// # Errors
/// If dosfstools or mtools fail.
pub fn install(disk: &Path, files: &[EspFile]) -> Result<()> {
    let esp = disk.with_extension("esp");
    let (folder, name) = MIXIN;
    let kept = disk.with_extension("mixin");
    let mixin = format!("::/{folder}/{name}");
    // Most have none; a disk that is new has no file system there.
    let old = format!("{}@@{ESP_START}", disk.display());
    let has_mixin = Command::new("mcopy")
        .args(["-n", "-i", &old, &mixin])
        .arg(&kept)
        .output()
        .is_ok_and(|ran| ran.status.success());
    let file = File::create(&esp).context(format_args!("can't make {}", esp.display()))?;
    file.set_len(ESP_SIZE).context(format_args!("can't make {}", esp.display()))?;
    run(Command::new("/sbin/mkfs.vfat").args(["-F", "32", "-i", "48414c46", "-n", "ESP"]).arg(&esp))?;
    let folders = files.iter().flat_map(|file| file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
    for folder in folders.chain(has_mixin.then_some(folder)).collect::<BTreeSet<_>>() {
        run(Command::new("mmd").arg("-i").arg(&esp).arg(format!("::/{folder}")))?;
    }
    for EspFile { path, content } in files {
        let to = format!("::/{path}");
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(&esp);
        match content {
            Content::File(from) => run(copy.arg(from).arg(to))?,
            Content::Text(text) => run_with_input(copy.args(["-", &to]), text.as_bytes())?,
        };
    }
    if has_mixin {
        run(Command::new("mcopy").arg("-i").arg(&esp).arg(&kept).arg(&mixin))?;
        fs::remove_file(&kept).context("can't remove a temporary file")?;
    }
    let mut file =
        File::options().write(true).open(disk).context(format_args!("can't open {}", disk.display()))?;
    copy_at(&esp, &mut file, ESP_START)?;
    fs::remove_file(&esp).context("can't remove a temporary file")
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

/// Overwrites what the root volume holds from `offset` on, without its key: what is read there is noise.
///
/// # Errors
/// If the disk can't be written.
pub fn damage_root(disk: &Path, offset: u64, size: usize) -> Result<()> {
    let mut file =
        File::options().write(true).open(disk).context(format_args!("can't open {}", disk.display()))?;
    file.seek(SeekFrom::Start(ROOT_START + super::luks::HEADER + offset)).context("can't seek")?;
    file.write_all(&vec![0xa5; size]).context("can't write the disk")
}

/// Adds a partition behind the others whose type says swap, with a swap area in it.
///
/// # Errors
/// If a tool fails or the disk can't be written.
pub fn add_swap(disk: &Path) -> Result<()> {
    const SIZE: u64 = 16 * MIB;
    let mut file =
        File::options().write(true).open(disk).context(format_args!("can't open {}", disk.display()))?;
    let end = file.metadata().context("can't read the disk's size")?.len();
    file.set_len(end + SIZE).context("can't enlarge the disk")?;
    // The last MiB was that of the second copy of the partition table, which moves.
    let start = end - MIB;
    let sfdisk = || Command::new("/sbin/sfdisk");
    run(sfdisk().args(["--quiet", "--relocate", "gpt-bak-std"]).arg(disk))?;
    let partition = format!("start={}, size={}, type=S, name=swap\n", start / 512, SIZE / 512);
    run_with_input(sfdisk().args(["--quiet", "--append"]).arg(disk), partition.as_bytes())?;
    let area = disk.with_extension("swap");
    let made = File::create(&area).and_then(|area| area.set_len(SIZE));
    made.context(format_args!("can't make {}", area.display()))?;
    run(Command::new("/sbin/mkswap").arg(&area))?;
    copy_at(&area, &mut file, start)?;
    fs::remove_file(&area).context("can't remove a temporary file")
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
