//! Files of a boot that somebody copied from a machine.

use halfkey_evidence::eventlog::{replay, systemd_log};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_testkit::error::Context as _;
use halfkey_testkit::local_lab::LocalLab;
use halfkey_testkit::log::{NO_ACTION, Record, log_of, read};
use halfkey_testkit::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the agent looks for systemd's log, below /run.
const SYSTEMD_LOG: &str = "log/systemd/tpm2-measure.log";
/// What a log begins with that says at which locality firmware started the TPM.
const LOCALITY: &[u8] = b"StartupLocality\0";
/// The last that systemd measures before the root is entered.
const LEFT_INITRD: &str = "leave-initrd";
/// What says that a boot is over, for the agent.
const FENCE: u8 = 15;

/// A boot.
pub struct Captured {
    /// How many events its firmware's log has.
    pub events: usize,
    /// What is not as on that machine.
    pub notes: Vec<String>,
    log: Vec<u8>,
    line: Vec<u8>,
    /// What systemd measured in the initramfs, and the log that says so.
    systemd: Option<(Vec<Record>, Vec<u8>)>,
}

impl Captured {
    /// Reads a log and what is beside it.
    ///
    /// # Errors
    /// If the log can't be read or is none, with a hint.
    pub fn read(path: &Path) -> Result<Self> {
        let log = fs::read(path).context(format_args!("can't read {}", path.display()))?;
        let replayed = replay(&log, PcrBank::Sha256).map_err(|rejection| {
            let source = "hint: copy /sys/kernel/security/tpm0/binary_bios_measurements of a machine with a SHA-256 bank";
            Error::new(format!("{} is no firmware event log: {rejection}\n{source}", path.display()))
        })?;
        let (events, mut notes) = (replayed.events().len(), Vec::new());
        let log = without_locality(log, &mut notes);
        let line = beside(path, "cmdline")?.unwrap_or_else(|| {
            let name = path.with_extension("cmdline");
            notes.push(format!("there is no {}: the command line is taken to be empty", name.display()));
            b"\n".to_vec()
        });
        let systemd = match beside(path, "tpm2-measure.log")? {
            Some(text) => Some(in_initramfs(&text)?),
            None => None,
        };
        Ok(Self { events, notes, log, line, systemd })
    }

    /// Switches the machine on and boots it so, up to where the agent runs.
    ///
    /// # Errors
    /// If the TPM does not come up, or the agent can't be shown what is measured.
    pub fn replay(&self, lab: &mut LocalLab) -> Result<()> {
        lab.power_on_with(&self.log, &self.line)?;
        let Some((records, text)) = &self.systemd else { return Ok(()) };
        lab.tpm.replay(records, &PcrBank::ALL);
        let run = lab.folder.join("run");
        let file = run.join(SYSTEMD_LOG);
        fs::create_dir_all(file.parent().context("a file has a folder")?).context("can't make a /run")?;
        fs::write(file, text).context("can't write systemd's log")?;
        lab.interpose(Path::new("/run"), &run)
    }
}

/// What has the name of the log with another ending.
fn beside(log: &Path, ending: &str) -> Result<Option<Vec<u8>>> {
    let path: PathBuf = log.with_extension(ending);
    if !path.exists() {
        return Ok(None);
    }
    fs::read(&path).map(Some).context(format_args!("can't read {}", path.display()))
}

/// A software TPM can be started at locality 0 only, by which PCR 0 has another first value.
fn without_locality(log: Vec<u8>, notes: &mut Vec<String>) -> Vec<u8> {
    let records = read(&log);
    let states = |record: &Record| record.kind == NO_ACTION && record.data.starts_with(LOCALITY);
    if !records.iter().any(states) {
        return log;
    }
    notes.push(
        "firmware started the TPM at another locality than the software TPM is: pcr 0 has another value"
            .into(),
    );
    log_of(&records.into_iter().filter(|record| !states(record)).collect::<Vec<_>>())
}

/// The part of systemd's log that was there when the agent ran, and what it says that was measured.
fn in_initramfs(text: &[u8]) -> Result<(Vec<Record>, Vec<u8>)> {
    let hint = "hint: copy /run/log/systemd/tpm2-measure.log";
    let (mut records, mut log) = (Vec::new(), Vec::new());
    // Each begins with a record separator.
    for record in text.split(|byte| *byte == 0x1e).filter(|record| !record.is_empty()) {
        let record = [&[0x1e], record].concat();
        let events = systemd_log::parse(&record, PcrBank::Sha256)
            .map_err(|rejection| Error::new(format!("not systemd's log: {rejection}\n{hint}")))?;
        for event in &events {
            if event.claimed_text() == Some(LEFT_INITRD) || event.pcr == FENCE {
                return Ok((records, log));
            }
            let digest = event.digest.to_vec();
            records.push(Record { pcr: event.pcr.into(), kind: 0, digest, data: Vec::new() });
        }
        log.extend(record);
    }
    Ok((records, log))
}
