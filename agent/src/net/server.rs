//! A server's URL: `https://HOST[:PORT][/PREFIX]`, nothing else.

use super::client::printable;
use crate::error::{Error, Result};
use std::fmt;

/// A URL that requests can be appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    url: String,
    /// Name or address, without the brackets of IPv6.
    pub host: String,
    /// 443 if the URL has none.
    pub port: u16,
}

impl Server {
    /// Reads a URL. A trailing slash is dropped; user names, queries and fragments are refused.
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn parse(url: &str) -> Result<Self> {
        // Whoever can write a disk can write what stands in its token.
        let refuse = |why| {
            let found = printable(url, 200);
            Error::usage(format!("expected a server as https://HOST[:PORT], found '{found}': {why}"))
        };
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
            None if authority.contains(['[', ']']) => return Err(refuse("brackets around no IPv6 address")),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() {
            return Err(refuse("no host"));
        }
        let mut number = 443;
        if !port.is_empty() {
            let digits =
                port.strip_prefix(':').ok_or_else(|| refuse("something stands between host and port"))?;
            match digits.parse::<u16>() {
                Ok(port) if port != 0 && digits.bytes().all(|b| b.is_ascii_digit()) => number = port,
                _ => return Err(refuse("the port is no number from 1 to 65535")),
            }
        }
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'[' | b']');
        if !rest.bytes().all(plain) {
            return Err(refuse("a character that has no place here"));
        }
        Ok(Self { url: trimmed.to_owned(), host: host.to_owned(), port: number })
    }

    /// Host and port as they stand in the URL, for the `Host` field.
    pub fn authority(&self) -> &str {
        self.parts().0
    }

    /// The path of a request: the URL's own, if it has one, and `path`.
    pub fn target(&self, path: &str) -> String {
        format!("{}{path}", self.parts().1)
    }

    fn parts(&self) -> (&str, &str) {
        let rest = &self.url["https://".len()..];
        rest.split_at(rest.find('/').unwrap_or(rest.len()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
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
        let server = Server::parse("https://[fe80::1]:8443/halfkey/").unwrap();
        assert_eq!(
            (server.host.as_str(), server.port, server.authority()),
            ("fe80::1", 8443, "[fe80::1]:8443")
        );
        assert_eq!(server.target("/v1/begin"), "/halfkey/v1/begin");
        assert_eq!(Server::parse("https://v/").unwrap().target("/v1/begin"), "/v1/begin");
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
            "https://v[]",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
        let long = format!("https://v\x1b[2J\u{9b}31m\nhalfkey: all is well{}", "/".repeat(9000));
        let said = Server::parse(&long).unwrap_err().message;
        assert!(said.len() < 400 && !said.contains(char::is_control), "{said:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_harmless_in_a_request(rest in ".{0,40}") {
            if let Err(error) = Server::parse(&rest) {
                // It may come from a disk, and is shown on a console.
                prop_assert!(!error.message.contains(char::is_control), "{:?}", error.message);
            }
            if let Ok(server) = Server::parse(&format!("https://{rest}")) {
                prop_assert!(!server.as_str().contains(|c: char| c.is_whitespace() || c.is_control()));
                prop_assert!(server.target("/v1/begin").starts_with('/'));
                prop_assert!(!server.authority().is_empty() && server.port != 0);
            }
        }
    }
}
