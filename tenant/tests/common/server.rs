//! A server that says what a test wants it to say, over real TLS with client certificates.

use halfkey_testkit::pki::{Leaf, Pki};
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use serde::Serialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
    pub client: CertificateDer<'static>,
}

/// Status and body.
pub type Answer = (u16, Vec<u8>);

pub fn json<T: Serialize>(value: &T) -> Answer {
    (200, serde_json::to_vec(value).unwrap())
}

pub fn problem(status: u16, code: &str, message: &str, hint: Option<&str>) -> Answer {
    let problem = serde_json::json!({"code": code, "message": message, "hint": hint});
    (status, problem.to_string().into_bytes())
}

/// Runs until the test process ends.
pub struct Server {
    pub port: u16,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// With a certificate for 127.0.0.1, asking for the operator's.
    pub fn start(pki: &Pki, handle: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(&pki.server("127.0.0.1"), pki, &[&rustls::version::TLS13], handle)
    }

    pub fn with(
        leaf: &Leaf,
        clients: &Pki,
        versions: &[&'static SupportedProtocolVersion],
        handle: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(clients.ca_der.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (config, handle) = (Arc::new(config), Arc::new(handle));
        let record = seen.clone();
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, handle, record) = (config.clone(), handle.clone(), record.clone());
                thread::spawn(move || serve(tcp, config, &record, &*handle));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// `METHOD path` of what was asked, in order.
    pub fn asked(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|r| format!("{} {}", r.method, r.path)).collect()
    }
}

/// One request, one answer, close. `None` when the other side goes away first.
fn serve(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    seen: &Mutex<Vec<Request>>,
    handle: &dyn Fn(&Request) -> Answer,
) -> Option<()> {
    let tls = ServerConnection::new(config).ok()?;
    let mut reader = BufReader::new(StreamOwned::new(tls, tcp));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (method, rest) = line.split_once(' ')?;
    let path = rest.split(' ').next()?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let client = reader.get_ref().conn.peer_certificates()?.first()?.clone().into_owned();
    let request = Request { method: method.to_owned(), path, body, client };
    seen.lock().ok()?.push(request.clone());
    let (status, body) = handle(&request);
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let stream = reader.get_mut();
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()?;
    stream.conn.send_close_notify();
    stream.flush().ok()
}
