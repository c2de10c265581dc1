//! The command line: what was asked for, as a type.
//!
//! | module | what |
//! | --- | --- |
//! | [`defs`] | the definition: commands, options, exit codes and the words about them |
//! | [`parse`](mod@parse) | a command line against it |
//! | [`help`] | the help |
//! | [`man`] | the man page |
//! | [`completions`] | what shells complete |
//!
//! Man page and completions are files of the package (`agent/share`), which tests write and compare: the program that every
//! initramfs carries has no code for them.

pub mod completions;
pub mod defs;
pub mod help;
pub mod man;
pub mod parse;

pub use parse::parse;

use crate::boot::unlock;
use crate::enroll;
use crate::propose;
use crate::tpm::Location;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the process is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Print this and succeed.
    Print(String),
    /// Bind this machine and its volumes.
    Enroll(Box<enroll::Options>),
    /// What the initramfs runs.
    Unlock {
        /// Volumes, deadline, and whether it is a dry run.
        options: unlock::Options,
        /// Whether to report as JSON on standard output.
        json: bool,
    },
    /// Open devices for the one that unlocks.
    Look,
    /// Close the fence.
    Fence {
        /// Device or simulator of the TPM.
        tpm: Location,
        /// A passphrase is about to be asked for this mapping.
        passphrase: Option<String>,
        /// Become what the file of this unit starts afterwards.
        shell: Option<String>,
        /// Become this program afterwards.
        exec: Vec<OsString>,
    },
    /// Check the mounted root.
    Gate {
        /// Device or simulator of the TPM.
        tpm: Location,
        /// Become this program if the root passes.
        exec: Vec<OsString>,
    },
    /// Look at what is mounted of the root so far.
    FirstLook {
        /// Device or simulator of the TPM.
        tpm: Location,
    },
    /// Show what there is.
    Status {
        /// Device or simulator of the TPM.
        tpm: Location,
        /// Devices to show; empty: all enrolled volumes that are found.
        devices: Vec<PathBuf>,
        /// Whether to print it as JSON.
        json: bool,
    },
    /// Look into an initramfs.
    Image {
        /// The image.
        file: PathBuf,
        /// Whether to print what is missing as JSON.
        json: bool,
    },
    /// Whether the agent could be removed from this machine.
    Removable {
        /// Devices to look at; empty: all enrolled volumes that are found.
        devices: Vec<PathBuf>,
    },
    /// Tell the verifier what will be booted next.
    Propose {
        /// What is booted next, and how long to try.
        options: Box<propose::Options>,
        /// Whether to print proposal and answer as JSON.
        json: bool,
        /// A machine that is not enrolled is nothing to speak of.
        quiet: bool,
    },
    /// Undo an enrollment.
    Unbind {
        /// LUKS2 devices, at least one.
        devices: Vec<PathBuf>,
        /// A file with a passphrase that opens them; else one is asked for.
        key_file: Option<PathBuf>,
    },
}

const VERSION: &str = concat!("halfkey-agent ", env!("CARGO_PKG_VERSION"), "\n");

#[cfg(test)]
mod tests {
    use super::parse::permitted;
    use super::*;
    use crate::error::Result;
    use crate::propose::What;
    use crate::propose::find::Source;
    use std::time::Duration;

    fn parsed(line: &str) -> Result<Command> {
        parse(line.split_whitespace().map(OsString::from), None)
    }

    #[test]
    fn the_initramfs_takes_no_simulator() {
        for (text, there) in [
            ("/dev/tpmrm0", true),
            ("/dev/tpm1", true),
            ("/run/fake", false),
            ("swtpm:127.0.0.1:2321", false),
            ("swtpm:unix:/run/fake", false),
        ] {
            let location: Location = text.parse().unwrap();
            assert!(permitted(location.clone(), false).is_ok(), "{text}");
            assert_eq!(permitted(location, true).is_ok(), there, "{text}");
        }
    }

    #[test]
    fn commands_as_the_module_calls_them() {
        assert!(matches!(
            parsed("unlock --dry-run --json --device /dev/vda2"),
            Ok(Command::Unlock { json: true, .. })
        ));
        assert!(matches!(parsed("fence --passphrase root"), Ok(Command::Fence { passphrase: Some(_), .. })));
        assert!(matches!(
            parsed("fence --shell emergency.service"),
            Ok(Command::Fence { passphrase: None, shell: Some(_), .. })
        ));
        // A unit without an instance has an empty word there.
        let parsed = |line: &str| parse(line.split(' ').map(OsString::from), None);
        for line in ["before initrd-parse-etc ", "before initrd-parse-etc"] {
            assert!(matches!(parsed(line), Ok(Command::FirstLook { .. })), "{line}");
        }
        for (line, mapping) in [
            ("before systemd-cryptsetup luks-0b5f", "luks-0b5f"),
            ("before systemd-cryptsetup a/b", "a/b"),
            ("before systemd-cryptsetup ", ""),
            ("before systemd-cryptsetup", ""),
            // As the drop-in says it: a name that begins with a dash is a name.
            ("before -- systemd-cryptsetup luks-0b5f", "luks-0b5f"),
            ("before -- systemd-cryptsetup -hx", "-hx"),
            ("before -- systemd-cryptsetup -h", "-h"),
            ("before -- systemd-cryptsetup --help", "--help"),
            ("before -- systemd-cryptsetup --tpm=x", "--tpm=x"),
            ("before -- systemd-cryptsetup --", "--"),
        ] {
            let Ok(Command::Fence { passphrase, shell: None, exec, .. }) = parsed(line) else {
                panic!("{line}")
            };
            assert_eq!((passphrase.as_deref(), exec.len()), (Some(mapping), 0), "{line}");
        }
        for line in ["before", "before a b c"] {
            assert!(parsed(line).is_err(), "{line}");
        }
        for line in [
            "fence-exec systemctl --no-block switch-root /sysroot",
            "fence --exec systemctl --no-block switch-root /sysroot",
        ] {
            let Ok(Command::Fence { exec, .. }) = parsed(line) else { panic!("{line}") };
            assert_eq!(exec, ["systemctl", "--no-block", "switch-root", "/sysroot"]);
        }
        assert!(matches!(
            parsed("--tpm swtpm:127.0.0.1:2321 gate"),
            Ok(Command::Gate { tpm: Location::Tcp(_), .. })
        ));
        assert!(matches!(parsed("gate --look"), Ok(Command::FirstLook { .. })));
    }

    #[test]
    fn a_proposal_is_about_one_boot() {
        let of = |line: &str| match parsed(line) {
            Ok(Command::Propose { options, quiet, .. }) => Ok((options.what, options.timeout, quiet)),
            Err(error) => Err(error.message),
            Ok(other) => panic!("{other:?}"),
        };
        let half_a_minute = Duration::from_secs(30);
        assert_eq!(of("propose"), Ok((What::Version(None), half_a_minute, false)));
        assert_eq!(
            of("propose --quiet-if-not-enrolled --kernel-version 6.1.0-56"),
            Ok((What::Version(Some("6.1.0-56".into())), half_a_minute, true))
        );
        let named = |path| PathBuf::from(path).into();
        let uki = What::Files(Source::Uki(named("/efi/a.efi")));
        assert_eq!(of("propose --uki /efi/a.efi --timeout 5"), Ok((uki, Duration::from_secs(5), false)));
        let entry = What::Entry("/efi/loader/entries/a.conf".into());
        assert_eq!(of("propose --entry /efi/loader/entries/a.conf"), Ok((entry, half_a_minute, false)));
        let kernel = What::Files(Source::Kernel {
            kernel: named("k"),
            initrds: vec![named("a"), named("b")],
            command_line: Some("quiet".into()),
        });
        let line = "propose --kernel k --initrd a --initrd b --cmdline quiet";
        assert_eq!(of(line), Ok((kernel, half_a_minute, false)));
        for line in [
            "propose --uki a --kernel b",
            "propose --uki a --initrd b",
            "propose --initrd b",
            "propose --kernel-version 6 --cmdline quiet",
            "propose --uki a --kernel-version 6",
            "propose --uki a --entry b",
            "propose --entry a --cmdline quiet",
        ] {
            assert!(of(line).unwrap_err().contains("expected one of"), "{line}");
        }
    }
}
