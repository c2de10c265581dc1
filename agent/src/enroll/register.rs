//! Registration: the TPM introduces itself, with the challenge of this enrollment. Repeating it changes nothing.

use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::exchange::repeat::until_answered;
use crate::net::{Client, Server};
use crate::timing::Timeline;
use crate::tpm::{Ek, Object, Tpm};
use halfkey_protocol::keys::half::activation_proof;
use halfkey_protocol::{NodeId, VERSIONS, wire};
use rustls::ClientConfig;
use std::sync::Arc;

/// The three keys that make a node.
pub struct Keys {
    /// Endorsement key.
    pub ek: Ek,
    /// Attestation key.
    pub ak: Object,
    /// Storage key.
    pub srk: Object,
}

impl Keys {
    /// Finds or recreates them.
    ///
    /// # Errors
    /// What the TPM says.
    pub fn of(tpm: &mut Tpm) -> Result<Self> {
        Ok(Self { ek: tpm.endorsement_key()?, ak: tpm.attestation_key()?, srk: tpm.storage_key(None)? })
    }

    /// The node id: derived here and not taken from the server.
    pub fn node(&self) -> NodeId {
        NodeId::from_ek_name(&self.ek.object.name)
    }
}

/// Registers and activates the credential, with what this machine wants to see in its enrollment.
///
/// # Errors
/// What the registrar, the network or the TPM says.
pub fn register(
    tpm: &mut Tpm,
    keys: &Keys,
    challenge: &[u8; 32],
    registrar: &Server,
    tls: Arc<ClientConfig>,
    timeline: &Timeline,
    deadline: Deadline,
) -> Result<()> {
    let client = Client::new(registrar.clone(), tls, timeline.clone());
    let certification = tpm.certify_storage_key(&keys.srk, &keys.ak)?;
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let request = wire::Register {
        versions: VERSIONS.to_vec(),
        ek_public: keys.ek.object.public.clone().into(),
        ek_certificate: keys.ek.certificate.clone().map(Into::into),
        ek_chain: keys.ek.chain.iter().cloned().map(Into::into).collect(),
        ak_public: keys.ak.public.clone().into(),
        srk_public: keys.srk.public.clone().into(),
        certify_info: certification.info.into(),
        certify_signature: certification.signature.into(),
        label: host,
    };
    let node = keys.node();
    let registered: wire::Registered = until_answered(&client, "/v1/register", &request, deadline)?;
    if !VERSIONS.contains(&registered.version) || registered.node_id != node.to_string() {
        return Err(Error::new(
            Kind::Network,
            format!("{registrar}: expected node id {node} and version 1, found others"),
        )
        .hint("is this server a halfkey registrar of the same release?"));
    }
    let secret = tpm.activate_with_ek(&keys.srk, &keys.ek, &keys.ak, &registered.credential)?;
    let activate = wire::Activate {
        register: request,
        state: registered.state,
        challenge: (*challenge).into(),
        proof: activation_proof(&secret, &node.0, challenge).into(),
    };
    let _: wire::Activated = until_answered(&client, "/v1/activate", &activate, deadline)?;
    Ok(())
}
