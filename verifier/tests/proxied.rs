//! Behind a load balancer: the PROXY protocol says where connections come from. It also lets one test host be many.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::fleet::{SoftNode, tenant};
use common::siege::{ALL, CROWD, From, QUARTER, all_boot_at, fleet, header, siege};
use common::{Server, get, path, refused};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::operator::{AuditList, NodeRecord};
use halfkey_verifier::client::{Client, ClientError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;

/// A load balancer in front of the server: each connection that it hands on comes from what `of` says. Gives its URL.
async fn balancer(server: &Server, of: impl Fn() -> Option<IpAddr> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let address = server.address().to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let from = From { address: Ipv4Addr::LOCALHOST, claims: of() };
            let address = address.clone();
            tokio::spawn(async move {
                if let Ok(mut server) = from.connect(&address).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    url
}

/// A host with an IPv6 /48 of its own, a /64 for each connection; a site with its own /48 boots beside it.
#[tokio::test]
async fn one_ipv6_host_keeps_nobody_out() {
    halfkey_verifier::serve::raise_open_files();
    let server = Server::with_settings(&format!("proxy_from = [\"127.0.0.1\"]\n{QUARTER}"));
    let networks = AtomicU16::new(0);
    let site = move || {
        let network = networks.fetch_add(1, Ordering::Relaxed) % 64;
        Some(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, network, 0, 0, 0, 1).into())
    };
    let url = balancer(&server, site).await;
    let fleet = fleet(&server, &url, 40).await;
    let hostile = siege(&server, &ALL, CROWD, |index| From {
        address: Ipv4Addr::LOCALHOST,
        claims: Some(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, index as u16, 0, 0, 0, 1).into()),
    });
    hostile.stands().await;
    all_boot_at(&server, &url, &fleet).await;
    drop(hostile);
}

#[tokio::test]
async fn a_header_is_demanded_of_proxies_and_of_nobody_else() {
    let server = Server::with_settings("proxy_from = [\"127.0.0.1\"]\n");
    let path = "/v1/nothing";
    let ask = async |url: &str| Client::new(url, server.roots(), None).unwrap().get::<()>(path).await;
    let is_refused = |answer: Result<(), ClientError>| {
        assert!(matches!(answer, Err(ClientError::Unreachable(_))), "{answer:?}");
    };
    let is_served = |answer: Result<(), ClientError>| {
        assert_eq!(refused(common::problem(answer)), Reason::NotFound);
    };
    // A proxy: with the header, and without.
    is_served(ask(&balancer(&server, || Some([192, 0, 2, 7].into())).await).await);
    is_refused(ask(&balancer(&server, || None).await).await);
    assert!(server.log().contains("a proxy's header was refused"));
    // Another address: without the header, and with.
    let other = Ipv4Addr::new(127, 0, 0, 2);
    for (claims, served) in [(None, true), (Some(IpAddr::from([192, 0, 2, 8])), false)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let address = server.address().to_owned();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut stream = From { address: other, claims }.connect(&address).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut stream).await;
        });
        if served { is_served(ask(&url).await) } else { is_refused(ask(&url).await) }
    }
    // A health check of the proxy, and a header that stops in the middle.
    let mut local =
        From { address: Ipv4Addr::LOCALHOST, claims: None }.connect(server.address()).await.unwrap();
    let mut bytes = header([192, 0, 2, 9].into());
    (bytes[12], bytes[13]) = (0x20, 0);
    local.write_all(&bytes).await.unwrap();
    local.shutdown().await.unwrap();
    assert_eq!(local.read(&mut [0; 64]).await.unwrap_or(0), 0);
    let mut half =
        From { address: Ipv4Addr::LOCALHOST, claims: None }.connect(server.address()).await.unwrap();
    half.write_all(&bytes[..14]).await.unwrap();
    half.shutdown().await.unwrap();
    assert_eq!(half.read(&mut [0; 64]).await.unwrap_or(0), 0);
    is_served(ask(&balancer(&server, || Some([192, 0, 2, 7].into())).await).await);
    // The true address is what is logged.
    assert!(!server.log().contains("panicked"));
}

/// Software TPMs by the dozen: a genuine machine registers before and after, and the trail stays readable.
#[tokio::test]
async fn software_tpms_keep_no_machine_out_of_the_registrar() {
    let server = Server::with_settings("proxy_from = [\"127.0.0.1\"]\nunenrolled = 20\n");
    let site = balancer(&server, || Some([192, 0, 2, 7].into())).await;
    let networks = AtomicU16::new(0);
    let attacker = balancer(&server, move || {
        let network = networks.fetch_add(1, Ordering::Relaxed);
        Some(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, network, 0, 0, 0, 1).into())
    })
    .await;
    let client = |url: &str| Client::new(url, server.roots(), None).unwrap();
    let tenant = tenant();
    let (first, second) = (SoftNode::new(&tenant), SoftNode::new(&tenant));
    first.register(&client(&site)).await.unwrap();
    for _ in 0..60 {
        SoftNode::new(&tenant).register(&client(&attacker)).await.expect("it makes room for itself");
    }
    second.register(&client(&site)).await.expect("a genuine machine can always register");
    let operator = server.at(&site, &server.state().join("operator-ada.bundle"));
    for node in [&first, &second] {
        let record: NodeRecord = get(&operator, &path(node.node.id, "")).await.unwrap();
        assert_eq!(record.summary.label, "soft");
    }
    let trail: AuditList = get(&operator, "/v1/operator/audit?after=0&limit=1000").await.unwrap();
    let entries = |action: &str| trail.entries.iter().filter(|entry| entry.action == action).count();
    // The next hour may begin in between: then there is one of each source again, and a summary.
    assert!((2..=5).contains(&entries("register")) && (1..=3).contains(&entries("evict")), "{trail:?}");
}
