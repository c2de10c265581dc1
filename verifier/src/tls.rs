//! TLS 1.3 in, and the accept loop: its own, so that the peer's address and
//! certificate reach the handlers and every step has a deadline.

use crate::config::{Config, Limits, StateDir};
use crate::current::Current;
use crate::keys::read_secret;
use crate::limit::{ConnectionTable, MeteredStream, Permit, Proved, Source, Work};
use crate::proxy::{self, Origin};
use crate::{Failure, pki};
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;
use tracing::{debug, warn};

/// Who is at the other end.
#[derive(Clone)]
pub struct Peer {
    /// Where.
    pub source: Source,
    /// [`pki::fingerprint`] of its certificate, which the CA signed.
    pub certificate: Option<Arc<str>>,
    /// Came in where only operators do.
    pub at_operators: bool,
    permit: Arc<Permit>,
}

impl Peer {
    /// It proved something: its slot is kept.
    pub fn prove(&self, who: Proved) {
        self.permit.prove(who);
    }

    /// While what this gives lives, the server works for it.
    pub fn work(&self) -> Work {
        self.permit.work()
    }
}

/// A socket with what is served there.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// What it works by.
    pub terms: Arc<Current<Terms>>,
    /// Places.
    pub table: Arc<ConnectionTable>,
    /// What is served.
    pub router: Router,
    /// For operators alone.
    pub for_operators: bool,
}

/// What a listener works by: for each connection as it is then.
pub struct Terms {
    /// Certificate, key and whose certificates are asked for.
    tls: Arc<ServerConfig>,
    /// Who says where the connections come from that it hands on.
    proxies: Vec<IpAddr>,
    /// How long each step takes at most.
    limits: Limits,
}

impl Terms {
    /// As files and settings say. For operators alone a client certificate is demanded.
    ///
    /// # Errors
    /// When certificate, key or CA can't be used.
    pub fn of(state: &StateDir, config: &Config, for_operators: bool) -> Result<Self, Failure> {
        Ok(Self {
            tls: server_config(state, for_operators)?,
            // As the kernel gives them when IPv4 comes in at an IPv6 socket, too.
            proxies: config.proxy_from.iter().map(|proxy| proxy.to_canonical()).collect(),
            limits: config.limits.clone(),
        })
    }
}

/// The one provider; no process-wide default is relied on.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// When the file can't be read or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let failed = |what: String| Failure::new(format!("{}: {what}", path.display()));
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|e| failed(e.to_string()))?;
    if found.is_empty() {
        return Err(failed("expected a certificate, found none".into()));
    }
    Ok(found)
}

/// The private key of a PEM file that only its owner can read.
///
/// # Errors
/// When the file can't be read, is open to others, or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let text = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

/// The CA of a state folder.
///
/// # Errors
/// When it can't be read.
pub fn roots(state: &StateDir) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&state.ca())? {
        roots.add(certificate).map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
    }
    Ok(roots)
}

/// TLS 1.3 only. A client certificate is asked for, and optional unless it is demanded; one of another CA ends the handshake.
fn server_config(state: &StateDir, demanded: bool) -> Result<Arc<ServerConfig>, Failure> {
    let failed = |e: rustls::Error| Failure::new(format!("server.pem and server.key: {e}"));
    let clients = WebPkiClientVerifier::builder_with_provider(roots(state)?.into(), provider());
    let clients = if demanded { clients } else { clients.allow_unauthenticated() }
        .build()
        .map_err(|e| Failure::new(format!("{}: {e}", state.ca().display())))?;
    let chain = certificates(&state.file("server.pem"))?;
    let key = private_key(&state.file("server.key"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each attestation is one connection: tickets would only cost memory and bytes.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves until `stop` is ready, then lets requests in flight end, for a bounded time.
pub async fn serve(door: Door, stop: impl Future<Output = ()>) {
    let Door { listener, terms, table, router, for_operators } = door;
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    warn!(error = %e, "a connection could not be accepted");
                    // Out of file descriptors: accepting again at once would spin.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let source = Source::from(address.ip());
        // Whoever comes gets a slot: waiting for one to become free would be up to those who hold them.
        let Some(permit) = table.admit(source) else {
            debug!(source = %source.address(), "no slot for a connection");
            continue;
        };
        let permit = Arc::new(permit);
        let terms = terms.get();
        let proxied = terms.proxies.contains(&source.address());
        let guest = Guest { permit: permit.clone(), router: router.clone(), proxied, for_operators };
        let connection = guest.serve(stream, terms.tls.clone().into(), &terms.limits, graceful.watcher());
        tokio::spawn(async move {
            let slot = permit.slot().clone();
            drop(permit);
            tokio::select! {
                () = connection => {}
                () = slot.leave() => debug!(source = %source.address(), "a connection made room for another"),
            }
        });
    }
    drop(listener);
    let within = std::time::Duration::from_secs(terms.get().limits.shutdown_seconds);
    if timeout(within, graceful.shutdown()).await.is_err() {
        warn!("requests in flight did not end in time");
    }
}

/// A connection that was given a slot.
struct Guest {
    permit: Arc<Permit>,
    router: Router,
    /// It begins with a header that says where it comes from.
    proxied: bool,
    for_operators: bool,
}

impl Guest {
    fn serve(
        self,
        mut stream: TcpStream,
        acceptor: TlsAcceptor,
        limits: &Limits,
        watcher: Watcher,
    ) -> impl Future<Output = ()> + use<> {
        let (handshake, header) = (limits.handshake(), limits.header());
        let Self { permit, router, proxied, for_operators } = self;
        async move {
            if proxied {
                let proxy = permit.slot().source().address();
                match timeout(handshake, proxy::read(&mut stream)).await {
                    Ok(Ok(Origin::Local)) => {}
                    Ok(Ok(Origin::Peer(address))) => permit.comes_from(address.into()),
                    Ok(Err(e)) => return warn!(%proxy, error = %e, "a proxy's header was refused"),
                    Err(_) => return warn!(%proxy, "a proxy did not send a header in time"),
                }
            }
            let source = permit.slot().source();
            // Answers are small and complete: waiting for more would only delay them.
            let _ = stream.set_nodelay(true);
            let stream = MeteredStream::new(stream, permit.slot().clone());
            let stream = match timeout(handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => return debug!(source = %source.address(), error = %e, "tls handshake failed"),
                Err(_) => return debug!(source = %source.address(), "tls handshake took too long"),
            };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = certificate.map(|leaf| Arc::from(pki::fingerprint(leaf)));
            let peer = Peer { source, certificate, at_operators: for_operators, permit };
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(peer.clone());
                router.clone().call(request.map(Body::new))
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(header)
                .max_headers(64)
                .max_buf_size(32 << 10)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(e) = watcher.watch(served).await {
                debug!(source = %source.address(), error = %e, "connection ended early");
            }
        }
    }
}
