//! The command line: what was asked for, as a type, and the help that says how.

use crate::boot::cmdline::is_mapping_name;
use crate::boot::unlock;
use crate::console;
use crate::enroll;
use crate::error::{Error, Result};
use crate::net::Server;
use crate::propose::{self, What, find::Source};
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
    /// Look at what is mounted of the root so far.
    FirstLook {
        /// Where the TPM is.
        tpm: Location,
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
    /// Tell the verifier what will be booted next.
    Propose {
        /// What.
        options: Box<propose::Options>,
        /// As JSON.
        json: bool,
        /// A machine that is not enrolled is nothing to speak of.
        quiet: bool,
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
  propose     tell the verifier what will be booted next, after an update
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
  --others-may-ask       the initramfs opens other LUKS volumes too, without asking anybody
                         (a key file in it); else enroll refuses such a set
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
usage: halfkey-agent gate [--look | --exec COMMAND [ARGUMENT...]]

If volumes were opened by attestation in this boot, /sysroot (and /sysroot/usr) must be on
them; else closes them, extends the fence as rogue and powers off.

  --look                 look only, at what is mounted so far
  --exec COMMAND...      close the boot window, check the root, then become that program
";

const STATUS: &str = "\
usage: halfkey-agent status [--json] [DEVICE...]

Shows TPM, EK certificate, fence, enrolled volumes, and whether their servers answer.
";

const PROPOSE: &str = "\
usage: halfkey-agent propose [--kernel-version VERSION | --uki FILE |
                              --kernel FILE [--initrd FILE]... [--cmdline TEXT]] [OPTIONS]

Measures what will be booted next and proposes it to the verifier, under a quote of the running
machine. A signed image that the policy trusts, or one that it expects, is accepted at once;
anything else waits for an operator. Run as root, after the image was rebuilt and before a reboot.

  --kernel-version VERSION  what the boot loader has for this kernel [default: the running one]:
                         a unified kernel image, a boot entry, or vmlinuz and initrd.img
  --uki FILE             this unified kernel image
  --kernel FILE          this kernel, with the initrds and the command line that follow
  --initrd FILE          may be repeated, in the order of loading
  --cmdline TEXT         all that the boot loader will pass
  --boot-root DIR        where the boot loader's files are [default: /efi, /boot, /boot/efi]
  --name TEXT            for the operator [default: the version or the file's name]
  --device PATH          this volume's token instead of the newest that is found; may be repeated
  --timeout SECONDS      when to give up [default: 30]
  --dry-run              print what would be proposed, as JSON, and send nothing
  --quiet-if-not-enrolled  succeed without a word on a machine without an enrolled volume
  --json                 proposal and answer as JSON on standard output

GRUB measures its own commands and files in PCR 8 and 9: no proposal can foretell them.
exit codes: 0 accepted, 7 waits for an operator, 6 refused; others as for all commands
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
                "propose" => propose(&mut parser, tpm),
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
    let (mut root_elsewhere, mut others_may_ask) = (false, false);
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
            Long("others-may-ask") => others_may_ask = true,
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
        others_may_ask,
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
    let mut look = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(GATE)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("look") => look = true,
            Long("exec") if look => {
                return Err(Error::usage("expected one of --look and --exec, found both"));
            }
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
    if look { Ok(Command::FirstLook { tpm }) } else { Ok(Command::Gate { tpm, exec: Vec::new() }) }
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

fn propose(parser: &mut lexopt::Parser, mut tpm: Location) -> Result<Command> {
    let (mut uki, mut kernel, mut version) = (None, None, None);
    let (mut initrds, mut command_line) = (Vec::new(), None);
    let (mut json, mut quiet, mut dry_run) = (false, false, false);
    let (mut name, mut boot_root, mut devices) = (None, None, Vec::new());
    let mut timeout = Duration::from_secs(30);
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Print(PROPOSE)),
            Long("tpm") => tpm = location(&parser.value()?.string()?)?,
            Long("kernel-version") => version = Some(parser.value()?.string()?),
            Long("uki") => uki = Some(PathBuf::from(parser.value()?)),
            Long("kernel") => kernel = Some(PathBuf::from(parser.value()?)),
            Long("initrd") => initrds.push(PathBuf::from(parser.value()?)),
            Long("cmdline") => command_line = Some(parser.value()?.string()?),
            Long("boot-root") => boot_root = Some(PathBuf::from(parser.value()?)),
            Long("name") => name = Some(parser.value()?.string()?),
            Long("device") => devices.push(PathBuf::from(parser.value()?)),
            Long("timeout") => timeout = seconds(&parser.value()?.string()?)?,
            Long("dry-run") => dry_run = true,
            Long("quiet-if-not-enrolled") => quiet = true,
            Long("json") => json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let beside = !initrds.is_empty() || command_line.is_some();
    let what = match (uki, kernel, version) {
        (Some(uki), None, None) if !beside => What::Files(Source::Uki(uki)),
        (None, Some(kernel), None) => What::Files(Source::Kernel { kernel, initrds, command_line }),
        (None, None, version) if !beside => What::Version(version),
        _ => {
            return Err(Error::usage(
                "expected one of --kernel-version, --uki, --kernel; --initrd and --cmdline go with --kernel",
            )
            .hint("halfkey-agent propose --help"));
        }
    };
    let options = propose::Options { what, name, boot_root, devices, timeout, dry_run, tpm };
    Ok(Command::Propose { options: Box::new(options), json, quiet })
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
        assert!(matches!(parsed("gate --look"), Ok(Command::FirstLook { .. })));
        for line in [
            "gate --look --exec true",
            "unlock x",
            "enroll",
            "fence-exec",
            "unbind",
            "frobnicate",
            "unlock --timeout 0",
            "--tpm",
            "propose x",
        ] {
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
            "propose --help",
            "unbind --help",
        ] {
            assert!(matches!(parsed(line), Ok(Command::Print(_))), "{line}");
        }
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
        let uki = What::Files(Source::Uki("/efi/a.efi".into()));
        assert_eq!(of("propose --uki /efi/a.efi --timeout 5"), Ok((uki, Duration::from_secs(5), false)));
        let kernel = What::Files(Source::Kernel {
            kernel: "k".into(),
            initrds: vec!["a".into(), "b".into()],
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
        ] {
            assert!(of(line).unwrap_err().contains("expected one of"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_or_refused(line in "(unlock|fence|status|gate|unbind|propose|--tpm)?( [-a-z=/]{1,12}){0,5}") {
            let _ = parsed(&line);
        }
    }
}
