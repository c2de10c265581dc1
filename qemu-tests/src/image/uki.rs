//! The unified kernel image: the distribution's EFI stub of systemd with kernel, initramfs and command line as sections, put together as
//! dracut and ukify do. Cheap, so a scenario that changes one of them makes its own.

use super::cache::cached;
use super::packages::Kernel;
use crate::error::{Context, Result};
use crate::paths::{Key, Paths};
use crate::process::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it, or takes it from the cache.
///
/// # Errors
/// If objcopy fails or an input can't be read.
pub fn build(paths: &Paths, stub: &Path, kernel: &Kernel, initrd: &Path, cmdline: &str) -> Result<PathBuf> {
    let initrd_name = initrd.to_string_lossy();
    let key = Key::new("uki 3").text(&stub.to_string_lossy()).text(&initrd_name);
    let key = key.text(&kernel.image.to_string_lossy()).text(cmdline);
    cached(paths.cache.join(format!("uki-{}.efi", key.hex())), |partial| {
        let folder = partial.with_extension("sections");
        fs::create_dir_all(&folder).context("can't make a folder in the cache")?;
        let result = assemble(stub, &sections(kernel, initrd, cmdline, &folder)?, partial);
        super::cache::remove(&folder)?;
        result
    })
}

fn sections(
    kernel: &Kernel,
    initrd: &Path,
    cmdline: &str,
    folder: &Path,
) -> Result<[(&'static str, PathBuf); 4]> {
    let write = |name: &str, content: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, content).context(format_args!("can't write {}", path.display()))?;
        Ok(path)
    };
    Ok([
        (".osrel", write("osrel", "ID=halfkey-test\nNAME=\"Halfkey test\"\n")?),
        (".cmdline", write("cmdline", &format!("{cmdline}\0"))?),
        (".linux", kernel.image.clone()),
        (".initrd", initrd.to_path_buf()),
    ])
}

fn assemble(stub: &Path, sections: &[(&str, PathBuf)], out: &Path) -> Result<()> {
    let mut command = Command::new("objcopy");
    let mut address = end_of_sections(stub)?;
    for (name, file) in sections {
        let size = fs::metadata(file).context(format_args!("can't read {}", file.display()))?.len();
        command.arg("--add-section").arg(format!("{name}={}", file.display()));
        command.arg("--change-section-vma").arg(format!("{name}={address:#x}"));
        address = (address + size).next_multiple_of(0x1_0000);
    }
    run(command.arg(stub).arg(out))?;
    Ok(())
}

/// The first free address behind the stub's own sections.
fn end_of_sections(stub: &Path) -> Result<u64> {
    let text = run(Command::new("objdump").args(["-h", "-w"]).arg(stub))?;
    let mut end = 0;
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() > 4 && fields[0].parse::<u32>().is_ok() {
            let hex = |text: &str| u64::from_str_radix(text, 16);
            if let (Ok(size), Ok(address)) = (hex(fields[2]), hex(fields[3])) {
                end = (address + size).max(end);
            }
        }
    }
    (end > 0)
        .then(|| end.next_multiple_of(0x1_0000))
        .context(format_args!("{} has no sections", stub.display()))
}
