//! A TLS server that answers as a test wants.

#![allow(clippy::unwrap_used, dead_code, reason = "a test that fails here should say where")]

use halfkey_testkit::pki::{Leaf, Pki};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// From path and body to status and body.
pub type Judge = Arc<dyn Fn(&str, &[u8]) -> (u16, String) + Send + Sync>;

/// What the server does with every request.
#[derive(Clone)]
pub enum Answer {
    /// Status and body.
    Status(u16, String),
    /// 200 with this body, and the connection is closed although nothing says so.
    ThenClose(String),
    /// These bytes, then the end.
    Raw(Vec<u8>),
    /// These bytes, then the end of TCP, of which TLS says nothing.
    Cut(Vec<u8>),
    /// The first bytes, then the others again and again, for ever.
    Flood(Vec<u8>, Vec<u8>),
    /// What this makes of the path and the body.
    By(Judge),
    /// Nothing, for ever.
    Silence,
    /// One byte after the other, for ever.
    Drip,
}

/// 200.
pub fn ok(body: &str) -> Answer {
    Answer::Status(200, body.into())
}

fn config(leaf: &Leaf) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![leaf.der.clone()];
    Arc::new(config.with_no_client_auth().with_single_cert(chain, leaf.key_der()).unwrap())
}

/// A running server; ends with the test.
pub struct TestServer {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
    closed: Mutex<usize>,
    change: Condvar,
}

impl TestServer {
    /// Its certificate is for `name`; it listens on 127.0.0.1.
    pub fn start(pki: &Pki, name: &str, answer: Answer) -> Self {
        Self::serve(config(&pki.server(name)), 0, answer)
    }

    /// With a certificate that is good in these years.
    pub fn start_in(years: std::ops::Range<i32>, pki: &Pki, name: &str, answer: Answer) -> Self {
        Self::serve(config(&pki.server_in(name, years)), 0, answer)
    }

    pub fn start_at(pki: &Pki, name: &str, port: u16, answer: Answer) -> Self {
        Self::serve(config(&pki.server(name)), port, answer)
    }

    fn serve(config: Arc<ServerConfig>, port: u16, answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), counts: Arc::default() };
        let counts = server.counts.clone();
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let (config, answer, counts) = (config.clone(), answer.clone(), counts.clone());
                thread::spawn(move || {
                    let closer = tcp.try_clone().unwrap();
                    talk(tcp, config, &answer, &counts);
                    let _ = closer.shutdown(Shutdown::Both);
                    *counts.closed.lock().unwrap() += 1;
                    counts.change.notify_all();
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Until the first connection is closed.
    pub fn wait_until_closed(&self) {
        let mut closed = self.counts.closed.lock().unwrap();
        while *closed == 0 {
            closed = self.counts.change.wait(closed).unwrap();
        }
    }
}

/// Answers one request after the other, until something ends the connection.
fn talk(tcp: TcpStream, config: Arc<ServerConfig>, answer: &Answer, counts: &Counts) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    while let Some((path, body)) = read_request(&mut stream) {
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let (bytes, again) = match answer {
            Answer::Status(status, body) => (response(*status, body), true),
            Answer::By(judge) => {
                let (status, body) = judge(&path, &body);
                (response(status, &body), true)
            }
            Answer::ThenClose(body) => (response(200, body), false),
            Answer::Raw(bytes) => (bytes.clone(), false),
            Answer::Cut(bytes) => {
                let _ = stream.write_all(bytes).and_then(|()| stream.flush());
                return;
            }
            Answer::Flood(first, others) => {
                let _ = stream.write_all(first);
                while stream.write_all(others).is_ok() {}
                return;
            }
            Answer::Silence => {
                let _ = stream.read(&mut [0]);
                return;
            }
            Answer::Drip => {
                let head = response(200, &"x".repeat(60_000));
                for byte in head {
                    if stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                    // What is tested is a server that is slow.
                    thread::park_timeout(std::time::Duration::from_millis(20));
                }
                return;
            }
        };
        if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() || !again {
            stream.conn.send_close_notify();
            let _ = stream.flush();
            return;
        }
    }
}

fn response(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Path and body of one request; `None` at the end of the connection.
fn read_request(stream: &mut impl Read) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1)?.to_owned(), body))
}
