//! One message to one endpoint. Nothing of the answer but its status is looked at, and no redirect is followed: it would lead what is
//! signed for one to another.

use super::secret::Secret;
use super::settings::WebhookSettings;
use crate::Failure;
use crate::tls::{certificates, provider};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Where distributions keep the CAs that the system trusts: Debian, Fedora, SUSE.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// An endpoint, ready to be told something.
pub struct Endpoint {
    name: String,
    secret: Secret,
    /// Host, or address without brackets, and port.
    host: String,
    port: u16,
    /// The `Host` of requests.
    authority: String,
    path: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    deadline: Duration,
    queue: u64,
    /// Held while its host is looked up.
    lookup: Arc<Mutex<()>>,
}

impl Endpoint {
    /// As the settings say.
    ///
    /// # Errors
    /// When secret, URL or certificates can't be used.
    pub fn open(settings: &WebhookSettings) -> Result<Self, Failure> {
        let name = &settings.name;
        let named = |e: Failure| Failure::new(format!("webhook {name}: {e}"));
        let refused = |what: &str| named(Failure::new(what));
        let uri: Uri = settings.url.parse().map_err(|_| refused(EXPECTED))?;
        let authority = uri.authority().ok_or_else(|| refused(EXPECTED))?;
        if authority.as_str().contains('@') {
            return Err(refused("expected a URL without a user, found one with it"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (port, tls) = match uri.scheme_str() {
            Some("https") => (443, Some(connector(settings, &host).map_err(named)?)),
            Some("http") if is_here(&host) => (80, None),
            _ => return Err(refused(EXPECTED)),
        };
        Ok(Self {
            name: name.clone(),
            secret: Secret::load(&settings.secret_file).map_err(named)?,
            port: authority.port_u16().unwrap_or(port),
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            host,
            tls,
            deadline: Duration::from_secs(settings.deadline_seconds),
            queue: settings.queue,
            lookup: Arc::default(),
        })
    }

    /// What logs and metrics call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From a message to its answer.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Most messages that wait.
    pub fn queue(&self) -> u64 {
        self.queue
    }

    /// Sends a message at this time, in seconds since 1970.
    ///
    /// # Errors
    /// Why it may not have been taken: there was no answer in time, or another status than 2xx.
    pub async fn tell(&self, message: &str, now: u64, body: &str) -> Result<(), String> {
        let exchange = async {
            let addresses = self.addresses().await?;
            let stream = TcpStream::connect(&addresses[..]).await.map_err(|e| e.to_string())?;
            match &self.tls {
                None => self.exchange(stream, message, now, body).await,
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), stream).await.map_err(|e| e.to_string())?;
                    self.exchange(stream, message, now, body).await
                }
            }
        };
        let none = |_| Err(format!("no answer within {:?}", self.deadline));
        tokio::time::timeout(self.deadline, exchange).await.unwrap_or_else(none)
    }

    /// Looked up one at a time, on a thread that nobody else needs: a name server that does not answer keeps it for longer than any
    /// deadline, and those of the runtime are for boots.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let turn = self.lookup.clone().lock_owned().await;
        let (host, port) = (self.host.clone(), self.port);
        let (tell, told) = oneshot::channel();
        let look = move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Who asked may have given up, and the next waits all the same.
            let _ = tell.send(found.map_err(|e| e.to_string()));
            drop(turn);
        };
        let thread = std::thread::Builder::new().name("webhook host".to_owned());
        thread.spawn(look).map_err(|e| e.to_string())?;
        told.await.map_err(|_| "the host was not looked up".to_owned())?
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        message: &str,
        now: u64,
        body: &str,
    ) -> Result<(), String> {
        let failed = |e: hyper::Error| e.to_string();
        let request = Request::post(&self.path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .header("user-agent", concat!("halfkey-verifier/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", message)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.secret.sign(message, now, body))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| e.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        // The connection is driven beside the request, and ends with it, whatever becomes of this.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let status = sender.send_request(request).await.map_err(failed)?.status();
        if status.is_success() { Ok(()) } else { Err(format!("expected a status of 2xx, found {status}")) }
    }
}

/// What a URL is.
const EXPECTED: &str =
    "expected a URL https://HOST[:PORT]/PATH, or http:// on this host (127.0.0.1, [::1], localhost)";

fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// TLS 1.3, as everywhere here.
fn connector(settings: &WebhookSettings, host: &str) -> Result<(TlsConnector, ServerName<'static>), Failure> {
    let system = || SYSTEM_ROOTS.map(Path::new).into_iter().find(|path| path.exists());
    let Some(file) = settings.ca_file.as_deref().or_else(system) else {
        return Err(Failure::new("expected the CAs that this system trusts, found none")
            .hint("install ca-certificates, or name the CA of the endpoint by ca_file"));
    };
    let mut roots = RootCertStore::empty();
    // Of a system's list each that can be read counts.
    let (added, _) = roots.add_parsable_certificates(certificates(file)?);
    if added == 0 {
        return Err(Failure::new(format!("{}: expected a CA, found none that can be used", file.display())));
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Failure::new(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::new("expected a host name or an address in the URL"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_host_alone() {
        for (url, taken) in [
            ("http://127.0.0.1:9/x", true),
            ("http://[::1]/x", true),
            ("http://localhost/x", true),
            ("http://10.0.0.1/x", false),
            ("http://localhost.example/x", false),
            ("http://127.0.0.1@evil.example/x", false),
            ("ftp://127.0.0.1/x", false),
            ("/x", false),
            ("127.0.0.1", false),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
            let text =
                format!("name = \"x\"\nurl = \"{url}\"\nsecret_file = \"{}\"\n", file.path().display());
            let opened = Endpoint::open(&toml::from_str(&text).unwrap());
            assert_eq!(opened.is_ok(), taken, "{url}");
        }
    }
}
