//! The command line against the definition, and from that to a [`Command`].

use super::defs::{self, COMMANDS, Cmd, GLOBAL, PROGRAM, Takes};
use super::{Command, VERSION, help};
use crate::boot::cmdline::is_mapping_name;
use crate::boot::unlock;
use crate::console;
use crate::enroll;
use crate::error::{Error, Result};
use crate::net::Server;
use crate::propose::{self, What, find::Source};
use crate::tpm::{Hierarchy, Location};
use lexopt::Arg::{self, Long, Short, Value};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

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
        match parser.next()? {
            None | Some(Short('h') | Long("help")) => return Ok(Command::Print(help::program())),
            Some(Short('V') | Long("version")) => return Ok(Command::Print(VERSION.to_owned())),
            Some(Long("tpm")) => tpm = location(&text(parser.value()?)?)?,
            Some(Value(word)) => {
                let word = word.to_string_lossy();
                if word == "help" {
                    return Ok(Command::Print(help::program()));
                }
                let Some(command) = defs::command(&word) else { return Err(unknown_command(&word)) };
                return match Given::read(&mut parser, command)? {
                    Some(given) => given.command(tpm),
                    None => Ok(Command::Print(help::command(command))),
                };
            }
            Some(other) => return Err(unknown(&other, None)),
        }
    }
}

/// What was given to one command, in order.
struct Given {
    of: &'static Cmd,
    options: Vec<(&'static str, OsString)>,
    operands: Vec<OsString>,
    program: Option<Vec<OsString>>,
}

impl Given {
    /// None: its help was asked for.
    fn read(parser: &mut lexopt::Parser, of: &'static Cmd) -> Result<Option<Self>> {
        let mut given = Self { of, options: Vec::new(), operands: Vec::new(), program: None };
        if let Takes::Program(_) = of.operands {
            let program: Vec<OsString> = parser.raw_args().map_err(|e| given.wrong(e))?.collect();
            let help = program.first().is_some_and(|first| first == "--help");
            return Ok((!help).then_some(Self { program: Some(program), ..given }));
        }
        while let Some(arg) = parser.next().map_err(|e| given.wrong(e))? {
            let option = match arg {
                Short('h') | Long("help") => return Ok(None),
                Long(name) => match of.option(name) {
                    Some(option) => option,
                    None => return Err(unknown(&Long(name), Some(of))),
                },
                Value(operand) if of.operands != Takes::Nothing => {
                    given.operands.push(operand);
                    continue;
                }
                other => return Err(unknown(&other, Some(of))),
            };
            match option.takes {
                Takes::Nothing => given.options.push((option.name, OsString::new())),
                Takes::Program(_) => {
                    let program = parser.raw_args().map_err(|e| given.wrong(e))?.collect();
                    return Ok(Some(Self { program: Some(program), ..given }));
                }
                Takes::Text(_) | Takes::File(_) | Takes::Folder(_) | Takes::Device(_) => {
                    let value = parser.value().map_err(|e| given.wrong(e))?;
                    given.options.push((option.name, value));
                }
            }
        }
        Ok(Some(given))
    }

    fn command(mut self, tpm: Location) -> Result<Command> {
        let tpm = match self.text("tpm")? {
            Some(tpm) => location(&tpm)?,
            None => tpm,
        };
        match self.of.name {
            "enroll" => self.enroll(tpm),
            "unlock" => self.unlock(tpm),
            "look" => Ok(Command::Look),
            "fence" | "fence-exec" => self.fence(tpm),
            "before" => self.before(tpm),
            "gate" => self.gate(tpm),
            "status" => {
                if self.has("removable") {
                    if let Some(other) = ["image", "json"].into_iter().find(|other| self.has(other)) {
                        return Err(self.usage(&format!(
                            "expected nothing but devices next to --removable, found --{other}"
                        )));
                    }
                    return Ok(Command::Removable { devices: self.devices() });
                }
                let json = self.has("json");
                if let Some(file) = self.path("image") {
                    if let Some(device) = self.devices().first() {
                        return Err(self.usage(&format!(
                            "expected no device next to --image, found {}",
                            device.display()
                        )));
                    }
                    return Ok(Command::Image { file, json });
                }
                Ok(Command::Status { tpm, devices: self.devices(), json })
            }
            "propose" => self.propose(tpm),
            "unbind" => {
                let key_file = self.path("key-file");
                let devices = self.devices();
                if devices.is_empty() {
                    return Err(self.missing("at least one LUKS2 device"));
                }
                Ok(Command::Unbind { devices, key_file })
            }
            other => Err(unknown_command(other)),
        }
    }

    fn enroll(mut self, tpm: Location) -> Result<Command> {
        let server = |text: String| Server::parse(&text);
        let ca = self.path("ca").ok_or_else(|| self.missing("--ca FILE"))?;
        let passwords: Vec<_> = [
            ("owner-password-file", Hierarchy::Owner),
            ("endorsement-password-file", Hierarchy::Endorsement),
        ]
        .into_iter()
        .filter_map(|(name, hierarchy)| Some((hierarchy, self.path(name)?)))
        .collect();
        let devices = self.devices();
        if devices.is_empty() {
            return Err(self.missing("at least one LUKS2 device"));
        }
        Ok(Command::Enroll(Box::new(enroll::Options {
            server: server(self.text("server")?.ok_or_else(|| self.missing("--server URL"))?)?,
            tenant_key: self.text("tenant-key")?.ok_or_else(|| self.missing("--tenant-key FINGERPRINT"))?,
            ca: crate::bounded::read_text(&ca, 32 << 10).map_err(|e| Error::system(ca.display(), e))?,
            registrar: self.text("registrar")?.map(server).transpose()?,
            key_file: self.path("key-file"),
            timeout: self.timeout()?.unwrap_or(Duration::from_secs(3600)),
            rebuild_initramfs: self.has("rebuild-initramfs"),
            root_elsewhere: self.has("root-elsewhere"),
            others_may_ask: self.has("others-may-ask"),
            devices,
            tpm,
            passwords,
        })))
    }

    fn unlock(mut self, tpm: Location) -> Result<Command> {
        let options = unlock::Options {
            tpm,
            dry_run: self.has("dry-run"),
            timeout: self.timeout()?,
            devices: self.paths("device"),
        };
        Ok(Command::Unlock { options, json: self.has("json") })
    }

    fn fence(mut self, tpm: Location) -> Result<Command> {
        if self.program.is_some() {
            return Ok(Command::Fence { tpm, passphrase: None, shell: None, exec: self.exec()? });
        }
        match (self.text("passphrase")?, self.text("shell")?) {
            (Some(_), Some(_)) => Err(self.usage("expected one of --passphrase and --shell, found both")),
            (Some(mapping), None) => Ok(before_passphrase(tpm, mapping)),
            (None, shell) => Ok(Command::Fence { tpm, passphrase: None, shell, exec: Vec::new() }),
        }
    }

    fn before(mut self, tpm: Location) -> Result<Command> {
        let mut words = std::mem::take(&mut self.operands).into_iter();
        let unit = words.next().ok_or_else(|| self.missing("the name of a unit"))?;
        let instance = words.next().unwrap_or_default();
        if let Some(other) = words.next() {
            let other = shown(&other.to_string_lossy());
            return Err(self.usage(&format!("expected a name and an instance, found '{other}' as well")));
        }
        // The one that asks. Its name is systemd's.
        if unit == "systemd-cryptsetup" {
            return Ok(before_passphrase(tpm, instance.to_string_lossy().into_owned()));
        }
        Ok(Command::FirstLook { tpm })
    }

    fn gate(mut self, tpm: Location) -> Result<Command> {
        match (self.has("look"), self.program.is_some()) {
            (true, true) => Err(self.usage("expected one of --look and --exec, found both")),
            (true, false) => Ok(Command::FirstLook { tpm }),
            (false, true) => Ok(Command::Gate { tpm, exec: self.exec()? }),
            (false, false) => Ok(Command::Gate { tpm, exec: Vec::new() }),
        }
    }

    fn propose(mut self, tpm: Location) -> Result<Command> {
        let (uki, kernel, version) = (self.path("uki"), self.path("kernel"), self.text("kernel-version")?);
        let (initrds, command_line) = (self.paths("initrd"), self.text("cmdline")?);
        let entry = self.path("entry");
        let beside = !initrds.is_empty() || command_line.is_some();
        let what = match (uki, entry, kernel, version) {
            (Some(uki), None, None, None) if !beside => What::Files(Source::Uki(uki.into())),
            (None, Some(entry), None, None) if !beside => What::Entry(entry),
            (None, None, Some(kernel), None) => {
                let initrds = initrds.into_iter().map(Into::into).collect();
                What::Files(Source::Kernel { kernel: kernel.into(), initrds, command_line })
            }
            (None, None, None, version) if !beside => What::Version(version),
            _ => {
                return Err(self.usage(
                    "expected one of --kernel-version, --uki, --entry, --kernel; --initrd and --cmdline go with --kernel",
                ));
            }
        };
        let options = propose::Options {
            what,
            name: self.text("name")?,
            written: self.paths("written"),
            made_of: self.paths("made-of"),
            boot_root: self.path("boot-root"),
            devices: self.paths("device"),
            timeout: self.timeout()?.unwrap_or(Duration::from_secs(30)),
            dry_run: self.has("dry-run"),
            tpm,
        };
        let (json, quiet) = (self.has("json"), self.has("quiet-if-not-enrolled"));
        Ok(Command::Propose { options: Box::new(options), json, quiet })
    }

    /// Whether a switch was given.
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(given, _)| *given == name)
    }

    /// All values of an option, which are gone from here afterwards.
    fn values(&mut self, name: &str) -> Vec<OsString> {
        let (values, rest) =
            std::mem::take(&mut self.options).into_iter().partition(|(given, _)| *given == name);
        self.options = rest;
        let values: Vec<(&str, OsString)> = values;
        values.into_iter().map(|(_, value)| value).collect()
    }

    fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.values(name).pop().map(text).transpose()
    }

    fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.values(name).pop().map(PathBuf::from)
    }

    fn paths(&mut self, name: &str) -> Vec<PathBuf> {
        self.values(name).into_iter().map(PathBuf::from).collect()
    }

    fn timeout(&mut self) -> Result<Option<Duration>> {
        self.text("timeout")?.map(|text| seconds(&text)).transpose()
    }

    fn devices(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.operands).into_iter().map(PathBuf::from).collect()
    }

    fn exec(&mut self) -> Result<Vec<OsString>> {
        let program = self.program.take().unwrap_or_default();
        if program.is_empty() { Err(self.missing("a program")) } else { Ok(program) }
    }

    fn missing(&self, what: &str) -> Error {
        self.usage(&format!("expected {what}, found none"))
    }

    fn usage(&self, what: &str) -> Error {
        Error::usage(format!("{}: {what}", self.of.name)).hint(see(Some(self.of)))
    }

    fn wrong(&self, error: lexopt::Error) -> Error {
        self.usage(&error.to_string())
    }
}

fn see(command: Option<&Cmd>) -> String {
    match command {
        Some(command) => format!("{PROGRAM} {} --help", command.name),
        None => format!("{PROGRAM} --help"),
    }
}

fn unknown_command(word: &str) -> Error {
    let names = COMMANDS.iter().map(|command| command.name);
    let error = Error::usage(format!("expected a command, found '{}'", shown(word)));
    match nearest(word, names) {
        Some(name) => error.hint(format!("{PROGRAM} {name}? {} lists the commands", see(None))),
        None => error,
    }
}

/// An argument that the definition does not have there.
fn unknown(arg: &Arg<'_>, command: Option<&'static Cmd>) -> Error {
    let whose = command.map_or(String::new(), |command| format!("{}: ", command.name));
    let found = match arg {
        Long(name) => {
            let options = command.map_or(&[][..], |command| command.options);
            let names = options.iter().chain(GLOBAL).map(|option| option.name).chain(["help"]);
            let error = Error::usage(format!("{whose}expected an option, found '--{}'", shown(name)));
            let hint = match nearest(name, names) {
                Some(name) => format!("--{name}? {} lists the options", see(command)),
                None => see(command),
            };
            return error.hint(hint);
        }
        Short(letter) => format!("'-{}'", letter.escape_debug()),
        Value(value) => format!("'{}'", shown(&value.to_string_lossy())),
    };
    Error::usage(format!("{whose}expected an option, found {found}")).hint(see(command))
}

/// As much of what was typed as an error line bears.
fn shown(word: &str) -> String {
    word.chars().take(64).flat_map(char::escape_debug).collect()
}

/// The name that was meant, if one is near enough: begun like `word`, or at most two letters away.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 40 {
        return None;
    }
    let near = names.filter_map(|name| {
        let distance = if word.len() > 1 && name.starts_with(word) { 0 } else { distance(word, name) };
        (distance <= 2 && distance * 2 < name.len()).then_some((distance, name))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// Letters to insert, leave out or exchange, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let exchanged = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = exchanged.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn text(value: OsString) -> Result<String> {
    let lossy = |value: &OsStr| shown(&value.to_string_lossy());
    value.into_string().map_err(|value| Error::usage(format!("expected UTF-8, found '{}'", lossy(&value))))
}

/// Whatever stands there, a passphrase is about to be asked for: no mapping has a name that is none.
fn before_passphrase(tpm: Location, mapping: String) -> Command {
    if !is_mapping_name(&mapping) {
        console::say(&format!("'{}' is no name of a mapping", mapping.escape_debug()));
    }
    Command::Fence { tpm, passphrase: Some(mapping), shell: None, exec: Vec::new() }
}

fn location(text: &str) -> Result<Location> {
    permitted(text.parse().map_err(Error::usage)?, console::in_initramfs())
}

/// A simulator would let the fence of the TPM stay open.
pub(super) fn permitted(location: Location, in_initramfs: bool) -> Result<Location> {
    match location {
        Location::Device(ref path) if path.starts_with("/dev") => Ok(location),
        _ if !in_initramfs => Ok(location),
        other => Err(Error::usage(format!("expected a device as TPM in the initramfs, found {other}"))),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let wrong = || Error::usage(format!("expected seconds from 1 to 604800, found '{}'", shown(text)));
    text.parse().ok().filter(|s| (1..=604_800).contains(s)).map(Duration::from_secs).ok_or_else(wrong)
}
