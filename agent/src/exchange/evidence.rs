//! One attempt: quote what `begin` asked for, send the evidence, read the verdict.

use super::rules::Came;
use super::words;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::logs::Logs;
use crate::net;
use crate::net::client::printable;
use crate::net::race::Connection;
use crate::tpm::{Object, Tpm};
use halfkey_protocol::keys::hpke::{Ephemeral, Released};
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::wire::{self, Outcome, Purpose};
use halfkey_protocol::{Bytes, NodeId, Reason};
use std::time::Duration;

/// The verifier replays logs and writes to its disk before it answers.
const FINISH: Duration = Duration::from_secs(20);

/// Who attests, and what for.
#[derive(Clone, Copy)]
pub struct Attester<'a> {
    /// Node id, from token or registration.
    pub node: NodeId,
    /// Purpose that quote and messages name.
    pub purpose: Purpose,
    /// Name of the SRK: nameAlg and digest. Part of the qualifying data.
    pub srk_name: &'a [u8],
    /// The bank that must be quoted; none: whichever the verifier names.
    pub bank: Option<PcrBank>,
    /// Enrollments that the verifier is to choose from.
    pub enrollments: &'a [String],
}

/// What an unlocking commits to, and in part a proposal and an enrollment; empty otherwise.
#[derive(Clone, Copy, Default)]
pub struct Commitments<'a> {
    /// nonceTPM of the session that will unseal U.
    pub nonce_tpm: &'a [u8],
    /// SHA-256(r), SHA-256 of what is proposed, or which enrollment is wanted.
    pub purpose_data: &'a [u8],
}

/// An answer to evidence.
pub struct Attested {
    /// What the verifier says.
    pub verdict: wire::Verdict,
    /// The same in one word.
    pub outcome: Outcome,
    ephemeral: Ephemeral,
    qualifying: [u8; 32],
}

impl Attester<'_> {
    /// The message that opens the exchange.
    pub fn begin(&self) -> wire::Begin {
        wire::Begin {
            versions: halfkey_protocol::VERSIONS.to_vec(),
            node_id: self.node.to_string(),
            purpose: self.purpose.as_str().into(),
            enrollments: self.enrollments.to_vec(),
        }
    }

    /// Quotes and sends the evidence, once.
    ///
    /// # Errors
    /// [`Failed::Tpm`] or [`Failed::Net`]: only the second can be worth another attempt.
    pub fn finish(
        &self,
        tpm: &mut Tpm,
        ak: &Object,
        connection: &Connection,
        commitments: Commitments,
        deadline: Deadline,
    ) -> std::result::Result<Attested, Failed> {
        let ephemeral = Ephemeral::generate();
        let (evidence, qualifying) =
            self.evidence(tpm, ak, &connection.begun, &ephemeral.public, commitments)?;
        let verdict: wire::Verdict =
            connection.client.post("/v1/finish", &evidence, FINISH, deadline).map_err(Failed::Net)?;
        let outcome = Outcome::parse(&verdict.outcome).ok_or_else(|| {
            let found = printable(&verdict.outcome, 32);
            Failed::Net(net::Error::Malformed(format!("expected a verdict, found '{found}'")))
        })?;
        Ok(Attested { verdict, outcome, ephemeral, qualifying })
    }

    /// The same for a proposal, which the quote commits to in place of r. Nothing is released to it, so it has no HPKE key.
    ///
    /// # Errors
    /// As [`Attester::finish`].
    pub fn propose(
        &self,
        tpm: &mut Tpm,
        ak: &Object,
        connection: &Connection,
        proposal: &Bytes,
        deadline: Deadline,
    ) -> std::result::Result<wire::Proposed, Failed> {
        let purpose_data = Hash::Sha256.digest(&[proposal]);
        let commitments = Commitments { nonce_tpm: &[], purpose_data: &purpose_data };
        let (evidence, _) = self.evidence(tpm, ak, &connection.begun, &[], commitments)?;
        let message = wire::Propose { evidence, proposal: proposal.clone() };
        connection.client.post("/v1/propose", &message, FINISH, deadline).map_err(Failed::Net)
    }

    /// The quote that `begun` asks for, the logs, and the qualifying data.
    fn evidence(
        &self,
        tpm: &mut Tpm,
        ak: &Object,
        begun: &wire::Begun,
        hpke_public: &[u8],
        commitments: Commitments,
    ) -> std::result::Result<(wire::Evidence, [u8; 32]), Failed> {
        let named = PcrBank::from_name(&begun.bank);
        let bank = match (named, self.bank) {
            (Some(named), Some(enrolled)) if named != enrolled => None,
            (named, _) => named,
        };
        let bank = bank.ok_or_else(|| {
            let expected = self.bank.map_or("sha256 or sha384", PcrBank::name);
            let found = printable(&begun.bank, 32);
            Failed::Net(net::Error::Malformed(format!("expected PCR bank {expected}, found '{found}'")))
        })?;
        let qualifying = QualifyingData {
            version: begun.version,
            node: &self.node.0,
            purpose: self.purpose,
            nonce: &begun.nonce,
            hpke_public,
            nonce_tpm: commitments.nonce_tpm,
            srk_name: self.srk_name,
            purpose_data: commitments.purpose_data,
        }
        .digest();
        let quote = tpm.quote(ak, &qualifying, bank).map_err(|e| Failed::Tpm(e.into()))?;
        // After the quote: a log may be ahead of the PCRs, never behind.
        let logs = Logs::read();
        let evidence = wire::Evidence {
            version: begun.version,
            node_id: self.node.to_string(),
            purpose: self.purpose.as_str().into(),
            nonce: begun.nonce.clone(),
            hpke_public: hpke_public.into(),
            nonce_tpm: commitments.nonce_tpm.into(),
            purpose_data: commitments.purpose_data.into(),
            quote: quote.attest.into(),
            signature: quote.signature.into(),
            bank: bank.name().into(),
            pcrs: quote.pcrs.into_iter().map(Into::into).collect(),
            event_log: logs.firmware,
            systemd_log: logs.systemd,
            ima_log: logs.ima,
            command_line: logs.command_line,
            agent: env!("CARGO_PKG_VERSION").into(),
        };
        Ok((evidence, qualifying))
    }
}

/// Why there is no verdict.
pub enum Failed {
    /// The TPM did not quote.
    Tpm(Error),
    /// The exchange failed.
    Net(net::Error),
}

impl Attested {
    /// Opens what was released to this quote.
    ///
    /// # Errors
    /// When it is missing or was sealed for another quote.
    pub fn open(&self) -> Result<Released> {
        let wrong = |what| Error::new(Kind::Network, format!("the verdict says released, {what}"));
        let sealed = self.verdict.sealed.as_ref().ok_or_else(|| wrong("and nothing is in it"))?;
        self.ephemeral
            .open(sealed, &self.qualifying)
            .ok_or_else(|| wrong("and what is in it was not sealed to this quote"))
    }

    /// What it decides in the loop.
    pub fn came(&self) -> Came {
        match self.outcome {
            Outcome::Released => Came::Answered,
            Outcome::Pending => Came::Pending,
            Outcome::Denied => Came::Denied(self.verdict.code.as_deref().and_then(Reason::from_code)),
        }
    }

    /// The refusal, for the console.
    pub fn refusal(&self) -> Error {
        words::refusal(&self.verdict)
    }
}
