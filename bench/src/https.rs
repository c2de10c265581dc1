//! Connections to a server: HTTP/1.1 over TLS 1.3, from any address of this host, kept open as long as one likes.

use crate::Result;
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Problem;
use halfkey_verifier::client::host_and_port;
use halfkey_verifier::tls::provider;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// For a connection with its handshake.
const CONNECTED: Duration = Duration::from_secs(20);
/// For an answer. A server that has ten thousand to answer takes a while.
const ANSWERED: Duration = Duration::from_secs(60);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// What `halfkey-verifier init` makes for an operator.
#[derive(Deserialize)]
pub struct Bundle {
    /// URLs, best first.
    pub servers: Vec<String>,
    ca: String,
    certificate: String,
    key: String,
}

impl Bundle {
    /// Reads one.
    ///
    /// # Errors
    /// If the file can't be read, or is something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()).into())
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// One without a certificate.
    Node,
    /// One without a certificate, that goes on with the TLS session of the connection before.
    ResumingNode,
    /// With the certificate of the bundle.
    Operator,
}

/// A server, as one of its clients sees it.
pub struct Target {
    address: SocketAddr,
    authority: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// Why there is no answer that counts.
#[derive(Debug)]
pub enum Failed {
    /// The connection, or the answer, did not come.
    Lost(String),
    /// The server refused.
    Refused(Problem),
}

impl Failed {
    /// One word, to count by.
    pub fn word(&self) -> &str {
        match self {
            Self::Lost(_) => "lost",
            Self::Refused(problem) => &problem.code,
        }
    }

    /// Whether a machine asks again.
    pub fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused(problem) => Reason::from_code(&problem.code).is_some_and(Reason::retry),
        }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "no answer: {what}"),
            Self::Refused(problem) => write!(f, "refused: {}: {}", problem.code, problem.message),
        }
    }
}

impl std::error::Error for Failed {}

impl Target {
    /// The server at this URL, for this client of the bundle.
    ///
    /// # Errors
    /// If bundle or URL can't be used, or nobody knows the host.
    pub fn new(url: &str, bundle: &Bundle, client: Client) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.ca.as_bytes()) {
            roots.add(certificate?)?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match client {
            Client::Node | Client::ResumingNode => builder.with_no_client_auth(),
            Client::Operator => {
                let chain = CertificateDer::pem_slice_iter(bundle.certificate.as_bytes());
                let chain = chain.collect::<std::result::Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(bundle.key.as_bytes())?)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if client != Client::ResumingNode {
            config.resumption = Resumption::disabled();
        }
        let (host, port) = host_and_port(url).map_err(|e| e.to_string())?;
        let address = (host.as_str(), port).to_socket_addrs()?.next();
        Ok(Self {
            address: address.ok_or_else(|| format!("{host}: expected an address, found none"))?,
            authority: url.trim_start_matches("https://").trim_end_matches('/').to_owned(),
            name: ServerName::try_from(host)?,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A new connection, from this address if the server is on this host.
    ///
    /// # Errors
    /// [`Failed::Lost`].
    pub async fn connect(&self, from: Ipv4Addr) -> std::result::Result<Connection, Failed> {
        let connected = timeout(CONNECTED, self.try_connect(from)).await;
        let connected = connected.map_err(|_| Failed::Lost("no connection in time".to_owned()))?;
        connected.map_err(|e| Failed::Lost(e.to_string()))
    }

    async fn try_connect(&self, from: Ipv4Addr) -> Result<Connection> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if self.address.is_ipv4() && self.address.ip().is_loopback() {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, driver, authority: self.authority.clone() })
    }
}

/// One connection; closed on drop.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    authority: String,
}

impl Connection {
    /// `GET path`.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> std::result::Result<T, Failed> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// `POST path`, with this as JSON.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        message: &impl Serialize,
    ) -> std::result::Result<T, Failed> {
        let body = serde_json::to_vec(message).map_err(|e| Failed::Lost(e.to_string()))?;
        self.ask(Method::POST, path, body).await
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> std::result::Result<T, Failed> {
        let answer = timeout(ANSWERED, self.exchange(method, path, body)).await;
        let answer = answer.map_err(|_| Failed::Lost("no answer in time".to_owned()))?;
        let (is_success, body) = answer.map_err(|e| Failed::Lost(e.to_string()))?;
        let nonsense = |e: serde_json::Error| Failed::Lost(format!("an answer that is none: {e}"));
        match is_success {
            true => serde_json::from_slice(&body).map_err(nonsense),
            false => Err(Failed::Refused(serde_json::from_slice(&body).map_err(nonsense)?)),
        }
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<(bool, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let is_success = answer.status().is_success();
        Ok((is_success, Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
