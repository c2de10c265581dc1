//! How many boots a core checks, in process: quote, replay and policy, next to bare P-256
//! verification, which no check can do without.

use crate::run::Result;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use halfkey_bench::boot::{BANK, SecureBoot};
use halfkey_bench::cpu;
use halfkey_evidence::appraise::{BoundedEvidence, Enrolled, appraise};
use halfkey_evidence::eventlog::replay;
use halfkey_evidence::policy::{Assured, Policy, learn};
use halfkey_evidence::public::SrkPublic;
use halfkey_evidence::signature;
use halfkey_protocol::NodeId;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{Evidence, Purpose};
use halfkey_testkit::log::read;
use halfkey_testkit::tpm::{RSA_2048, Tpm};
use std::hint::black_box;

/// What was measured.
pub struct Rates {
    /// Length of the event log, in bytes.
    pub log_bytes: usize,
    /// Length of the message that carries it, in bytes.
    pub sent_bytes: usize,
    /// Events in it.
    pub log_events: usize,
    /// Checks per second of CPU time.
    pub checks: f64,
    /// The same for the first boot under a policy, when nothing is remembered of its keys.
    pub first_checks: f64,
    /// Bare verifications of the same signature per second of CPU time.
    pub p256: f64,
}

/// Has a TPM of its own quote a recorded boot, learns a policy from it, and counts.
pub fn measure() -> Result<Rates> {
    let boot = SecureBoot::new()?;
    let tpm = Tpm::new(RSA_2048);
    let exchange = Exchange::new()?;
    let (ak, sent) = quoted(&tpm, &boot.log, &exchange);
    let enrolled = Enrolled::parse(&ak, &exchange.srk, BANK)?;
    let check = Check { enrolled, sent: boot.of(sent), exchange };
    let learned = check.learn()?;
    let policy = || Policy::parse(&learned).map_err(|problems| format!("the learned policy: {problems:?}"));

    let known = policy()?;
    let (x, y) = template::AK.point(&ak).ok_or("an ak of another template")?;
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4][..], &x, &y].concat())?;
    let signed = signature::parse(&check.sent.signature)?;
    let (mut checks, mut p256) = (Vec::new(), Vec::new());
    check.run(&known)?;
    // In turn, so that what else the machine does hits both alike.
    for _ in 0..ROUNDS {
        checks.push(cpu::rate(|| check.run(&known))?);
        p256.push(cpu::rate(|| Ok(key.verify_sig(black_box(&check.sent.quote), &signed)?))?);
    }
    let mut fresh = (0..FIRST).map(|_| policy()).collect::<std::result::Result<Vec<_>, _>>()?.into_iter();
    let first = cpu::of_thread()?;
    fresh.try_for_each(|policy| check.run(&policy))?;
    let first_checks = FIRST as f64 / (cpu::of_thread()? - first).as_secs_f64();
    Ok(Rates {
        log_bytes: check.log().len(),
        sent_bytes: serde_json::to_vec(&check.sent)?.len(),
        log_events: replay(check.log(), BANK)?.events().len(),
        checks: cpu::median(&mut checks),
        first_checks,
        p256: cpu::median(&mut p256),
    })
}

/// Rounds of each figure.
const ROUNDS: usize = 15;
/// Policies that see their first boot.
const FIRST: usize = 500;

/// What the verifier has when evidence comes in.
struct Check {
    enrolled: Enrolled,
    sent: Evidence,
    exchange: Exchange,
}

impl Check {
    /// All that does not need a database.
    fn run(&self, policy: &Policy) -> Result<()> {
        let appraisal = appraise(black_box(&self.evidence()), &self.enrolled, Some(policy))?;
        if appraisal.attested()?.allowed().is_some() {
            return Ok(());
        }
        let finding = appraisal.result().and_then(|result| result.findings.first());
        let why = finding.map_or_else(String::new, ToString::to_string);
        Err(format!("the learned policy does not accept the boot: {why}").into())
    }

    fn learn(&self) -> Result<String> {
        let appraisal = appraise(&self.evidence(), &self.enrolled, None)?;
        let log = appraisal.log()?.ok_or("evidence without a log")?;
        learn(log, &self.evidence().claims(), Assured::default(), "bench", &[]).map_err(|findings| {
            let why = findings.first().map_or_else(String::new, ToString::to_string);
            format!("no policy can be learned from the boot: {why}").into()
        })
    }

    fn evidence(&self) -> BoundedEvidence<'_> {
        BoundedEvidence { sent: &self.sent, node: NodeId(self.exchange.node), purpose: Purpose::Boot }
    }

    fn log(&self) -> &[u8] {
        self.sent.event_log.as_ref().map_or(&[], |log| log.as_ref())
    }
}

/// What both sides of an exchange know; any values will do, but for the storage key's, which must be one.
struct Exchange {
    node: [u8; 16],
    nonce: [u8; 48],
    key: [u8; 32],
    srk: Vec<u8>,
    srk_name: Vec<u8>,
}

impl Exchange {
    fn new() -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let point = pair.public_key().as_ref();
        let srk = template::SRK.public(point[1..33].try_into()?, point[33..].try_into()?);
        let srk_name = SrkPublic::parse(&srk)?.name().to_vec();
        Ok(Self { node: [1; 16], nonce: [2; 48], key: [3; 32], srk, srk_name })
    }

    fn qualifying_data(&self) -> QualifyingData<'_> {
        QualifyingData {
            version: 1,
            node: &self.node,
            purpose: Purpose::Boot,
            nonce: &self.nonce,
            hpke_public: &self.key,
            nonce_tpm: &self.key,
            srk_name: &self.srk_name,
            purpose_data: &self.key,
        }
    }
}

/// Has a TPM that was just powered on boot as the log says, and quotes it: the public area of the AK, and the evidence.
fn quoted(tpm: &Tpm, log: &[u8], exchange: &Exchange) -> (Vec<u8>, Evidence) {
    tpm.replay(&read(log), &[BANK]);
    let (quote, signature) = tpm.quote(BANK, &exchange.qualifying_data().digest());
    let sent = Evidence {
        version: 1,
        node_id: String::new(),
        purpose: "boot".to_owned(),
        nonce: exchange.nonce.into(),
        hpke_public: exchange.key.into(),
        nonce_tpm: exchange.key.into(),
        purpose_data: exchange.key.into(),
        quote: quote.into(),
        signature: signature.into(),
        bank: BANK.name().to_owned(),
        pcrs: tpm.pcrs(BANK),
        event_log: None,
        systemd_log: None,
        ima_log: None,
        command_line: None,
        agent: "bench".to_owned(),
    };
    (tpm.register.ak_public.to_vec(), sent)
}
