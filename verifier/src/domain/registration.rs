//! The registrar's records.

use super::{By, Error, Result, TxView, audit, json, legible, room};
use crate::events::Event;
use crate::limit::{Room, Source};
use crate::store::RegistrationRow;
use halfkey_protocol::identity::fingerprint;
use halfkey_protocol::wire::Register;
use halfkey_protocol::{Bytes, NodeId, Reason};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far the clocks of replicas may be apart, in seconds.
pub const SKEW: u64 = 30;

/// What [`Answered::issued`] counts in, per second.
pub const TICKS: u64 = 1_000_000;

/// A TPM whose AK was activated.
#[derive(Clone, Debug, JsonSchema, Serialize, Deserialize)]
pub struct Registration {
    /// What the node sent.
    pub register: Register,
    /// The newest challenge that its TPM activated.
    pub challenge: Bytes,
    /// First.
    pub registered_at: u64,
    /// Last time that it registered.
    pub last_seen: u64,
}

/// A checked registration to be stored.
#[derive(Clone, Debug)]
pub struct NewRegistration {
    /// Derived from the EK.
    pub node: NodeId,
    /// Name of the AK.
    pub ak_name: Vec<u8>,
    /// Name of the SRK.
    pub srk_name: Vec<u8>,
    /// What the node sent.
    pub register: Register,
    /// What its TPM answered.
    pub answered: Answered,
    /// Where from.
    pub source: Source,
}

/// A TPM's answer to a challenge of the registrar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When that was made, in millionths of a second since 1970. No two of one registrar are of one time.
    pub issued: u64,
    /// What the node wants to see in its enrollment: the proof is about just this.
    pub challenge: [u8; 32],
}

/// What storing a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// A node that was not known.
    New,
    /// The same keys as before.
    Same,
    /// The SRK changed: TPM2_Clear.
    SrkChanged,
    /// Nothing: it is the last answer once more, whose own answer got lost.
    Again,
}

/// One registration.
///
/// # Errors
/// When its row is damaged, or can't be read.
pub fn one(view: &TxView<'_>, node: NodeId) -> Result<Option<Registration>> {
    let read = |row: RegistrationRow| {
        let register = serde_json::from_str(&row.register);
        Ok(Registration {
            register: register.map_err(|e| Error::damaged(format!("registration: {e}")))?,
            challenge: row.challenge.into(),
            registered_at: row.registered_at,
            last_seen: row.last_seen,
        })
    };
    view.rows.registration(node)?.map(read).transpose()
}

/// Stores what was activated, with the challenge that came with the answer. Where `room` among the records that no tenant enrolled is
/// full, some of them go.
///
/// # Errors
/// `AkChanged` (the EK has another AK), `Activation` (a later challenge was answered already), `RateLimited` (there is no room, and
/// none can be made).
pub fn save(view: &TxView<'_>, new: &NewRegistration, room: &Room, now: u64) -> Result<Saved> {
    // One that can't be read is written anew: whoever damages it must not keep the machine from registering.
    let (known, damage) = legible(view.rows.registration(new.node).map_err(Error::from))?;
    let (saved, detail) = match &known {
        Some(known) if known.ak_name != new.ak_name => {
            let what = format!("node {} is registered with another attestation key", new.node);
            return Err(Error::Refused(Reason::AkChanged, what));
        }
        // It is over all that was sent: there is nothing to write.
        Some(known) if is_again(&new.answered, known) => return Ok(Saved::Again),
        Some(known) if !is_newer(&new.answered, known, now) => {
            let what = format!("node {}: a later challenge was answered already", new.node);
            return Err(Error::Refused(Reason::Activation, what));
        }
        Some(known) if known.srk_name == new.srk_name => (Saved::Same, None),
        Some(_) => (Saved::SrkChanged, Some("storage key changed: the TPM was cleared".to_owned())),
        None if damage.is_some() => (Saved::Same, None),
        None => {
            room::make(view, room, now)?;
            (Saved::New, Some(format!("EK {}", fingerprint(&new.register.ek_public))))
        }
    };
    // A tenant may have enrolled what can't be read.
    let kept = known.as_ref().map_or(damage.is_some(), |known| known.kept);
    view.rows.put_registration(&RegistrationRow {
        node: new.node,
        ak_name: new.ak_name.clone(),
        srk_name: new.srk_name.clone(),
        label: new.register.label.clone(),
        source: new.source.host().to_string(),
        challenge: new.answered.challenge.to_vec(),
        issued: new.answered.issued,
        registered_at: known.as_ref().map_or(now, |known| known.registered_at),
        last_seen: now,
        kept,
        register: json(&new.register)?,
    })?;
    view.emit(Event::NodeChanged(new.node));
    if let Some(detail) = detail {
        let label = &new.register.label;
        let detail = format!("{label:?}: {detail}");
        let (by, node) = (By { actor: "node", now }, Some(new.node));
        match kept {
            // It proved that it is a TPM that a tenant enrolled.
            true => audit::append(view, by, "register", node, &detail)?,
            false => audit::count(view, by, "register", &new.source.site(), node, &detail)?,
        }
    }
    Ok(saved)
}

/// Whether this is the last answer once more.
fn is_again(answered: &Answered, last: &RegistrationRow) -> bool {
    answered.issued == last.issued && last.challenge == answered.challenge
}

/// Whether this answers a later challenge of the registrar than the last answer.
/// One that was made in the future, by a clock that was ahead, is not what the next is measured by.
fn is_newer(answered: &Answered, last: &RegistrationRow, now: u64) -> bool {
    let ahead = now.saturating_add(SKEW).saturating_mul(TICKS);
    last.issued > ahead || answered.issued > last.issued
}

/// A tenant enrolled it: it never expires.
///
/// # Errors
/// `UnknownNode`.
pub fn keep(view: &TxView<'_>, node: NodeId) -> Result<()> {
    if !view.rows.keep_registration(node)? {
        return Err(Error::Refused(Reason::UnknownNode, format!("node {node} is not registered")));
    }
    view.emit(Event::NodeChanged(node));
    Ok(())
}
