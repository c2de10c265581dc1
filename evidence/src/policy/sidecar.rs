//! Credentials that systemd's stub takes from beside its image and hands to the initramfs: `\loader\credentials\*.cred` of the ESP, and
//! those in the folder that is named as the image.
//!
//! The stub packs them into one archive and measures that into PCR 12. The digest is all that is proven: what the log calls it could be any
//! other thing that goes there, a command line or a configuration extension. So none is accepted by its name. One that stays
//! the same has its digest in the policy; the anchor of systemd's NvPCRs does not stay the same on a machine that takes no credentials.

use crate::eventlog::{Claim, Event};
use halfkey_measure::stub;

/// What to do about one that no rule names.
pub(super) const HINT: &str = "if it is systemd's nvpcr-anchor.*.cred, of which systemd 259 to 261 writes another in each boot: `halfkey-agent status` on the machine \
     says how to stop that; a command line or an initramfs could be called so as well: only if the owner put it there and knows its digest, \
     `halfkey approve NODE --learn --trust-unknown-events`";

/// Stands at the digest of one that was learned.
pub(super) const LEARNED: &str = "by its content: a policy holds as long as that stays the same (docs/policy.md, \"Credentials beside a UKI\")";

/// Whether the log says so of this event.
pub(super) fn is_credentials(event: &Event<'_>) -> bool {
    let Claim::WideName(name) = event.claimed_content() else { return false };
    event.pcr == 12 && stub::CREDENTIALS.iter().any(|known| name.chars().eq(known.chars()))
}
