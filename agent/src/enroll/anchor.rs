//! The anchor of systemd's NvPCRs, which systemd 259 to 261 writes to the ESP as a credential: from the next boot on the stub of a unified
//! kernel image measures it into PCR 12. As no boot takes credentials (`systemd.import_credentials=no`), none finds the anchor of the one
//! before: each makes another, and what PCR 12 will be is not to be foretold.

use super::running::Warning;
use std::path::{Path, PathBuf};

/// Where systemd keeps it.
const KEPT: &str = "var/lib/systemd/nvpcr/nvpcr-anchor.cred";
/// Where the ESP, or the extended boot partition, may be mounted.
const BOOT: [&str; 3] = ["efi", "boot/efi", "boot"];

/// A warning, if systemd has written one.
pub fn warning() -> Option<Warning> {
    warning_below(Path::new("/"))
}

fn warning_below(root: &Path) -> Option<Warning> {
    let kept = Some(root.join(KEPT)).filter(|path| path.exists());
    let files: Vec<_> = BOOT.iter().flat_map(|boot| anchors(&root.join(boot))).chain(kept).collect();
    let first = files.first()?;
    let all = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
    Some(Warning {
        what: format!(
            "{} is another one after each boot, and the stub of a unified kernel image measures it into PCR 12: no policy can accept the next boot",
            first.display()
        ),
        hint: format!(
            "systemd 262 makes none; until then: for f in /usr/lib/nvpcr/*.nvpcr; do install -d /etc/nvpcr; ln -sf /dev/null /etc/nvpcr/${{f##*/}}; done; rm -f {all}; systemctl mask systemd-pcrproduct.service"
        ),
    })
}

/// Those in the folder of credentials of one partition.
fn anchors(boot: &Path) -> Vec<PathBuf> {
    let files = boot.join("loader/credentials").read_dir().into_iter().flatten().flatten();
    let mut files: Vec<_> = files
        .filter(|file| {
            let name = file.file_name().to_string_lossy().to_ascii_lowercase();
            name.starts_with("nvpcr-anchor.") && name.ends_with(".cred")
        })
        .map(|file| file.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_anchor_on_the_esp_is_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(warning_below(root), None);
        let esp = root.join("boot/efi/loader/credentials");
        fs::create_dir_all(&esp).unwrap();
        fs::write(esp.join("mine.cred"), "").unwrap();
        assert_eq!(warning_below(root), None, "what stays the same can be learned");
        for name in ["nvpcr-anchor.debian.cred", "NVPCR-ANCHOR.0B5F4C0E.CRED"] {
            fs::write(esp.join(name), "").unwrap();
        }
        let lines = warning_below(root).unwrap().lines();
        assert!(lines[0].contains("boot/efi/loader/credentials/NVPCR-ANCHOR.0B5F4C0E.CRED"), "{lines:?}");
        assert!(
            lines[1].contains("nvpcr-anchor.debian.cred") && lines[1].contains("/etc/nvpcr"),
            "{lines:?}"
        );
        fs::remove_dir_all(&esp).unwrap();
        // The ESP need not be mounted.
        fs::create_dir_all(root.join(KEPT).parent().unwrap()).unwrap();
        fs::write(root.join(KEPT), "").unwrap();
        assert!(warning_below(root).unwrap().what.contains(KEPT));
    }
}
