//! Following the sequence that a server shows.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::text::hex;
use halfkey_evidence::document;
use halfkey_protocol::document::{Deployment, Opened, Place, follows};

/// Follows the sequence from a document that is known, or from the first, to where the server says that it ends.
///
/// # Errors
/// `Untrusted` when what the server shows is not one sequence of this deployment; as every request.
pub fn walk(
    client: &Client,
    deployment: Deployment,
    known: Option<(u64, &str)>,
    end: &Place,
    mut seen: impl FnMut(&Opened),
) -> Result<Place> {
    let broken = |what: String| {
        Error::untrusted(format!("the documents that the server shows are not one sequence: {what}"))
            .hint("somebody changed its database, or put back a part of it; if it was restored from a backup on purpose, see `halfkey accept-rollback`")
    };
    let (number, sha256) = known.unwrap_or((1, ""));
    let mut last = known.is_none().then(Place::default);
    while last.is_none_or(|last| last.number < end.number) {
        let part = client.sequence(last.map_or(number - 1, |last| last.number))?.documents;
        if part.is_empty() {
            return Err(broken(format!(
                "document {} is missing",
                last.map_or(number, |last| last.number + 1)
            )));
        }
        for signed in &part {
            let opened = document::open(signed).map_err(|flaw| broken(flaw.to_string()))?;
            if opened.deployment != deployment {
                return Err(broken(format!("document {} is for another deployment", opened.place.number)));
            }
            match &last {
                Some(before) => follows(&opened, before).map_err(broken)?,
                None if opened.place.number == number && hex(&opened.place.sha256) == sha256 => {}
                None => {
                    return Err(broken(format!(
                        "document {number} is another one than before\n  before  {sha256}\n  now     {}",
                        hex(&opened.place.sha256)
                    )));
                }
            }
            seen(&opened);
            last = Some(opened.place);
        }
    }
    last.ok_or_else(|| broken("it is empty".to_owned()))
}
