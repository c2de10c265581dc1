//! The command line: what was asked for, as a type, and the help that says how.

use crate::boot::cmdline::is_mapping_name;
use crate::boot::unlock;
use crate::console;
use crate::enroll;
use crate::error::{Error, Result};
use crate::net::Server;
use crate::tpm::{Hierarchy, Location};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What the process is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Print this and succeed.
    Print(&'static str),
    /// Bind this machine and its volumes.
    Enroll(Box<enroll::Options>),
    /// What the initramfs runs.
    Unlock {
        /// How.
        options: unlock::Options,
        /// Report as JSON.
        json: bool,
    },
    /// Close the fence.
    Fence {
        /// Where the TPM is.
        tpm: Location,
        /// A passphrase is about to be asked for this mapping.
        passphrase: Option<String>,
        /// Become this program afterwards.
        exec: Vec<OsString>,
    },
    /// Check the mounted root.
    Gate {
        /// Where the TPM is.
        tpm: Location,
        /// Become this program if the root passes.
        exec: Vec<OsString>,
    },
    /// Show what there is.
    Status {
        /// Where the TPM is.
        tpm: Location,
        /// Instead of all volumes.
        devices: Vec<PathBuf>,
        /// As JSON.
        json: bool,
    },
    /// Undo an enrollment.
    Unbind {
        /// The volumes.
        devices: Vec<PathBuf>,
        /// Opens them.
        key_file: Option<PathBuf>,
    },
}

const VERSION: &str = concat!("halfkey-agent ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
halfkey-agent: unlocks this machine's LUKS2 volumes once its TPM has proved what it booted

usage: halfkey-agent [--tpm TPM] COMMAND [OPTIONS]

  enroll      bind this machine and its volumes to a verifier
  unlock      attest and open the enrolled volumes (in the initramfs)
  status      show TPM, fence, volumes and servers
  unbind      remove keyslot and token from a volume
  fence       close the boot window (PCR 15)
  fence-exec  close the boot window, then become another program
  gate        check that the root is on a volume that was opened (before switch-root)

  --tpm TPM   device of the TPM [default: HALFKEY_TPM, else /dev/tpmrm0]; swtpm:HOST:PORT
              or swtpm:unix:PATH for a simulator. In the initramfs only a device, and
              HALFKEY_TPM counts for nothing
  --help, --version

exit codes: 0 done; 1 the system refused something; 2 command line; 3 not enrolled;
4 TPM; 5 no server answered in time; 6 refused by verifier or tenant's signature;
7 waits for an operator; 8 a volume is not as it must be; 9 fence
";

const ENROLL: &str = "\
usage: halfkey-agent enroll --server URL --ca FILE --tenant-key FINGERPRINT [OPTIONS] DEVICE...

Registers this TPM, waits until the tenant has enrolled the node, verifies the tenant's
signature, and adds a keyslot and a token to each LUKS2 volume. Can be run again.

  --server URL           the verifier: https://HOST:PORT
  --registrar URL        the registrar, if it is another host
  --ca FILE              CA of the servers (ca.pem of the verifier's state folder)
  --tenant-key FP        fingerprint that 'halfkey key' prints at the tenant's desk
  --key-file FILE        opens the volumes; else an existing passphrase is asked for
  --timeout SECONDS      how long to wait for the tenant [default: 3600]
  --rebuild-initramfs    run dracut (or update-initramfs) afterwards
  --root-elsewhere       the system that boots from these volumes is not the one that runs;
                         else the volumes of its / and /usr must be among them
  --owner-password-file FILE, --endorsement-password-file FILE
                         if these hierarchies of the TPM have a password
";

const UNLOCK: &str = "\
usage: halfkey-agent unlock [OPTIONS]

Finds the enrolled volumes, attests, tests their keys, extends the fence and opens them.
If anything fails the fence is closed, so that a passphrase may be asked for.

  --dry-run              all but fence and opening; prints the duration of each step
  --json                 report as JSON on standard output
  --timeout SECONDS      overall deadline [default: rd.halfkey.timeout=, else 60]
  --device PATH          this volume instead of all that are found; may be repeated

kernel command line: rd.halfkey=off (don't unlock; boots even if the fence can't be closed),
rd.halfkey=on (wait for an enrolled volume although nothing names it), rd.halfkey.timeout=S,
rd.luks.uuid=, rd.luks.name=, rd.luks.options= as for systemd-cryptsetup-generator(8)
";

const FENCE: &str = "\
usage: halfkey-agent fence [--passphrase MAPPING]
       halfkey-agent fence-exec COMMAND [ARGUMENT...]

Extends PCR 15 as closed unless it is extended already, and reads it back. Without a TPM there
is nothing to do. In the initramfs the machine is powered off if the firmware shows a TPM and
the fence can't be confirmed, unless rd.halfkey=off is on the kernel command line.

  --passphrase MAPPING   a passphrase is about to be asked for /dev/mapper/MAPPING: note that
                         on top of an opened fence; nothing if the mapping is open already
  --exec COMMAND...      the same as fence-exec
";

const GATE: &str = "\
usage: halfkey-agent gate [--exec COMMAND [ARGUMENT...]]

If volumes were opened by attestation in this boot, /sysroot (and /sysroot/usr) must be on
them; else closes them, extends the fence as rogue and powers off.

  --exec COMMAND...      close the boot window, check the root, then become that program
";

const STATUS: &str = "\
usage: halfkey-agent status [--json] [DEVICE...]

Shows TPM, EK certificate, fence, enrolled volumes, and whether their servers answer.
";

const UNBIND: &str = "\
usage: halfkey-agent unbind [--key-file FILE] DEVICE...

Removes halfkey's keyslot and token; refuses to remove the last way into a volume.

  --key-file FILE        opens the volume; else an existing passphrase is asked for
";

/// Reads a command line, without the program's name. `tpm` is what the environment says (HALFKEY_TPM).
/// In the initramfs that is not asked: firmware variables that nobody measures can set it (systemd.setenv).
///
/// # Errors
/// [`crate::error::Kind::Usage`]
pub fn parse(args: impl IntoIterator<Item = OsString>, tpm: Option<OsString>) -> Result<Command> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut tpm = match tpm.filter(|_| !console::in_initramfs()) {
        Some(text) => location(&text.to_string_lossy())?,
        None => Location::default(),
    };
    loop {
        return match parser.next()? {
            None | Some(Short('h') | Long("help")) => Ok(Command::Print(HELP)),
            Some(Short('V') | Long("version")) => Ok(Command::Print(VERSION)),
            Some(Long("tpm")) => {
                tpm = location(&parser.value()?.string()?)?;
                continue;
            }
            Some(Value(command)) => match command.to_string_lossy().as_ref() {
                "enroll" => enroll(&mut parser, tpm),
                "unlock" => unlock(&mut parser, tpm),
                "fence" => fence(&mut parser, tpm),
                "fence-exec" => fence_exec(&mut parser, tpm),
                "gate" => gate(&mut parser, tpm),
                "status" => status(&mut parser, tpm),
                "unbind" => unbind(&mut parser),
                "help" => Ok(Command::Print(HELP)),
                other => Err(Error::usage(format!("expected a command, found '{other}'"))),
            },
            Some(other) => Err(other.unexpected().into()),
        };
    }
}

fn location(text: &str) -> Result<Location> {
    permitted(text.parse().map_err(Error::usage)?, console::in_initramfs())
}

/// A simulator would let the fence of the TPM stay open.
fn permitted(location: Location, in_initramfs: bool) -> Result<Location> {
    match location {
        Location::Device(ref path) if path.starts_with("/dev") => Ok(location),
        _ if !in_initramfs => Ok(location),
        other => Err(Error::usage(format!("expected a device as TPM in the initramfs, found {other}"))),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let wrong = || Error::usage(format!("expected seconds from 1 to 604800, found '{text}'"));
    text.parse().ok().filter(|s| (1..=604_800).contains(s)).map(Duration::from_secs).ok_or_else(wrong)
}

fn enroll(parser: &mut lexopt::Parser, mut tpm: Location) -> Result<Command> {
    let (mut server, mut registrar, mut ca, mut tenant_key, mut key_file) = (None, None, None, None, None);
    let (mut timeout, mut rebuild_initramfs) = (Duration::from_secs(3600), false);
    let mut root_elsewhere = false;
    let (mut devices, mut passwords) = (Vec::new(), Vec::new());
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(ENROLL)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("server") => server = Some(Server::parse(&parser.value()?.string()?)?),
            Long("registrar") => registrar = Some(Server::parse(&parser.value()?.string()?)?),
            Long("ca") => ca = Some(PathBuf::from(parser.value()?)),
            Long("tenant-key") => tenant_key = Some(parser.value()?.string()?),
            Long("key-file") => key_file = Some(PathBuf::from(parser.value()?)),
            Long("timeout") => timeout = seconds(&parser.value()?.string()?)?,
            Long("rebuild-initramfs") => rebuild_initramfs = true,
            Long("root-elsewhere") => root_elsewhere = true,
            Long("owner-password-file") => passwords.push((Hierarchy::Owner, PathBuf::from(parser.value()?))),
            Long("endorsement-password-file") => {
                passwords.push((Hierarchy::Endorsement, PathBuf::from(parser.value()?)));
            }
            Value(device) => devices.push(PathBuf::from(device)),
            other => return Err(other.unexpected().into()),
        }
    }
    let missing = |what: &str| Error::usage(format!("expected {what}")).hint("halfkey-agent enroll --help");
    let ca = ca.ok_or_else(|| missing("--ca FILE"))?;
    if devices.is_empty() {
        return Err(missing("at least one LUKS2 device"));
    }
    Ok(Command::Enroll(Box::new(enroll::Options {
        server: server.ok_or_else(|| missing("--server URL"))?,
        tenant_key: tenant_key.ok_or_else(|| missing("--tenant-key FINGERPRINT"))?,
        ca: crate::bounded::read_text(&ca, 32 << 10).map_err(|e| Error::system(ca.display(), e))?,
        registrar,
        key_file,
        timeout,
        rebuild_initramfs,
        root_elsewhere,
        devices,
        tpm,
        passwords,
    })))
}

fn unlock(parser: &mut lexopt::Parser, tpm: Location) -> Result<Command> {
    let mut options = unlock::Options { tpm, ..unlock::Options::default() };
    let mut json = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(UNLOCK)),
            Long("tpm") => options.tpm = location(&parser.value()?.string()?)?,
            Long("dry-run") => options.dry_run = true,
            Long("json") => json = true,
            Long("timeout") => options.timeout = Some(seconds(&parser.value()?.string()?)?),
            Long("device") => options.devices.push(PathBuf::from(parser.value()?)),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Unlock { options, json })
}

fn fence(parser: &mut lexopt::Parser, mut tpm: Location) -> Result<Command> {
    let mut passphrase = None;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(FENCE)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("exec") => return fence_exec(parser, tpm),
            Long("passphrase") => {
                let name = parser.value()?.string()?;
                if !is_mapping_name(&name) {
                    // Whatever stands there, a passphrase is about to be asked for: no mapping has this name.
                    console::say(&format!("'{}' is no name of a mapping", name.escape_debug()));
                }
                passphrase = Some(name);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Fence { tpm, passphrase, exec: Vec::new() })
}

fn fence_exec(parser: &mut lexopt::Parser, tpm: Location) -> Result<Command> {
    let exec: Vec<OsString> = parser.raw_args()?.collect();
    match exec.first() {
        None => Err(Error::usage("expected a program after fence-exec")),
        Some(first) if first == "--help" => Ok(Command::Print(FENCE)),
        Some(_) => Ok(Command::Fence { tpm, passphrase: None, exec }),
    }
}

fn gate(parser: &mut lexopt::Parser, mut tpm: Location) -> Result<Command> {
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(GATE)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("exec") => {
                let exec: Vec<OsString> = parser.raw_args()?.collect();
                if exec.is_empty() {
                    return Err(Error::usage("expected a program after --exec"));
                }
                return Ok(Command::Gate { tpm, exec });
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Gate { tpm, exec: Vec::new() })
}

fn status(parser: &mut lexopt::Parser, mut tpm: Location) -> Result<Command> {
    let (mut devices, mut json) = (Vec::new(), false);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(STATUS)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("json") => json = true,
            Value(device) => devices.push(PathBuf::from(device)),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Status { tpm, devices, json })
}

fn unbind(parser: &mut lexopt::Parser) -> Result<Command> {
    let (mut devices, mut key_file) = (Vec::new(), None);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(UNBIND)),
            Long("key-file") => key_file = Some(PathBuf::from(parser.value()?)),
            Value(device) => devices.push(PathBuf::from(device)),
            other => return Err(other.unexpected().into()),
        }
    }
    if devices.is_empty() {
        return Err(Error::usage("expected at least one LUKS2 device"));
    }
    Ok(Command::Unbind { devices, key_file })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        for line in
            ["unlock x", "enroll", "fence-exec", "unbind", "frobnicate", "unlock --timeout 0", "--tpm"]
        {
            assert!(parsed(line).is_err(), "{line}");
        }
        for line in [
            "",
            "--help",
            "--version",
            "enroll --help",
            "unlock -h",
            "fence --help",
            "gate --help",
            "status --help",
            "unbind --help",
        ] {
            assert!(matches!(parsed(line), Ok(Command::Print(_))), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(line in "(unlock|fence|status|gate|unbind|--tpm)?( [-a-z=/]{1,12}){0,5}") {
            let _ = parsed(&line);
        }
    }
}
