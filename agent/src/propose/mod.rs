//! `propose`: tells the verifier what this machine will boot next, before it does.
//!
//! A hint, under a quote of the running machine: the verifier decides by its policy whether it believes it. Nothing here
//! changes the machine, and a proposal that was not made or not accepted costs no more than a passphrase at the next boot.
//!
//! | module | what |
//! | --- | --- |
//! | [`entry`] | entries of the boot loader |
//! | [`find`] | which files the boot loader will start |
//! | [`file`] | one of them |
//! | [`measure`] | what they will measure |
//! | [`written`] | what an update has written |
//! | [`grub`] | what changed in GRUB's configuration, for the operator |

pub mod entry;
pub mod file;
pub mod find;
pub mod grub;
pub mod measure;
pub mod written;

use crate::boot::devices;
use crate::boot::state::{Opened, State};
use crate::console;
use crate::deadline::Deadline;
use crate::enroll::bind;
use crate::error::{Error, Kind, Result};
use crate::exchange::rules::Came;
use crate::exchange::{self, Ask, Attester, Failed};
use crate::luks::{Header, Token};
use crate::net::client::{advice, printable};
use crate::net::race::{Connection, Race, RaceConfig};
use crate::net::tls;
use crate::timing::Timeline;
use crate::tpm::{Location, Object, Tpm, choice};
use halfkey_protocol::wire::{Proposal, Proposed, ProposedLoader, Purpose};
use halfkey_protocol::{Bytes, Reason};
use std::path::{Path, PathBuf};
use std::time::Duration;
use written::Written;

/// Which boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// These files.
    Files(find::Source),
    /// What this boot entry starts.
    Entry(PathBuf),
    /// Whatever the boot loader has for this kernel version; none: that of the running kernel.
    Version(Option<String>),
}

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which boot.
    pub what: What,
    /// Instead of the kernel's version or the file's name.
    pub name: Option<String>,
    /// What an update has written, where it was made.
    pub written: Vec<PathBuf>,
    /// What it has made that of.
    pub made_of: Vec<PathBuf>,
    /// Where the boot loader's files are, if not in /efi, /boot or /boot/efi.
    pub boot_root: Option<PathBuf>,
    /// Instead of the volumes that are found.
    pub devices: Vec<PathBuf>,
    /// When to give up.
    pub timeout: Duration,
    /// Measure and print the proposal, and send nothing.
    pub dry_run: bool,
    /// Device or simulator of the TPM.
    pub tpm: Location,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// That boot will be released.
    Accepted,
    /// An operator decides.
    Waiting,
    /// No.
    Refused,
}

/// What was proposed, and the answer.
pub struct Report {
    /// What was measured.
    pub proposal: Proposal,
    /// Why it is not called the update's, whose hook runs; none without one, or if it is.
    pub doubt: Option<String>,
    /// Which server answered, and what; none after a dry run.
    pub answer: Option<(String, Outcome, Proposed)>,
}

/// Measures the next boot and proposes it.
///
/// # Errors
/// [`Kind::NotEnrolled`] without a token; when a file is missing or is no image; when no server answered in time, or the
/// server refuses this node. That a proposal waits or is refused is an [`Outcome`].
pub fn run(options: &Options) -> Result<Report> {
    let deadline = Deadline::after(options.timeout);
    let token = token(&options.devices)?;
    let system = find::System::running(options.boot_root.clone());
    let written = Written::of(&options.written, &options.made_of, &system)?;
    let (source, name) = match &options.what {
        What::Files(source) => (source.clone(), options.name.clone().unwrap_or_else(|| source.file_name())),
        What::Entry(path) => {
            let source = system.of_entry(path, &system.release)?;
            let name = options.name.clone().unwrap_or_else(|| source.file_name());
            (source, name)
        }
        What::Version(version) => {
            let version = version.as_ref().unwrap_or(&system.release);
            (system.find(version, &written)?, options.name.clone().unwrap_or_else(|| version.clone()))
        }
    };
    let doubt = written.doubt(&source);
    let mut proposal = measure::measure(&source, &name, token.bank)?;
    proposal.written_by_update = doubt.as_deref() == Some("");
    let doubt = doubt.filter(|doubt| !doubt.is_empty());
    if let find::Source::Kernel { kernel, initrds, .. } = &source
        && system.by_grub()
    {
        let changes = if options.dry_run { grub::preview } else { grub::changes };
        let whole = [kernel].into_iter().chain(initrds).map(file::BootFile::whole);
        let files = grub::digests(&system, &whole.collect::<Result<Vec<_>>>()?, token.bank);
        proposal.loader = Some(ProposedLoader { files: Some(files), ..changes(&system) });
    }
    if options.dry_run {
        return Ok(Report { proposal, doubt, answer: None });
    }
    let (server, proposed) = send(&options.tpm, &token, &proposal, deadline)?;
    let outcome = match proposed.outcome.as_str() {
        "accepted" => Outcome::Accepted,
        "waiting" => Outcome::Waiting,
        "refused" => Outcome::Refused,
        other => {
            let found = printable(other, 32);
            return Err(Error::new(
                Kind::Network,
                format!("{server}: expected accepted, waiting or refused, found '{found}'"),
            ));
        }
    };
    Ok(Report { proposal, doubt, answer: Some((server, outcome, proposed)) })
}

/// The token of the newest enrollment: of those by which this boot was opened, if it was.
fn token(devices: &[PathBuf]) -> Result<Token> {
    let headers: Vec<Header> = match devices {
        [] => {
            let opened = State::load().ok().flatten().map(|state| state.volumes).unwrap_or_default();
            let read = |path: &Path| bind::open(path).ok().map(|open| open.header);
            let of_boot = of_this_boot(&opened, read, |header| &header.uuid);
            if of_boot.is_empty() {
                devices::all().into_iter().map(|(_, header)| header).collect()
            } else {
                of_boot
            }
        }
        paths => paths.iter().map(|path| bind::open(path).map(|open| open.header)).collect::<Result<_>>()?,
    };
    let tokens =
        headers.iter().flat_map(|header| header.halfkey_tokens()).filter_map(|(_, token)| token.ok());
    tokens.filter(|token| token.complete).max_by_key(|token| token.enrolled_at).ok_or_else(|| {
        Error::new(Kind::NotEnrolled, "expected an enrolled volume, found none")
            .hint("run as root; to enroll: halfkey-agent enroll")
    })
}

/// The headers of the volumes that are open by attestation. Another disk can have a token of this machine's with a server and a CA of its
/// owner's: all that it takes is public.
fn of_this_boot<H>(
    opened: &[Opened],
    read: impl Fn(&Path) -> Option<H>,
    uuid: impl Fn(&H) -> &str,
) -> Vec<H> {
    let open = opened.iter().filter(|volume| volume.mapping.is_some());
    open.filter_map(|volume| read(Path::new(&volume.device)).filter(|header| uuid(header) == volume.uuid))
        .collect()
}

/// Quotes the running machine over the proposal and sends it, again while a fresh quote can help.
fn send(
    location: &Location,
    token: &Token,
    proposal: &Proposal,
    deadline: Deadline,
) -> Result<(String, Proposed)> {
    let text: Bytes = miniserde::json::to_string(proposal).into_bytes().into();
    let attester = Attester {
        node: token.node,
        purpose: Purpose::Propose,
        srk_name: &token.srk_name,
        bank: None,
        enrollments: &[],
    };
    let config = RaceConfig {
        servers: token.servers.clone(),
        tls: tls::config(&token.ca, token.enrolled_at)?,
        begin: attester.begin(),
        deadline,
        timeline: Timeline::default(),
    };
    let race = Race::start(&config)?;
    let mut tpm = choice::by_srk(&location.each(), &[&token.srk_name], &mut |_| Ok(()))?.tpm;
    let ak = tpm.attestation_key()?;
    let connection = race.winner();
    let mut ask = AskToAccept { attester, tpm, ak, proposal: text };
    let (proposed, client) = exchange::run(&mut ask, &config, connection)?;
    Ok((client.server().to_string(), proposed))
}

/// One proposal, for as many quotes as it takes.
struct AskToAccept<'a> {
    attester: Attester<'a>,
    tpm: Tpm,
    ak: Object,
    proposal: Bytes,
}

impl Ask for AskToAccept<'_> {
    type Answer = Proposed;

    fn attester(&self) -> Attester<'_> {
        self.attester
    }

    fn attempt(
        &mut self,
        connection: &Connection,
        deadline: Deadline,
    ) -> std::result::Result<Proposed, Failed> {
        self.attester.propose(&mut self.tpm, &self.ak, connection, &self.proposal, deadline)
    }

    fn came(proposed: &Proposed) -> Came {
        match proposed.outcome.as_str() {
            "refused" => Came::Denied(proposed.code.as_deref().and_then(Reason::from_code)),
            // Accepted, waiting, or what no verifier says: an answer.
            _ => Came::Answered,
        }
    }

    fn ticket(_: &Proposed) -> Option<&str> {
        None
    }

    fn refusal(proposed: &Proposed) -> Error {
        let code = printable(proposed.code.as_deref().unwrap_or("no code"), 64);
        let message = printable(&proposed.message, 500);
        Error::new(Kind::Refused, format!("the verifier refuses the proposal: {message} [{code}]"))
    }

    /// That it was refused is an answer as well.
    fn denied(proposed: Proposed) -> Result<Proposed> {
        Ok(proposed)
    }
}

/// What follows from a proposal that was not accepted, for people.
pub const CONSEQUENCE: &str = "a boot of what its policy does not accept yet asks for the passphrase";

/// Of files that no update has handed over.
pub const AS_THEY_ARE: &str = "note: it is about the files as they are now: whoever had the disk could have written what is on a boot partition";

/// The same of a machine that GRUB boots.
pub const BY_GRUB: &str = "GRUB measures each command and file of its own: the first boot of this is denied and asks for the passphrase; an operator allows the later \
     ones by `halfkey approve NODE --learn`";

impl Report {
    /// For people: one line, and what to do next.
    pub fn print(&self) {
        let Some((_, outcome, proposed)) = &self.answer else { return self.print_json() };
        let name = printable(&self.proposal.name, 128);
        let number = proposed.proposal_id.map(|id| format!(" (proposal {id})")).unwrap_or_default();
        let grub = self.proposal.loader.is_some();
        let word = match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Waiting if grub => "is announced",
            Outcome::Waiting => "waits for an operator",
            Outcome::Refused => "refused",
        };
        let code =
            proposed.code.as_deref().map(|code| format!(" [{}]", printable(code, 64))).unwrap_or_default();
        console::print(&format!("{name} {word}{number}: {}{code}\n", printable(&proposed.message, 500)));
        if let Some(hint) = advice(proposed.hint.as_deref(), proposed.code.as_deref()) {
            console::say(&format!("hint: {hint}"));
        }
        if *outcome != Outcome::Accepted && !self.proposal.written_by_update {
            let doubt = self.doubt.as_ref().map(|doubt| format!(": {doubt}")).unwrap_or_default();
            console::say(&format!("{AS_THEY_ARE}{doubt}"));
        }
        match &self.proposal.loader {
            _ if *outcome == Outcome::Accepted => {}
            Some(loader) => {
                console::say(BY_GRUB);
                if !loader.changes.is_empty() {
                    console::say("what changed in GRUB's configuration since this boot:");
                    loader.changes.lines().for_each(|line| console::say(&format!("  {line}")));
                }
            }
            None => console::say(CONSEQUENCE),
        }
    }

    /// One JSON object and a line feed: `proposal`, and after it was sent `server` and `answer`.
    pub fn print_json(&self) {
        #[derive(miniserde::Serialize)]
        struct Json<'a> {
            proposal: &'a Proposal,
            server: Option<&'a String>,
            answer: Option<&'a Proposed>,
        }
        let (server, answer) = self.answer.as_ref().map(|(server, _, answer)| (server, answer)).unzip();
        let json = Json { proposal: &self.proposal, server, answer };
        console::print(&format!("{}\n", miniserde::json::to_string(&json)));
    }

    /// The exit code: 0 accepted, else that of the [`Kind`].
    pub fn exit_code(&self) -> u8 {
        match self.answer.as_ref().map(|(_, outcome, _)| outcome) {
            None | Some(Outcome::Accepted) => 0,
            Some(Outcome::Waiting) => Kind::Pending.exit_code(),
            Some(Outcome::Refused) => Kind::Refused.exit_code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::state::Mapping;

    #[test]
    fn a_disk_that_was_plugged_in_says_nothing_of_what_opened_this_boot() {
        let uuid = "0b5f4c0e-6d1b-4f0a-9f2d-1d0c7a5e0001";
        // Its UUID is copied as easily.
        let read = |path: &Path| match path.to_str() {
            Some("/dev/sda") => Some((uuid, "theirs")),
            Some("/dev/vda2") => Some((uuid, "ours")),
            Some("/dev/vda3") => Some(("", "formatted since")),
            _ => None,
        };
        let mapping = Some(Mapping { dm_uuid: String::new(), number: "254:0".into() });
        let volume = |device: &str, mapping: &Option<Mapping>| Opened {
            device: device.into(),
            uuid: uuid.into(),
            name: "root".into(),
            root: true,
            mapping: mapping.clone(),
            keyslot: 1,
        };
        let opened = ["/dev/vda2", "/dev/vda3", "/dev/vda4"].map(|device| volume(device, &mapping));
        assert_eq!(of_this_boot(&opened, read, |header| header.0), [(uuid, "ours")]);
        assert_eq!(of_this_boot(&[volume("/dev/vda2", &None)], read, |header| header.0), []);
    }
}
