//! A boot that waits, by what its TPM quoted: what a server says of it is not what is shown, and not what is approved.

use crate::documents::governed::Governed;
use crate::documents::signing::SigningContext;
use crate::error::{Error, Exit, Result};
use crate::render::text::{clean, clean_short};
use crate::trust::boot::{Attester, Boot};
use halfkey_evidence::appraise::no_log;
use halfkey_protocol::wire::operator::{NodeRecord, PendingBoot};
use halfkey_protocol::wire::policies::Finding;
use halfkey_protocol::{NodeId, Reason};

/// Proof: the node that this workstation enrolled quoted this boot, and it is the one that the server says waits.
pub struct WaitingBoot {
    boot: Boot,
    shown: PendingBoot,
    label: String,
}

impl WaitingBoot {
    /// Fetches the evidence of the boot that waits and checks it by the AK that this workstation enrolled. `typed` is NODE as the operator
    /// named it.
    ///
    /// # Errors
    /// `Untrusted` when the enrollment is not by this workstation's key or has not that label, when the evidence does not pass the checks, or
    /// when it is of another boot than the server says; as every request.
    pub fn fetch(
        signing: &SigningContext<'_>,
        typed: &str,
        id: NodeId,
        record: &NodeRecord,
        said: &PendingBoot,
    ) -> Result<Self> {
        let attester = Attester::of(id, record, &signing.key)?;
        attester.require_mine()?;
        let boot = attester.boot(&signing.client, said.evidence_id)?;
        require_same(&boot, said)?;
        // Of the boot the attester says which node's it is; of the label nobody has said anything yet.
        if signing.node(typed)? != id {
            return Err(Error::untrusted(format!(
                "the server said that this boot is of node {id}, and now that the node is another"
            ))
            .hint("name it by its id"));
        }
        let (code, message, findings) = against(signing, &attester, &boot, said)?;
        let shown = PendingBoot {
            ticket: boot.ticket().to_string(),
            evidence_id: boot.number(),
            code,
            message,
            approvable: true,
            findings,
            since: said.since,
            expires: said.expires,
        };
        Ok(Self { boot, shown, label: attester.label().to_owned() })
    }

    /// Its evidence.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// What an operator is shown. Since when and until when it waits is the server's word.
    pub fn shown(&self) -> &PendingBoot {
        &self.shown
    }

    /// The node's record, by the label that it was enrolled with.
    pub fn labelled(&self, record: &NodeRecord) -> NodeRecord {
        let mut record = record.clone();
        record.summary.label.clone_from(&self.label);
        record
    }
}

fn require_same(boot: &Boot, said: &PendingBoot) -> Result<()> {
    let (ticket, number) = (boot.ticket(), boot.number());
    if ticket.as_str() == said.ticket {
        return Ok(());
    }
    Err(Error::untrusted(format!(
        "evidence {number} is not of the boot that the server says waits\n  waits     boot {}\n  evidence  boot {ticket}",
        clean_short(&said.ticket, 64)
    ))
    .hint("nothing was approved; somebody may have changed the verifier's database to have another boot approved than the one it shows"))
}

/// Why it waits, as far as this workstation can tell by what it has signed.
fn against(
    signing: &SigningContext<'_>,
    attester: &Attester,
    boot: &Boot,
    said: &PendingBoot,
) -> Result<(String, String, Vec<Finding>)> {
    let kept = match boot.log() {
        Ok(_) => true,
        // There is none; one that is not of the quote is another matter.
        Err(error) if error.exit == Exit::NotFound => false,
        Err(error) => return Err(error),
    };
    let governed = Governed::fetch(signing, attester.id())?;
    let (Some(effective), Some(own)) = (governed.with_trusted(&signing.client, attester)?, &governed.policy)
    else {
        let why = Reason::NoPolicy;
        return Ok((why.code().to_owned(), why.summary().to_owned(), Vec::new()));
    };
    let by = format!("{} version {}", own.scope(), own.version());
    let findings = if kept {
        boot.by(effective.policy())?.findings
    } else {
        vec![no_log("none: the machine keeps none, or the verifier no longer does")]
    };
    let why = Reason::PolicyMismatch;
    Ok(match findings.len() {
        0 => {
            let here = format!("{by} allows it, as this workstation sees it");
            (said.code.clone(), format!("{here}; the server says: {}", clean(&said.message)), findings)
        }
        1 => (why.code().to_owned(), format!("{}: {by}, 1 finding", why.summary()), findings),
        count => (why.code().to_owned(), format!("{}: {by}, {count} findings", why.summary()), findings),
    })
}
