//! Unified kernel images: systemd's stub with sections.

use crate::process::run;
use std::path::Path;
use std::process::Command;

/// The stub; a PE image that starts, so that it is a kernel, too, as far as tests go.
pub const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Makes one with this command line and initrd, around the image at [`STUB`] for a kernel.
///
/// # Panics
/// If it can't be made.
pub fn make(path: &Path, command_line: &str, initrd: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("objcopy");
    for (i, (name, content)) in [
        (".osrel", b"ID=halfkey-test\n".to_vec()),
        (".cmdline", command_line.as_bytes().to_vec()),
        (".initrd", initrd.to_vec()),
        (".linux", std::fs::read(STUB).unwrap()),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(&name[1..]);
        std::fs::write(&file, content).unwrap();
        command.arg("--add-section").arg(format!("{name}={}", file.display()));
        command.arg("--change-section-vma").arg(format!("{name}={:#x}", (i + 1) * 0x10_0000));
    }
    run(command.arg(STUB).arg(path)).unwrap();
}
