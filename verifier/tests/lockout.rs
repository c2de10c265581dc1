//! One host that takes what the server has: its places, its memory, its tables. The others still boot.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::node::said;
use common::{Server, get};
use halfkey_protocol::MAX_BODY;
use halfkey_protocol::wire::operator::ServerInfo;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// When a test gives up: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a hostile connection does.
#[derive(Clone, Copy, Debug)]
enum Hostile {
    /// Connects and is silent.
    Silent,
    /// Ends the handshake and is silent.
    Idle,
    /// A byte of a header now and then.
    Trickle,
    /// Announces the largest body, sends a part and stops.
    Announce,
}

const ALL: [Hostile; 4] = [Hostile::Silent, Hostile::Idle, Hostile::Trickle, Hostile::Announce];

impl Hostile {
    /// Until the server has enough of it.
    async fn attack(self, address: String, from: Ipv4Addr, tls: TlsConnector) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream = socket.connect(address.parse().unwrap()).await?;
        if let Self::Silent = self {
            return wait_for_the_end(&mut stream).await;
        }
        let mut stream: TlsStream<TcpStream> = tls.connect("127.0.0.1".try_into().unwrap(), stream).await?;
        match self {
            Self::Silent | Self::Idle => {}
            Self::Trickle => {
                stream.write_all(b"POST /v1/finish HTTP/1.1\r\nx: ").await?;
                loop {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Self::Announce => {
                let header =
                    format!("POST /v1/finish HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY}\r\n\r\n");
                stream.write_all(header.as_bytes()).await?;
                stream.write_all(&[b' '; 150_000]).await?;
                stream.flush().await?;
            }
        }
        wait_for_the_end(&mut stream).await
    }
}

async fn wait_for_the_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<()> {
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// So many connections, each made again as soon as it is lost; ends when dropped.
fn besiege(server: &Server, kinds: &'static [Hostile], connections: usize, sources: u8) -> JoinSet<()> {
    let config = rustls::ClientConfig::builder_with_provider(halfkey_verifier::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let mut all = JoinSet::new();
    for index in 0..connections {
        let (kind, address, tls) = (kinds[index % kinds.len()], server.address().to_owned(), tls.clone());
        let from = Ipv4Addr::new(127, 0, 7, (index / kinds.len() % usize::from(sources)) as u8 + 1);
        all.spawn(async move {
            loop {
                let _ = kind.attack(address.clone(), from, tls.clone()).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
    all
}

async fn fleet(server: &Server, nodes: usize) -> Vec<Arc<SoftNode>> {
    let (anybody, operator, tenant) = (server.anybody(), server.operator(), tenant());
    let mut fleet = Vec::new();
    for _ in 0..nodes {
        let node = SoftNode::new(&tenant);
        node.enroll(&anybody, &operator).await;
        fleet.push(Arc::new(node));
    }
    fleet
}

/// All of them at once, each with a connection for each question; until each has its release.
async fn all_boot(server: &Server, fleet: &[Arc<SoftNode>]) {
    let mut boots = JoinSet::new();
    for node in fleet {
        let (node, client) = (node.clone(), server.anybody().within(Duration::from_secs(5)));
        boots.spawn(async move { said(&node.boot_at_last(&client).await) });
    }
    let mut released = 0;
    let all = async {
        while let Some(verdict) = boots.join_next().await {
            assert_eq!(verdict.unwrap(), "released");
            released += 1;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    assert!(ended.is_ok(), "{released} of {} machines got their release in {PATIENCE:?}", fleet.len());
}

/// One host with some addresses holds more connections than there are places, in every way there is.
#[tokio::test]
async fn a_fleet_boots_beside_a_besieged_server() {
    halfkey_verifier::server::raise_open_files();
    let server = Server::with_settings("registrations_per_source = 600\n");
    let fleet = fleet(&server, 40).await;
    let hostile = besiege(&server, &ALL, 1600, 6);
    // The siege stands: nobody gets in who waits for a free place.
    tokio::time::sleep(Duration::from_secs(6)).await;
    all_boot(&server, &fleet).await;
    let operator = server.operator();
    assert!(get::<ServerInfo>(&operator, "/v1/operator/info").await.is_ok());
    drop(hostile);
    assert!(!server.log().contains("panicked"));
}

/// 32 connections that announce large bodies, send a part and stop: once they held all memory for bodies.
#[tokio::test]
async fn a_fleet_boots_beside_bodies_that_never_end() {
    halfkey_verifier::server::raise_open_files();
    let server = Server::with_settings("registrations_per_source = 600\n");
    let fleet = fleet(&server, 20).await;
    let hostile = besiege(&server, &[Hostile::Announce], 32, 32);
    tokio::time::sleep(Duration::from_secs(2)).await;
    all_boot(&server, &fleet).await;
    drop(hostile);
}

/// A site that comes back after a power cut, behind one address.
#[tokio::test]
async fn a_fleet_behind_one_address_boots_in_a_storm() {
    halfkey_verifier::server::raise_open_files();
    let server = Server::with_settings("registrations_per_source = 600\n");
    let fleet = fleet(&server, 300).await;
    all_boot(&server, &fleet).await;
}
