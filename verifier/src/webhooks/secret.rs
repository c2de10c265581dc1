//! What messages are signed with: `whsec_` and base64 of 24 to 64 bytes.

use crate::Failure;
use crate::keys::{read_credential, read_secret};
use aws_lc_rs::hmac;
use base64ct::{Base64, Encoding as _};
use std::ops::RangeInclusive;
use std::path::Path;
use zeroize::Zeroizing;

/// What its text begins with.
const PREFIX: &[u8] = b"whsec_";
/// How long it is, in bytes.
const LENGTH: RangeInclusive<usize> = 24..=64;

/// A secret that an endpoint shares. It is wiped, and has no `Debug`.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Of a file that only its owner can read; without a `/` of a credential that systemd has for this service.
    ///
    /// # Errors
    /// When it can't be read, is open to others, or is no secret.
    pub fn load(file: &str) -> Result<Self, Failure> {
        let text = if file.contains('/') { read_secret(Path::new(file)) } else { read_credential(file) }?;
        Self::parse(&text).ok_or_else(|| {
            Failure::new(format!(
                "{file}: expected whsec_ and base64 of {} to {} bytes",
                LENGTH.start(),
                LENGTH.end()
            ))
            .hint("(printf whsec_; openssl rand -base64 32) makes one")
        })
    }

    /// Reads its text, with or without a line's end. What is wrong with it is not said: that would show some of it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let encoded = text.trim_ascii().strip_prefix(PREFIX)?;
        let mut bytes = Zeroizing::new(vec![0; encoded.len()]);
        let length = Base64::decode(encoded, &mut bytes).ok()?.len();
        // No longer: nothing moves.
        bytes.truncate(length);
        LENGTH.contains(&length).then_some(Self(bytes))
    }

    /// The signature of a message that is sent at this time, in seconds since 1970.
    pub fn sign(&self, message: &str, at: u64, body: &str) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        for part in [message, ".", &at.to_string(), ".", body] {
            context.update(part.as_bytes());
        }
        format!("v1,{}", Base64::encode_string(context.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let secret = Secret::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = format!("whsec_{}", Base64::encode_string(&[7; 23]));
        let long = format!("whsec_{}", Base64::encode_string(&[7; 65]));
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
            &short,
            &long,
        ] {
            assert!(Secret::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
