//! A server's URL: `https://HOST[:PORT][/PREFIX]`, nothing else.

use crate::error::{Error, Result};
use std::fmt;

/// A URL that requests can be appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(String);

impl Server {
    /// Reads a URL. A trailing slash is dropped; user names, queries and fragments are refused.
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn parse(url: &str) -> Result<Self> {
        let refuse =
            |why| Error::usage(format!("expected a server as https://HOST[:PORT], found '{url}': {why}"));
        let rest = url.strip_prefix("https://").ok_or_else(|| refuse("only https is spoken"))?;
        if url.len() > 512 {
            return Err(refuse("longer than 512 characters"));
        }
        let trimmed = url.trim_end_matches('/');
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, port)) => {
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| refuse("not an IPv6 address in the brackets"))?;
                (host, port)
            }
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return Err(refuse("no host"));
        }
        if !port.is_empty() {
            let digits =
                port.strip_prefix(':').ok_or_else(|| refuse("something stands between host and port"))?;
            match digits.parse::<u16>() {
                Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => {}
                _ => return Err(refuse("the port is no number from 1 to 65535")),
            }
        }
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'[' | b']');
        if !rest.bytes().all(plain) {
            return Err(refuse("a character that has no place here"));
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// The URL of a request.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Server;
    use proptest::prelude::*;

    #[test]
    fn the_usual_forms() {
        for url in [
            "https://v.example:8443",
            "https://10.0.2.2:8443/",
            "https://[fe80::1]:8443/halfkey",
            "https://v",
        ] {
            assert!(Server::parse(url).is_ok(), "{url}");
        }
        assert_eq!(Server::parse("https://v/").unwrap().join("/v1/begin"), "https://v/v1/begin");
        for url in [
            "http://v",
            "https://",
            "https://v:0",
            "https://v:+1",
            "https://v:99999",
            "https://a@v",
            "https://v?x",
            "https://[x]:1",
            "https://v\r\nx",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_becomes_a_uri(rest in ".{0,40}") {
            if let Ok(server) = Server::parse(&format!("https://{rest}")) {
                prop_assert!(server.join("/v1/begin").starts_with("https://"));
                prop_assert!(!server.as_str().contains(char::is_whitespace));
            }
        }
    }
}
