//! `[[webhooks]]` in the settings.

use crate::Failure;
use crate::domain::NoticeKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// An endpoint. Its URL may be a secret of its own, so it is not shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// What logs and metrics call it.
    pub name: String,
    /// Where messages are sent: `https`, or `http` on this host.
    pub url: String,
    /// The file of its secret, `whsec_..`, that only its owner can read. Without a `/`: the name of a credential of systemd.
    pub secret_file: String,
    /// What it is told; everything if not set.
    #[serde(default = "everything")]
    pub events: Vec<NoticeKind>,
    /// PEM certificates of the CAs that its certificate may be of, instead of those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Seconds from a message to its answer.
    #[serde(default = "deadline")]
    pub deadline_seconds: u64,
    /// Most messages that wait. Beyond, the oldest are dropped.
    #[serde(default = "queue")]
    pub queue: u64,
}

fn everything() -> Vec<NoticeKind> {
    NoticeKind::ALL.to_vec()
}

fn deadline() -> u64 {
    10
}

fn queue() -> u64 {
    10_000
}

impl fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSettings").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Longest name, in bytes.
const MAX_NAME: usize = 32;

/// That each has a name of its own, and that numbers are within bounds.
///
/// # Errors
/// Which does not.
pub fn check(all: &[WebhookSettings]) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for settings in all {
        let name = &settings.name;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
            let what =
                format!("expected a name of at most {MAX_NAME} letters a-z, digits and -, found {name:?}");
            return Err(Failure::new(format!("webhooks: {what}")));
        }
        if !names.insert(name) {
            return Err(Failure::new(format!("webhooks: expected one named {name}, found two")));
        }
        let bounds =
            [("deadline_seconds", settings.deadline_seconds, 60), ("queue", settings.queue, 1_000_000)];
        for (what, found, most) in bounds {
            if !(1..=most).contains(&found) {
                let what = format!("webhooks: {name}: expected {what} from 1 to {most}, found {found}");
                return Err(Failure::new(what));
            }
        }
    }
    Ok(())
}
