//! Requests to the servers of the bundle: TLS 1.3, the bundle's CA and nothing else,
//! the operator's certificate, a limit on every wait and every answer.

mod policies;
pub mod resolve;
pub mod scope;
pub mod wait;

use crate::error::{Error, Exit, Result};
use crate::home::bundle::Bundle;
use crate::render::text::clean;
use halfkey_protocol::NodeId;
use halfkey_protocol::wire::operator::{
    AuditList, Because, Deny, Enroll, EvidenceList, EvidenceRecord, NodeList, NodeRecord, ServerInfo,
    query_value,
};
use halfkey_protocol::wire::{Problem, SignedDocument};
use rustls::{AlertDescription, CertificateError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// An answer may be this large: three logs of [`halfkey_protocol::MAX_LOG`] in base64, or
/// some ten thousand nodes.
const MAX_ANSWER: u64 = 16 << 20;

/// Nodes that a list may have: more than a verifier can serve.
const MAX_NODES: usize = 200_000;

/// How long to try to connect to one server before the next.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a server may hold a request for news open. The protocol's limit is 25.
pub const HOLD: Duration = Duration::from_secs(25);

/// The operator API of one verifier, at one or more URLs.
///
/// # Errors
/// Those of every request: `Unreachable` when no server answers in time, or none can work at the moment; `Untrusted` when a server's
/// certificate, or whom or what its answer is about, does not pass the checks here; `NotFound` when there is no such record; `Failed`
/// when a server refuses, with its reason, or its answer can't be read.
pub struct Client {
    agent: ureq::Agent,
    servers: Vec<String>,
    timeout: Duration,
}

impl Client {
    /// A client for the servers of this bundle.
    ///
    /// # Errors
    /// When the bundle's certificates can't be used.
    pub fn new(bundle: &Bundle, timeout: Duration) -> Result<Self> {
        let ca = bundle.ca_der()?;
        // Checked to fit together there: ureq itself would panic over a key that does not.
        let (chain, _) = bundle.tls_identity()?;
        let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let key = PrivateKey::from_pem(bundle.key.as_bytes())
            .map_err(|_| Error::failed("the private key of the operator bundle can't be read"))?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(tls13_only()))
            .root_certs(RootCerts::new_with_certs(&[Certificate::from_der(&ca).to_owned()]))
            .client_cert(Some(ClientCert::new_with_certs(&chain, key)))
            .build();
        let agent = ureq::Agent::config_builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT.min(timeout)))
            .timeout_global(Some(timeout))
            .user_agent(concat!("halfkey/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        let servers = bundle.servers.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { agent, servers, timeout })
    }

    /// What an enrollment must say about this verifier.
    ///
    /// # Errors
    /// As every request: see [`Client`]; the same holds for the methods below.
    pub fn info(&self) -> Result<ServerInfo> {
        self.get("info", Duration::ZERO)
    }

    /// All nodes, by label, then id: page after page.
    ///
    /// # Errors
    /// As every request, or when the pages don't come to an end.
    pub fn nodes(&self) -> Result<NodeList> {
        let mut list: NodeList = self.get("nodes", Duration::ZERO)?;
        while let Some(next) = list.next.take() {
            let after = NodeId::parse(&next).filter(|_| list.nodes.len() < MAX_NODES);
            let after = after.ok_or_else(|| {
                Error::untrusted(format!(
                    "the server's list of nodes does not end: after {} nodes it goes on at `{}`",
                    list.nodes.len(),
                    clean(&next)
                ))
            })?;
            let page: NodeList = self.get(&format!("nodes?after={after}"), Duration::ZERO)?;
            if page.nodes.is_empty() {
                break;
            }
            list.nodes.extend(page.nodes);
            list.next = page.next;
        }
        list.nodes.sort_by(|a, b| (&a.label, &a.id).cmp(&(&b.label, &b.id)));
        Ok(list)
    }

    /// Some nodes that have this label, or whose id begins so.
    ///
    /// # Errors
    /// As every request.
    pub fn nodes_named(&self, name: &str) -> Result<NodeList> {
        self.get(&format!("nodes?name={}", query_value(name)), Duration::ZERO)
    }

    /// One node. The record is about that node: a server that answers with another's is refused.
    ///
    /// # Errors
    /// As every request, or when the record is another node's.
    pub fn node(&self, id: NodeId) -> Result<NodeRecord> {
        about(id, self.get(&format!("nodes/{id}"), Duration::ZERO)?)
    }

    /// Submits an enrollment.
    ///
    /// # Errors
    /// As every request.
    pub fn enroll(&self, id: NodeId, body: &Enroll) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/enrollment"), body)?)
    }

    /// Approves a pending boot.
    ///
    /// # Errors
    /// As every request.
    pub fn approve(&self, id: NodeId, approval: &SignedDocument) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/approve"), approval)?)
    }

    /// Denies a pending boot.
    ///
    /// # Errors
    /// As every request.
    pub fn deny(&self, id: NodeId, body: &Deny) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/deny"), body)?)
    }

    /// Revokes a node.
    ///
    /// # Errors
    /// As every request.
    pub fn revoke(&self, id: NodeId, body: &Because) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/revoke"), body)?)
    }

    /// Undoes a revocation.
    ///
    /// # Errors
    /// As every request.
    pub fn restore(&self, id: NodeId, restoration: &SignedDocument) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/restore"), restoration)?)
    }

    /// Denies a node's boots from now on.
    ///
    /// # Errors
    /// As every request.
    pub fn hold(&self, id: NodeId, body: &Because) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/hold"), body)?)
    }

    /// Undoes a hold.
    ///
    /// # Errors
    /// As every request.
    pub fn release(&self, id: NodeId, release: &SignedDocument) -> Result<NodeRecord> {
        about(id, self.post(&format!("nodes/{id}/release"), release)?)
    }

    /// The newest evidence of a node.
    ///
    /// # Errors
    /// As every request.
    pub fn evidence_of(&self, id: NodeId, limit: u32) -> Result<EvidenceList> {
        self.get(&format!("nodes/{id}/evidence?limit={limit}"), Duration::ZERO)
    }

    /// One record of evidence.
    ///
    /// # Errors
    /// As every request.
    pub fn evidence(&self, number: u64) -> Result<EvidenceRecord> {
        self.get(&format!("evidence/{number}"), Duration::ZERO)
    }

    /// The newest entries of the audit trail.
    ///
    /// # Errors
    /// As every request.
    pub fn audit(&self, node: Option<NodeId>, limit: u32) -> Result<AuditList> {
        let node = node.map(|id| format!("&node={id}")).unwrap_or_default();
        self.get(&format!("audit?limit={limit}{node}"), Duration::ZERO)
    }

    /// The entries after one; the server holds the request until there are some, or `hold` is over.
    ///
    /// # Errors
    /// As every request.
    pub fn audit_after(&self, node: Option<NodeId>, after: u64, hold: Duration) -> Result<AuditList> {
        let node = node.map(|id| format!("&node={id}")).unwrap_or_default();
        let hold = hold.min(HOLD);
        self.get(&format!("audit?after={after}&wait={}{node}", hold.as_secs()), hold)
    }

    fn get<T: DeserializeOwned>(&self, path: &str, hold: Duration) -> Result<T> {
        self.first_that_answers(true, |server| {
            let request = self.agent.get(format!("{server}/v1/operator/{path}")).config();
            request.timeout_global(Some(self.timeout + hold)).build().call()
        })
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).expect("wire types have a JSON form");
        self.first_that_answers(false, |server| {
            let request = self.agent.post(format!("{server}/v1/operator/{path}"));
            request.content_type("application/json").send(&body[..])
        })
    }

    /// Tries the servers in order. A request that changes something goes to the next
    /// server only if the one before can't have seen it.
    fn first_that_answers<T: DeserializeOwned>(
        &self,
        repeatable: bool,
        send: impl Fn(&str) -> std::result::Result<Answer, ureq::Error>,
    ) -> Result<T> {
        let (mut silent, mut hint) = (Vec::new(), None);
        for server in &self.servers {
            let error = match send(server).and_then(read) {
                Ok((status, body)) => return understand(server, status, &body),
                Err(error) => error,
            };
            let next = not_sent(&error) || repeatable;
            match explain(server, &error) {
                error if error.exit == Exit::Unreachable && next => {
                    silent.push(error.message);
                    hint = hint.or(error.hint);
                }
                error => return Err(error),
            }
        }
        let hint = hint.unwrap_or("is the verifier running, and may this machine connect to it?".to_owned());
        Err(Error::new(Exit::Unreachable, silent.join("\n")).hint(hint))
    }
}

type Answer = ureq::http::Response<ureq::Body>;

/// A provider without the suites of TLS 1.2 can't negotiate it.
fn tls13_only() -> rustls::crypto::CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider
}

fn read(mut answer: Answer) -> std::result::Result<(u16, Vec<u8>), ureq::Error> {
    let body = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
    Ok((answer.status().as_u16(), body))
}

fn understand<T: DeserializeOwned>(server: &str, status: u16, body: &[u8]) -> Result<T> {
    if status != 200 {
        return Err(match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => Error::from_problem(&problem),
            Err(_) => Error::new(
                if status >= 500 { Exit::Unreachable } else { Exit::Failed },
                format!("{server} answered with HTTP status {status} and no reason"),
            )
            .hint("the verifier's own log may say more; is this the URL of a halfkey verifier?"),
        });
    }
    serde_json::from_slice(body).map_err(|e| {
        Error::failed(format!("the answer of {server} could not be read: {}", clean(&e.to_string())))
            .hint("server and halfkey may be of different versions (`halfkey --version`)")
    })
}

/// Whether the request can't have reached a server.
fn not_sent(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => true,
        ureq::Error::Io(e) => e.kind() == io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn explain(server: &str, error: &ureq::Error) -> Error {
    if let Some(tls) = tls_error(error) {
        return explain_tls(server, tls);
    }
    match error {
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => {
            Error::failed(format!("the answer of {server} is larger than {MAX_ANSWER} bytes"))
                .hint("ask for less with --limit")
        }
        ureq::Error::Timeout(_) => Error::new(Exit::Unreachable, format!("{server}: no answer in time"))
            .hint("give it longer with --timeout"),
        ureq::Error::HostNotFound => Error::new(Exit::Unreachable, format!("{server}: no such host")),
        other => {
            let text = other.to_string();
            Error::new(Exit::Unreachable, format!("{server}: {}", clean(text.trim_start_matches("io: "))))
        }
    }
}

/// rustls' error, wherever on the way it got wrapped.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn explain_tls(server: &str, error: &rustls::Error) -> Error {
    match error {
        // About our certificate.
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired),
        ) => {
            Error::failed(format!("{server} does not accept the operator's certificate ({alert:?})"))
                .hint("ask for a new operator bundle and import it with `halfkey login BUNDLE`")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Error::untrusted(format!("the certificate of {server} is not for this name"))
            .hint("`halfkey-verifier init --san NAME` decides which names it is for"),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Error::untrusted(format!("the certificate of {server} is not valid at this time"))
            .hint("is this machine's clock right?"),
        rustls::Error::InvalidCertificate(_) => {
            Error::untrusted(format!("{server} is not the verifier of the operator bundle: its certificate is not from the bundle's CA"))
                .hint("someone else may be answering at this address; nothing was sent. If the verifier was set up anew, import its new bundle")
        }
        other => Error::untrusted(format!("{server}: no TLS 1.3 connection ({})", clean(&other.to_string())))
            .hint("is this the URL of a halfkey verifier?"),
    }
}

fn about(id: NodeId, record: NodeRecord) -> Result<NodeRecord> {
    if record.summary.id == id.to_string() {
        return Ok(record);
    }
    Err(Error::untrusted(format!(
        "asked the server about node {id}, and it answered about {}",
        clean(&record.summary.id)
    )))
}
