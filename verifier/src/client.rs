//! JSON over HTTPS with a client certificate: the verifier asks its registrar.

use crate::Failure;
use crate::config::StateDir;
use crate::failure::with_causes;
use crate::tls::{certificates, private_key, provider, roots};
use halfkey_protocol::wire::Problem;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Largest answer, in bytes: a list of registrations.
const MAX_ANSWER: usize = 64 << 20;

/// One server.
pub struct Client {
    connector: TlsConnector,
    authority: String,
    host: ServerName<'static>,
    deadline: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The server could not be reached, or spoke nonsense.
    Unreachable(String),
    /// It refused.
    Refused(StatusCode, Problem),
}

impl Client {
    /// For `url` (`https://HOST:PORT`), with the CA and the certificate `NAME.pem`, `NAME.key` of a state folder.
    ///
    /// # Errors
    /// When a file or the URL can't be used.
    pub fn from_state(state: &StateDir, name: &str, url: &str) -> Result<Self, Failure> {
        let chain = certificates(&state.file(&format!("{name}.pem")))?;
        let key = private_key(&state.file(&format!("{name}.key")))?;
        Self::new(url, roots(state)?, Some((chain, key)))
    }

    /// For `url`, trusting `roots`.
    ///
    /// # Errors
    /// When the URL or the certificate can't be used.
    pub fn new(
        url: &str,
        roots: RootCertStore,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, Failure> {
        let failed = |e: rustls::Error| Failure::new(format!("client certificate: {e}"));
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(failed)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (host, port) = host_and_port(url)?;
        let name = ServerName::try_from(host.clone())
            .map_err(|_| Failure::new(format!("{url}: expected a host name or an address, found {host}")))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            authority: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
            host: name,
            deadline: Duration::from_secs(5),
        })
    }

    /// With another deadline per request than 5 s.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When there is no answer or a refusal.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// When there is no answer or a refusal.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Unreachable(format!("our bug: {e}")))?;
        self.ask(Method::POST, path, body).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When there is no answer or a refusal.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method, path, body);
        let (status, body) = match tokio::time::timeout(self.deadline, exchange).await {
            Ok(answer) => answer
                .map_err(|e| ClientError::Unreachable(format!("{}: {}", self.authority, with_causes(&*e))))?,
            Err(_) => {
                let what = format!("{}: no answer within {:?}", self.authority, self.deadline);
                return Err(ClientError::Unreachable(what));
            }
        };
        let nonsense = |e| ClientError::Unreachable(format!("{}: {status}: {e}", self.authority));
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(nonsense);
        }
        Err(ClientError::Refused(status, serde_json::from_slice(&body).map_err(nonsense)?))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(self.host.clone(), stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        // The connection is driven beside the request, and ends with it.
        let driver = tokio::spawn(connection);
        let talk = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
            Ok((status, body))
        };
        let answer = talk.await;
        driver.abort();
        answer
    }
}

/// Host (an IPv6 address without brackets) and port of an `https` URL.
///
/// # Errors
/// When it is none.
pub fn host_and_port(url: &str) -> Result<(String, u16), Failure> {
    let uri: Option<Uri> = url.parse().ok();
    let parts = uri.filter(|uri| uri.scheme_str() == Some("https")).and_then(|uri| {
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, uri.port_u16().unwrap_or(443)))
    });
    parts.ok_or_else(|| Failure::new(format!("expected https://HOST:PORT, found {url}")))
}
