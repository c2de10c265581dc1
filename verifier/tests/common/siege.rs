//! Hostile connections by the thousand, and the fleet that boots beside them.

use super::Server;
use super::fleet::{SoftNode, tenant};
use super::node::said;
use halfkey_protocol::MAX_BODY;
use halfkey_verifier::client::Client;
use halfkey_verifier::proxy::SIGNATURE;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// When a test gives up: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// Settings: a quarter of the places that a server has, for a siege of a quarter of the connections.
pub const QUARTER: &str = "connections = 256\nreserved_for_clients = 16\nreserved_for_nodes = 64\n";

/// More than there are places.
pub const CROWD: usize = 400;

/// What a hostile connection does.
#[derive(Clone, Copy, Debug)]
pub enum Hostile {
    /// Connects and is silent.
    Silent,
    /// Ends the handshake and is silent.
    Idle,
    /// A byte of a header now and then.
    Trickle,
    /// Announces the largest body, sends a part and stops.
    Announce,
}

pub const ALL: [Hostile; 4] = [Hostile::Silent, Hostile::Idle, Hostile::Trickle, Hostile::Announce];

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct From {
    /// An address of this host.
    pub address: Ipv4Addr,
    /// What it says of itself in a PROXY header.
    pub claims: Option<IpAddr>,
}

impl From {
    pub async fn connect(self, address: &str) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.address, 0).into())?;
        let mut stream = socket.connect(address.parse().unwrap()).await?;
        if let Some(claimed) = self.claims {
            stream.write_all(&header(claimed)).await?;
        }
        Ok(stream)
    }
}

/// The header of the largest body.
pub fn announcement() -> String {
    format!(
        "POST /v1/finish HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {MAX_BODY}\r\n\r\n"
    )
}

/// PROXY protocol, version 2, TCP, with a TLV.
pub fn header(from: IpAddr) -> Vec<u8> {
    let (family, addresses) = match from {
        IpAddr::V4(v4) => (0x11, [&v4.octets()[..], &[127, 0, 0, 1]].concat()),
        IpAddr::V6(v6) => (0x21, [&v6.octets()[..], &[0; 16]].concat()),
    };
    let rest = [&addresses[..], &[0x30, 0x39, 0x1f, 0x90], &[0x04, 0, 2, 0, 0]].concat();
    [&SIGNATURE[..], &[0x21, family], &(rest.len() as u16).to_be_bytes(), &rest].concat()
}

impl Hostile {
    /// Until the server has enough of it; `stands` is told when all is done but to hold on.
    async fn attack(
        self,
        address: &str,
        from: From,
        tls: TlsConnector,
        stands: &Notify,
    ) -> std::io::Result<()> {
        let mut stream = from.connect(address).await?;
        if let Self::Silent = self {
            stands.notify_one();
            return wait_for_the_end(&mut stream).await;
        }
        let mut stream: TlsStream<TcpStream> = tls.connect("127.0.0.1".try_into().unwrap(), stream).await?;
        match self {
            Self::Silent | Self::Idle => {}
            Self::Trickle => {
                stream.write_all(b"POST /v1/finish HTTP/1.1\r\nx: ").await?;
                stands.notify_one();
                let mut pace = tokio::time::interval(TRICKLE);
                loop {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                    pace.tick().await;
                }
            }
            Self::Announce => {
                stream.write_all(announcement().as_bytes()).await?;
                stream.write_all(&[b' '; 150_000]).await?;
                stream.flush().await?;
            }
        }
        stands.notify_one();
        wait_for_the_end(&mut stream).await
    }
}

/// Hostile connections; they end when this is dropped.
pub struct Siege {
    _attackers: JoinSet<()>,
    stand: Vec<Arc<Notify>>,
}

impl Siege {
    /// Until each connection holds its place, or was sent away once: nobody gets in who waits for a free place.
    pub async fn stands(&self) {
        for stands in &self.stand {
            stands.notified().await;
        }
    }
}

/// How fast a header comes that never ends.
const TRICKLE: Duration = Duration::from_secs(1);

/// How soon a connection is made again that was lost.
const AGAIN: Duration = Duration::from_millis(100);

async fn wait_for_the_end(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> std::io::Result<()> {
    while stream.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

/// So many connections, each made again as soon as it is lost; ends when dropped.
pub fn besiege(server: &Server, kinds: &'static [Hostile], connections: usize, sources: u8) -> Siege {
    siege(server, kinds, connections, move |index| From {
        address: Ipv4Addr::new(127, 0, 7, (index % usize::from(sources)) as u8 + 1),
        claims: None,
    })
}

/// The same from anywhere.
pub fn siege(
    server: &Server,
    kinds: &'static [Hostile],
    connections: usize,
    from: impl Fn(usize) -> From,
) -> Siege {
    let config = rustls::ClientConfig::builder_with_provider(halfkey_verifier::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(server.roots())
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let (mut attackers, mut stand) = (JoinSet::new(), Vec::new());
    for index in 0..connections {
        let (kind, address, tls) = (kinds[index % kinds.len()], server.address().to_owned(), tls.clone());
        let from = from(index / kinds.len());
        let stands = Arc::new(Notify::new());
        stand.push(stands.clone());
        attackers.spawn(async move {
            let mut pace = tokio::time::interval(AGAIN);
            loop {
                let _ = kind.attack(&address, from, tls.clone(), &stands).await;
                stands.notify_one();
                pace.tick().await;
            }
        });
    }
    Siege { _attackers: attackers, stand }
}

/// So many machines, enrolled and with a policy; `url` is where they reach the server.
pub async fn fleet(server: &Server, url: &str, nodes: usize) -> Vec<Arc<SoftNode>> {
    let bundle = server.state().join("operator-ada.bundle");
    let tenant = tenant();
    let mut enrolling = JoinSet::new();
    for _ in 0..nodes {
        let (anybody, operator) = (Client::new(url, server.roots(), None).unwrap(), server.at(url, &bundle));
        let (anybody, tenant) = (anybody.within(PATIENCE), tenant.clone());
        enrolling.spawn(async move {
            let node = SoftNode::new(&tenant);
            node.enroll(&anybody, &operator.within(PATIENCE)).await;
            Arc::new(node)
        });
    }
    enrolling.join_all().await
}

/// All of them at once, each with a connection for each question; until each has its release.
pub async fn all_boot(server: &Server, fleet: &[Arc<SoftNode>]) {
    all_boot_at(server, &server.url, fleet).await;
}

/// The same, reaching the server at another URL.
pub async fn all_boot_at(server: &Server, url: &str, fleet: &[Arc<SoftNode>]) {
    let mut boots = JoinSet::new();
    for node in fleet {
        let (node, client) =
            (node.clone(), Client::new(url, server.roots(), None).unwrap().within(Duration::from_secs(5)));
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
