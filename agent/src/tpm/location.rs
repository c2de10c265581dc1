//! Where the TPM is.

use super::machine;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How the TPM is reached: a device of the kernel, or a simulator's socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Location {
    /// Whatever TPMs this machine has: see [`Location::each`].
    #[default]
    Machine,
    /// A character device: /dev/tpmrm0 (with the kernel's resource manager) or /dev/tpm0.
    Device(PathBuf),
    /// The server socket of `swtpm socket --server type=tcp`, for tests.
    Tcp(SocketAddr),
    /// The server socket of `swtpm socket --server type=unixio`, for tests.
    Unix(PathBuf),
}

impl Location {
    /// Where each TPM is: as it was named, else all that the kernel knows, in the order of their numbers, which another boot can give
    /// otherwise. Never empty.
    pub fn each(&self) -> Vec<Self> {
        match self {
            Self::Machine => machine::devices(Path::new("/sys"), Path::new("/dev")),
            named => vec![named.clone()],
        }
    }

    /// Several, for people.
    pub fn list(several: &[Self]) -> String {
        several.iter().map(Self::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether it is a device that is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Device(path) if !path.exists())
    }

    /// Whether a program of this machine stands behind the kernel's device, as systemd 261 and later can start one that keeps its keys on
    /// the ESP.
    pub fn is_software(&self) -> bool {
        self.is_software_by(Path::new("/sys"))
    }

    fn is_software_by(&self, sys: &Path) -> bool {
        let Self::Device(path) = self else { return false };
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
        // Both devices of a chip have its number.
        machine::is_program(&sys.join("class/tpm").join(name.replace("tpmrm", "tpm")))
    }
}

impl FromStr for Location {
    type Err = String;

    /// `PATH`, `swtpm:HOST:PORT` (a numeric address, or `localhost`) or `swtpm:unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("swtpm:") else {
            if text.is_empty() {
                return Err("expected a path or swtpm:HOST:PORT as TPM, found nothing".into());
            }
            return Ok(Self::Device(PathBuf::from(text)));
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let rest = rest.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = rest.as_deref().unwrap_or(&text["swtpm:".len()..]);
        address
            .parse()
            .map(Self::Tcp)
            .map_err(|_| format!("expected swtpm:ADDRESS:PORT or swtpm:unix:PATH, found '{text}'"))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the TPM of this machine"),
            Self::Device(path) => f.write_str(&path.to_string_lossy()),
            Self::Tcp(address) => write!(f, "swtpm:{address}"),
            Self::Unix(path) => write!(f, "swtpm:unix:{}", path.to_string_lossy()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_chip_without_a_parent_is_a_program() {
        let sys = tempfile::tempdir().unwrap();
        let devices = ["/dev/tpmrm0", "/dev/tpm0"].map(|path| Location::Device(path.into()));
        let are_software = || devices.each_ref().map(|device| device.is_software_by(sys.path()));
        assert_eq!(are_software(), [false; 2], "not known");
        let chip = sys.path().join("class/tpm/tpm0");
        fs::create_dir_all(&chip).unwrap();
        assert_eq!(are_software(), [true; 2]);
        fs::create_dir(chip.join("device")).unwrap();
        assert_eq!(are_software(), [false; 2]);
        assert!(!"swtpm:127.0.0.1:2321".parse::<Location>().unwrap().is_software_by(sys.path()));
    }

    #[test]
    fn what_is_named_is_all() {
        for text in ["/dev/tpmrm1", "swtpm:unix:/run/tpm"] {
            let named: Location = text.parse().unwrap();
            assert_eq!(named.each(), [named]);
        }
        let each = Location::Machine.each();
        assert!(each.iter().all(|one| matches!(one, Location::Device(_))) && !each.is_empty());
    }

    #[test]
    fn locations_survive_their_text_form() {
        for text in ["/dev/tpmrm0", "swtpm:127.0.0.1:2321", "swtpm:[::1]:2321", "swtpm:unix:/run/tpm"] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!("swtpm:localhost:1".parse(), "swtpm:127.0.0.1:1".parse::<Location>());
        assert!("swtpm:example.org:1".parse::<Location>().is_err());
        assert!("".parse::<Location>().is_err());
    }
}
