//! The header of the PROXY protocol, version 2 (haproxy's `proxy-protocol.txt`): where a connection that a load
//! balancer hands on comes from. Believed from configured addresses only; from these it has to be there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The first bytes; no TLS record begins so.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;
/// Addresses and what else the proxy says about the connection (TLVs), in bytes. We read none of the latter.
const MAX_REST: usize = 4096;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The proxy itself is asking: a health check.
    Local,
    /// The peer that it hands on.
    Peer(IpAddr),
}

/// Reads the fixed part; gives the length of what follows.
///
/// # Errors
/// What was expected and found.
pub fn parse_fixed(fixed: &[u8; FIXED]) -> Result<usize, String> {
    if fixed[..12] != SIGNATURE {
        return Err("expected a PROXY protocol header of version 2, found something else".to_owned());
    }
    if fixed[12] >> 4 != 2 || fixed[12] & 0x0f > 1 {
        return Err(format!("expected version 2 and command LOCAL or PROXY, found {:#04x}", fixed[12]));
    }
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest > MAX_REST {
        return Err(format!("expected at most {MAX_REST} bytes after the header, found {rest}"));
    }
    Ok(rest)
}

/// Reads what follows the fixed part, which [`parse_fixed`] has accepted.
///
/// # Errors
/// What was expected and found.
pub fn parse_rest(fixed: &[u8; FIXED], rest: &[u8]) -> Result<Origin, String> {
    if fixed[12] & 0x0f == 0 {
        return Ok(Origin::Local);
    }
    let short = |needed: usize| format!("expected {needed} bytes of addresses, found {}", rest.len());
    match fixed[13] {
        // TCP over IPv4: source, destination, two ports.
        0x11 => match rest.first_chunk::<12>() {
            Some(addresses) => Ok(Origin::Peer(Ipv4Addr::from(first(addresses)).into())),
            None => Err(short(12)),
        },
        // TCP over IPv6.
        0x21 => match rest.first_chunk::<36>() {
            Some(addresses) => {
                Ok(Origin::Peer(IpAddr::from(Ipv6Addr::from(first(addresses))).to_canonical()))
            }
            None => Err(short(36)),
        },
        // The proxy does not know, or does not say: it answers for the connection itself.
        0x00 => Ok(Origin::Local),
        other => Err(format!("expected TCP over IPv4 or IPv6, found family and transport {other:#04x}")),
    }
}

/// The first N of M bytes, M being larger.
fn first<const N: usize, const M: usize>(bytes: &[u8; M]) -> [u8; N] {
    std::array::from_fn(|index| bytes[index])
}

/// Reads a header and not a byte more.
///
/// # Errors
/// When the stream ends or the header is refused.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Origin> {
    let refused = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).await?;
    let mut rest = vec![0; parse_fixed(&fixed).map_err(refused)?];
    stream.read_exact(&mut rest).await?;
    parse_rest(&fixed, &rest).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    async fn read_all(mut bytes: &[u8]) -> Result<(Origin, usize), String> {
        let origin = read(&mut bytes).await.map_err(|e| e.to_string())?;
        Ok((origin, bytes.len()))
    }

    #[tokio::test]
    async fn peers_and_health_checks() {
        let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0x1f, 0x90];
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);
        let rest_v6 = [&v6.octets()[..], &[0; 16], &[0; 4]].concat();
        let peer = |address: IpAddr| Ok((Origin::Peer(address), 0));
        assert_eq!(read_all(&header(0x21, 0x11, &v4)).await, peer([192, 0, 2, 7].into()));
        assert_eq!(read_all(&header(0x21, 0x21, &rest_v6)).await, peer(v6.into()));
        let with_tlv = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        assert_eq!(read_all(&header(0x21, 0x11, &with_tlv)).await, peer([192, 0, 2, 7].into()));
        let mut and_more = header(0x20, 0x00, &[]);
        and_more.extend(b"TLS");
        assert_eq!(read_all(&and_more).await, Ok((Origin::Local, 3)), "what follows is left");
        assert_eq!(read_all(&header(0x21, 0x00, &[])).await, Ok((Origin::Local, 0)));
    }

    #[tokio::test]
    async fn others_are_refused() {
        for (bytes, said) in [
            (header(0x11, 0x11, &[0; 12]), "version"),
            (header(0x22, 0x11, &[0; 12]), "command"),
            (header(0x21, 0x12, &[0; 12]), "TCP"),
            (header(0x21, 0x31, &[0; 216]), "TCP"),
            (header(0x21, 0x11, &[0; 11]), "12 bytes"),
            (header(0x21, 0x21, &[0; 35]), "36 bytes"),
            (header(0x21, 0x11, &[0; MAX_REST + 1]), "at most"),
            (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n".to_vec(), "version 2"),
            (SIGNATURE.to_vec(), "early eof"),
        ] {
            let error = read_all(&bytes).await.unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_origin_or_an_error(command: u8, family: u8, rest: Vec<u8>) {
            let bytes = header(command, family, &rest);
            let fixed = bytes[..FIXED].try_into().unwrap();
            if let Ok(length) = parse_fixed(&fixed) {
                prop_assert_eq!(length, rest.len());
                let _ = parse_rest(&fixed, &rest);
            }
        }
    }
}
