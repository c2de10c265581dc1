//! A boot with Secure Boot as machines in the field have it, for any number of TPMs in software.

use crate::Result;
use halfkey_evidence::appraise::{BoundedEvidence, Enrolled, appraise};
use halfkey_evidence::digest::Bank;
use halfkey_evidence::eventlog::variable::Known;
use halfkey_evidence::eventlog::{Content, Event, replay};
use halfkey_evidence::policy::{Assured, learn};
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::wire::{Begun, Evidence, Purpose};
use halfkey_testkit::log::read;
use halfkey_testkit::node::SimulatedNode;
use halfkey_testkit::recorded;
use halfkey_testkit::soft_tpm::{BootedPcrs, SoftTpm, booted};

/// shim, GRUB and a kernel of Debian under the keys of Microsoft.
const BOOT: &str = "grub-shim-ms-keys";
/// As long as the log of a machine with the keys and the revocation list that Microsoft hands out.
const LOG_BYTES: usize = 40_000;
/// What is quoted.
pub const BANK: PcrBank = PcrBank::Sha256;

/// What a machine has booted.
pub struct SecureBoot {
    /// `binary_bios_measurements`
    pub log: Bytes,
    /// `/proc/cmdline`
    pub command_line: Bytes,
    /// PCR 0 to 15 after it.
    pub pcrs: BootedPcrs,
}

impl SecureBoot {
    /// The recorded one, with a log of 40 kB.
    ///
    /// # Errors
    /// If the recorded log is damaged.
    pub fn new() -> Result<Self> {
        let recorded = recorded::boot(BOOT);
        let log = with_longer_dbx(recorded.log)?;
        let pcrs = booted(&read(&log));
        Ok(Self { log: log.into(), command_line: recorded.proc_cmdline().into(), pcrs })
    }

    /// What is sent besides what every machine sends.
    pub fn of(&self, sent: Evidence) -> Evidence {
        Evidence { event_log: Some(self.log.clone()), command_line: Some(self.command_line.clone()), ..sent }
    }

    /// The policy that is learned from it.
    ///
    /// # Errors
    /// If none can be learned.
    pub fn policy(&self, name: &str) -> Result<String> {
        let (tpm, register) = SoftTpm::new(self.pcrs.clone());
        let enrolled = Enrolled::parse(&register.ak_public, &register.srk_public, BANK)?;
        let node = SimulatedNode::new(tpm, register);
        let begun =
            Begun { version: 1, nonce: [2; 48].into(), bank: BANK.name().to_owned(), enrollment: None };
        let session = node.session("boot", begun, &[0; 32]);
        let sent = self.of(node.evidence("boot", &session));
        let evidence = BoundedEvidence { sent: &sent, node: node.id, purpose: Purpose::Boot };
        let appraisal = appraise(&evidence, &enrolled, None)?;
        let log = appraisal.log()?.ok_or("evidence without a log")?;
        learn(log, &evidence.claims(), Assured::default(), name, &[]).map_err(|findings| {
            let why = findings.first().map_or_else(String::new, ToString::to_string);
            format!("no policy can be learned from the boot: {why}").into()
        })
    }
}

/// The same boot on a machine whose dbx has more image hashes: the recorded one is short, because the test forbids
/// little.
fn with_longer_dbx(log: &[u8]) -> Result<Vec<u8>> {
    let replayed = replay(log, BANK)?;
    let is_dbx = |event: &&Event<'_>| matches!(event.content(), Content::Variable(variable) if variable.known() == Known::Dbx);
    let dbx = replayed.events().iter().find(is_dbx).ok_or("a log without dbx")?;
    let missing = LOG_BYTES.saturating_sub(log.len());
    let mut data = [dbx.claimed_data(), &image_hashes(missing / 48)].concat();
    // UEFI_VARIABLE_DATA: vendor, length of the name, length of the value.
    let length =
        u64::from_le_bytes(data[24..32].try_into()?) + (data.len() - dbx.claimed_data().len()) as u64;
    data[24..32].copy_from_slice(&length.to_le_bytes());

    let at = |part: &[u8]| part.as_ptr() as usize - log.as_ptr() as usize;
    let (digest, old) = (at(dbx.digest), at(dbx.claimed_data()));
    Ok([
        &log[..digest],
        &Bank::from(BANK).digest(&data),
        &log[digest + dbx.digest.len()..old - 4],
        &(data.len() as u32).to_le_bytes(),
        &data,
        &log[old + dbx.claimed_data().len()..],
    ]
    .concat())
}

/// An `EFI_SIGNATURE_LIST` of `EFI_CERT_SHA256_GUID`.
fn image_hashes(count: usize) -> Vec<u8> {
    const SHA256: [u8; 16] =
        [0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28];
    let sizes = [28 + 48 * count, 0, 48].map(|size| (size as u32).to_le_bytes()).concat();
    let hash = |number: usize| [&[0; 16][..], &Bank::Sha256.digest(&number.to_le_bytes())].concat();
    [SHA256.to_vec(), sizes, (0..count).flat_map(hash).collect()].concat()
}
