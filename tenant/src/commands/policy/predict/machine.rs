//! A machine that boots the same way now: what comes before its kernel, and how its firmware is set, is taken from its last
//! released boot.

use crate::cli::PredictArgs;
use crate::documents::governed::Governed;
use crate::documents::signing::SigningContext;
use crate::documents::trial;
use crate::error::{Error, Result};
use crate::render::text::clean_short;
use crate::trust::boot::{self, Attester, Boot};
use halfkey_evidence::policy::Policy;
use halfkey_evidence::policy::rules::{self, Role};
use halfkey_protocol::NodeId;

/// The machine.
pub struct Machine {
    /// For people.
    pub label: String,
    /// Its last released boot.
    pub boot: Boot,
    /// What governs it.
    pub policy: Option<Policy>,
}

impl Machine {
    /// The one of --base; else the one of --node, or any that this workstation's key has put into --group: they boot alike, that is
    /// why they are a group.
    ///
    /// # Errors
    /// `Untrusted` when the boot of --base or --node does not pass the checks here, or another key enrolled it; as every request. `None`
    /// when there is no released boot of any of them, except of --base.
    pub fn of(signing: &SigningContext<'_>, args: &PredictArgs) -> Result<Option<Self>> {
        if let Some(node) = &args.base {
            let id = signing.node(node)?;
            let number = boot::last(&signing.client, id, "released boot", boot::released)?;
            return Self::at(signing, id, number, None).map(Some);
        }
        if let Some(node) = &args.target.node {
            let id = signing.node(node)?;
            let number = boot::find_last(&signing.client, id, boot::released)?;
            return number.map(|number| Self::at(signing, id, number, None)).transpose();
        }
        let Some(group) = &args.target.group else { return Ok(None) };
        for id in trial::members(&signing.client, group)? {
            let number = boot::find_last(&signing.client, id, boot::released);
            let at = |number| Self::at(signing, id, number, Some(group.as_str()));
            match number.and_then(|number| number.map(at).transpose()) {
                Ok(Some(machine)) => return Ok(Some(machine)),
                Ok(None) => {}
                // Another one will do.
                Err(error) => {
                    let error = trial::about_one(&signing.client, error)?;
                    signing.context.out.note(&format!("skipped as base: node {id}: {error}"));
                }
            }
        }
        Ok(None)
    }

    /// `group` is the one that it has to be in.
    fn at(signing: &SigningContext<'_>, id: NodeId, number: u64, group: Option<&str>) -> Result<Self> {
        let record = signing.client.node(id)?;
        let attester = Attester::of(id, &record, &signing.key)?;
        // Else the server, or any operator, says whose boot it is.
        attester.require_mine()?;
        let governed = Governed::fetch(signing, id)?;
        if group.is_some_and(|group| governed.group.as_deref() != Some(group)) {
            return Err(Error::untrusted(
                "nothing that this workstation's key has signed says that it is in the group",
            ));
        }
        let boot = attester.boot(&signing.client, number)?;
        // Looked at once here, so that one that does not replay is skipped.
        drop(boot.log()?);
        let effective = governed.with_trusted(&signing.client, &attester)?;
        let policy = effective.map(|effective| effective.policy().clone());
        Ok(Self { label: clean_short(attester.label(), 64), boot, policy })
    }

    /// How many images it starts before its kernel or UKI, by its own policy; none if that does not allow its boot.
    ///
    /// # Errors
    /// As [`Boot::by`].
    pub fn before(&self) -> Result<Option<usize>> {
        let Some(policy) = &self.policy else { return Ok(None) };
        let Some(running) = self.boot.by(policy)?.boot else { return Ok(None) };
        Ok(policy.boots().iter().find(|boot| boot.name == running.name).map(before))
    }
}

/// How many images a boot starts before its kernel or UKI.
pub fn before(boot: &rules::Boot) -> usize {
    boot.images.iter().take_while(|image| !matches!(image.role, Role::Uki | Role::Kernel)).count()
}

/// Any boot of a policy all of whose boots begin with the same images: then that is how its machines boot.
pub fn only_way(policy: &Policy) -> Option<&rules::Boot> {
    let (first, rest) = policy.boots().split_first()?;
    let start = |boot: &rules::Boot| boot.images[..before(boot)].to_vec();
    rest.iter().all(|boot| start(boot) == start(first)).then_some(first)
}

/// Whether Secure Boot is on where nothing says so.
///
/// # Errors
/// `Usage`: guessing wrong would give a block that no machine boots.
pub fn unknown_secure_boot() -> Error {
    Error::usage(
        "whether the machines boot with Secure Boot on decides what they measure, and is not known here",
    )
    .hint("give --secure-boot on or off, or --base NODE")
}
