//! The operator bundle: who the operator is, where the servers are, and the one CA
//! that is believed.

use crate::error::{Error, Exit, Result};
use halfkey_protocol::identity;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A bundle of this size holds a dozen chains; a larger one is something else.
pub const MAX_BUNDLE: u64 = 256 << 10;

/// The file that `halfkey-verifier init` writes. Holds the private key of the operator's certificate.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Bundle {
    /// Version of the file: 1.
    pub version: u32,
    /// The operator's name.
    pub name: String,
    /// `https://host:port` of the servers, best first.
    pub servers: Vec<String>,
    /// The CA that signed the servers' certificates, PEM.
    pub ca: String,
    /// The operator's certificate chain, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
}

impl Bundle {
    /// Reads a bundle and checks that every part of it can be used.
    ///
    /// # Errors
    /// With what is missing or wrong; the file as given is at fault.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let bundle: Self = serde_json::from_slice(json).map_err(|e| {
            // SequenceHead and column only: the error's own text may quote the file.
            bad(format!("it is not the JSON of a bundle (line {}, column {})", e.line(), e.column()))
        })?;
        if bundle.version != 1 {
            return Err(bad(format!("expected version 1, found {}", bundle.version))
                .hint("this may need a newer version of halfkey"));
        }
        if bundle.servers.is_empty() {
            return Err(bad("it names no server"));
        }
        for url in &bundle.servers {
            check_url(url).map_err(bad)?;
        }
        bundle.ca_der()?;
        bundle.tls_identity()?;
        Ok(bundle)
    }

    /// The CA's certificate, DER. Exactly one.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn ca_der(&self) -> Result<CertificateDer<'static>> {
        single_certificate(&self.ca).ok_or_else(|| bad("expected one CA certificate in PEM"))
    }

    /// `sha256:` over the CA's certificate: what the pins of this server are kept under.
    ///
    /// # Errors
    /// As [`Bundle::ca_der`].
    pub fn ca_fingerprint(&self) -> Result<String> {
        Ok(identity::fingerprint(&self.ca_der()?))
    }

    /// The operator's certificate chain and private key. They belong together: a key of
    /// another certificate would fail much later, in a handshake, without a word why.
    ///
    /// # Errors
    /// When one can't be read or they don't match.
    pub fn tls_identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| bad("the operator's certificate is not PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| bad("the private key is not PEM"))?;
        rustls::sign::CertifiedKey::from_der(
            chain.clone(),
            key.clone_key(),
            &rustls::crypto::aws_lc_rs::default_provider(),
        )
        .map_err(|e| bad(format!("certificate and private key can't be used together ({e})")))?;
        Ok((chain, key))
    }

    /// As stored in the home folder.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec_pretty(self).expect("strings and numbers have a JSON form"))
    }
}

/// The certificate in a PEM text, if there is exactly one.
pub fn single_certificate(pem: &str) -> Option<CertificateDer<'static>> {
    let mut certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let first = certificates.next()?.ok()?;
    certificates.next().is_none().then_some(first)
}

/// A server's URL: `https://`, a host, perhaps a port and a path; nothing that a log,
/// a terminal or another program could take for something else.
///
/// # Errors
/// With what is wrong with it.
pub fn check_url(url: &str) -> std::result::Result<(), String> {
    let shown = crate::render::text::clean_short(url, 80);
    let Some(rest) = url.strip_prefix("https://") else {
        return Err(format!("expected a server as https://HOST:PORT, found {shown}"));
    };
    let host = rest.split('/').next().unwrap_or_default();
    let plain =
        |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '\\' | '"' | '<' | '>' | '`');
    if host.is_empty() || host.starts_with(':') || url.len() > 512 || !rest.chars().all(plain) {
        return Err(format!(
            "expected a server as https://HOST:PORT without user, query or blanks, found {shown}"
        ));
    }
    Ok(())
}

fn bad(what: impl AsRef<str>) -> Error {
    Error::new(Exit::Failed, format!("the operator bundle can't be used: {}", what.as_ref()))
        .hint("ask the operator of the verifier for a new one (`halfkey-verifier init` writes operator-NAME.bundle)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn urls_with_a_second_meaning_are_refused() {
        for good in ["https://verifier:8443", "https://[::1]:1", "https://127.0.0.1:9/base"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in
            ["http://v", "https://", "https://:1", "https://a@b", "https://a?b", "https://a b", "https://a\n"]
        {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_with_a_word(bytes: Vec<u8>) {
            prop_assert!(Bundle::parse(&bytes).is_err());
        }

        #[test]
        fn any_texts_in_it_are_refused_with_a_word(ca: String, key: String, url: String) {
            let json = serde_json::json!({
                "version": 1, "name": "a", "servers": [url], "ca": ca, "certificate": ca, "key": key
            });
            prop_assert!(Bundle::parse(json.to_string().as_bytes()).is_err());
        }
    }
}
