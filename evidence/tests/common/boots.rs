//! Boots of real machines: OVMF and swtpm under QEMU. Each is a firmware log, the PCRs that the TPM quoted, and
//! `/proc/cmdline`.

use super::log::head;
use halfkey_evidence::eventlog::{ExplainedLog, kind, parse, replay};
use halfkey_evidence::policy::{Assured, Claims, Evaluation, Finding, Policy, evaluate, learn};
use halfkey_protocol::kdf::Hash;

pub struct Boot {
    pub name: &'static str,
    log: &'static [u8],
    line: &'static str,
}

macro_rules! boots {
    ($($name:literal)+) => {
        &[$(Boot {
            name: $name,
            log: include_bytes!(concat!("../fixtures/", $name, ".bin")),
            line: include_str!(concat!("../fixtures/", $name, ".cmdline")),
        },)+]
    };
}

pub const BOOTS: &[Boot] =
    boots!["uki-no-secure-boot" "uki-secure-boot-own-keys" "systemd-boot-type1" "grub-shim-ms-keys"];

pub fn boot(name: &str) -> &'static Boot {
    BOOTS.iter().find(|boot| boot.name == name).expect("one of the boots")
}

/// An event that can be changed.
#[derive(Clone, Debug)]
pub struct Record {
    pub pcr: u32,
    pub kind: u32,
    pub digest: Vec<u8>,
    pub data: Vec<u8>,
}

impl Record {
    /// An event whose digest is that of its data.
    pub fn of(pcr: u32, kind: u32, data: &[u8]) -> Self {
        Self { pcr, kind, digest: Hash::Sha256.digest(&[data]), data: data.to_vec() }
    }
}

impl Boot {
    pub fn log(&self) -> ExplainedLog<'_> {
        replay(self.log, Hash::Sha256).unwrap().explain_unquoted().unwrap()
    }

    pub fn line(&self) -> &str {
        self.line.trim_end()
    }

    pub fn claims(&self) -> Claims<'_> {
        Claims { command_line: Some(self.line.as_bytes()) }
    }

    /// The policy that is learned from it. Of its kernel (Linux 6.1) the owner should not say what this says for the boot by
    /// systemd-boot: that is what the tests of that path need.
    pub fn learned(&self) -> String {
        learn(&self.log(), &self.claims(), self.assured(), "learned", &["from a test"])
            .unwrap_or_else(|findings| panic!("{}: {findings:?}", self.name))
    }

    pub fn assured(&self) -> Assured {
        Assured { kernel_measures_initrd: self.name == "systemd-boot-type1", ..Assured::default() }
    }

    pub fn judge(&self, policy: &Policy) -> Evaluation {
        evaluate(policy, &self.log(), &self.claims())
    }

    /// With another word of the node for its command line.
    pub fn judge_with(&self, policy: &Policy, line: Option<&str>) -> Vec<Finding> {
        evaluate(policy, &self.log(), &Claims { command_line: line.map(str::as_bytes) }).findings
    }

    /// The events after the first, which says that it is a log.
    pub fn records(&self) -> Vec<Record> {
        let log = parse(self.log).unwrap();
        log.events()
            .map(|event| Record {
                pcr: event.pcr,
                kind: event.kind,
                digest: log.digest(&event, Hash::Sha256.alg()).unwrap_or_default().to_vec(),
                data: event.data.to_vec(),
            })
            .collect()
    }

    /// The verdict over a changed log, as if the TPM had quoted what it replays to; none if it does not replay.
    pub fn findings_of(&self, policy: &Policy, records: &[Record]) -> Option<Vec<Finding>> {
        let bytes = log_of(records);
        let log = replay(&bytes, Hash::Sha256).ok()?.explain_unquoted().ok()?;
        Some(evaluate(policy, &log, &self.claims()).findings)
    }
}

/// A crypto-agile log with SHA-256 only.
pub fn log_of(records: &[Record]) -> Vec<u8> {
    let mut log = head(&[(Hash::Sha256.alg(), 32)]);
    for record in records {
        log.extend(record.pcr.to_le_bytes());
        log.extend(record.kind.to_le_bytes());
        log.extend(1u32.to_le_bytes());
        log.extend(Hash::Sha256.alg().to_le_bytes());
        log.extend(if record.kind == kind::NO_ACTION { vec![0; 32] } else { record.digest.clone() });
        log.extend((record.data.len() as u32).to_le_bytes());
        log.extend(&record.data);
    }
    log
}
