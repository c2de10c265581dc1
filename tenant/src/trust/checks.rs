//! What is checked here, whatever the server says. The proof types can't be built elsewhere.

use crate::error::{Error, Result};
use crate::home::bundle::{Bundle, check_url, single_certificate};
use crate::home::{Home, ReleasePin};
use crate::output::Out;
use crate::render::text::{clean, clean_short};
use crate::render::time;
use crate::trust::roots;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use halfkey_evidence::ek::{self, TrustedEk};
use halfkey_evidence::registration::{self, CheckedRegistration};
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::Register;
use halfkey_protocol::wire::operator::{NodeRecord, ServerInfo};
use halfkey_protocol::{Bytes, MAX_SERVERS, NodeId, identity};
use std::path::Path;

/// Checks a record's registration: templates, certification, and that the id is this EK's.
///
/// # Errors
/// `Untrusted`, with the check that failed; `Failed` when there is none.
pub fn registration(id: NodeId, record: &NodeRecord) -> Result<CheckedRegistration> {
    let checked = registration::check(registered(id, record)?)
        .map_err(|e| Error::from(e).context(format!("the registration of node {id} is not valid")))?;
    if checked.node_id() != id {
        return Err(Error::untrusted(format!(
            "the server shows another TPM for node {id}: its EK belongs to node {}",
            checked.node_id()
        ))
        .hint("a node's id is derived from its EK, so this record was altered; do not enroll it"));
    }
    Ok(checked)
}

fn registered(id: NodeId, record: &NodeRecord) -> Result<&Register> {
    record.registration.as_ref().ok_or_else(|| {
        Error::failed(format!("node {id} is not registered"))
            .hint("run `halfkey-agent enroll` on the machine")
    })
}

/// What the node wants to see in its enrollment. Another one is refused by the node, so nothing is to be gained by a lie.
///
/// # Errors
/// `Failed` when the server shows none.
pub fn challenge(record: &NodeRecord) -> Result<[u8; 32]> {
    record.challenge.array().ok_or_else(|| {
        let length = record.challenge.len();
        Error::failed(format!(
            "expected a challenge of the node of 32 bytes, the server shows {length} bytes"
        ))
        .hint("run `halfkey-agent enroll` on the machine; and its registrar must answer")
    })
}

/// Why the operator believes an EK.
#[derive(Clone, Copy)]
pub enum EkTrust<'a> {
    /// By its certificate, with a chain to one of this folder.
    Roots(&'a Path),
    /// By this fingerprint, which was compared with the machine's console.
    Fingerprint(&'a str),
}

/// Decides whether the EK is believed.
///
/// # Errors
/// `Untrusted` when it is not; `Usage` when the folder of roots can't be used.
pub fn trusted_ek(
    checked: &CheckedRegistration,
    record: &NodeRecord,
    trust: EkTrust<'_>,
    out: &Out,
) -> Result<TrustedEk> {
    let trusted = match trust {
        EkTrust::Roots(folder) => {
            let folder = roots::read(folder)?;
            for (path, why) in &folder.skipped {
                out.note(&format!("skipped {}: {why}", path.display()));
            }
            folder.roots.verify(checked, registered(checked.node_id(), record)?, time::now())?
        }
        EkTrust::Fingerprint(typed) => ek::pin(checked, typed).map_err(|e| {
            Error::from(e)
                .hint("if the console shows another fingerprint than the server, do not enroll this node")
        })?,
    };
    if trusted.node_id() != checked.node_id() {
        return Err(Error::untrusted("the trust in the EK is for another node"));
    }
    Ok(trusted)
}

/// Proof: this verifier's release key, CA and URLs may go into an enrollment.
pub struct CheckedServer {
    /// `TPMT_PUBLIC` of the release key, of the exact template.
    pub release_public: Bytes,
    /// The CA of the operator's own bundle, PEM.
    pub ca: String,
    /// URLs for the nodes.
    pub servers: Vec<String>,
    ca_fingerprint: String,
}

/// Checks what the server says of itself against the bundle and against earlier enrollments.
///
/// # Errors
/// `Untrusted` when the CA is not the bundle's, or the release key is not the one of before
/// (unless `trust_release` names it) or no such key at all.
pub fn server(
    home: &Home,
    bundle: &Bundle,
    info: ServerInfo,
    trust_release: Option<&str>,
) -> Result<CheckedServer> {
    if single_certificate(&info.ca) != Some(bundle.ca_der()?) {
        return Err(Error::untrusted(
            "the server wants nodes to pin another CA than that of the operator bundle",
        )
        .hint("if the verifier was set up anew, import its new bundle with `halfkey login`"));
    }
    let (x, y) = template::RELEASE
        .point(&info.release_public)
        .ok_or_else(|| Error::untrusted("the server's release key is not the key that its template makes"))?;
    let point = [&[4][..], &x, &y].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .map_err(|_| Error::untrusted("the server's release key is not a point on P-256"))?;
    if info.servers.is_empty() || info.servers.len() > MAX_SERVERS {
        return Err(Error::untrusted(format!(
            "expected 1 to {MAX_SERVERS} URLs for the nodes, the server names {}",
            info.servers.len()
        )));
    }
    for url in &info.servers {
        check_url(url)
            .map_err(|e| Error::untrusted(format!("a URL that the server names for the nodes: {e}")))?;
    }
    let ca_fingerprint = bundle.ca_fingerprint()?;
    let named = |typed| identity::fingerprint_matches(typed, &info.release_public);
    match (home.release_pin(&ca_fingerprint, &info.release_public)?, trust_release) {
        (_, Some(typed)) if !named(typed) => {
            return Err(Error::untrusted(format!(
                "the server's release key is {}, not {}",
                identity::fingerprint(&info.release_public),
                clean_short(typed, 80)
            )));
        }
        (ReleasePin::Changed(before), None) => {
            return Err(Error::untrusted(format!(
                "the release key of this server changed\n  before  {}\n  now     {}",
                clean(&before),
                identity::fingerprint(&info.release_public)
            ))
            .hint(
                "ask who runs the verifier, on another way than through it; if the key was replaced on purpose, \
                 give the fingerprint that they tell you with --trust-release",
            ));
        }
        _ => {}
    }
    // The bundle's text, not the server's: PEM may carry more than the certificate.
    Ok(CheckedServer {
        release_public: info.release_public,
        ca: bundle.ca.clone(),
        servers: info.servers,
        ca_fingerprint,
    })
}

impl CheckedServer {
    /// Remembers the release key: from now on another one is refused.
    ///
    /// # Errors
    /// When the home folder can't be written.
    pub fn pin(&self, home: &Home) -> Result<()> {
        home.pin_release(&self.ca_fingerprint, &self.release_public)
    }
}
