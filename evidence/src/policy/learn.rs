//! A policy from a boot.

use super::{Claims, Finding};
use crate::eventlog::ExplainedLog;

/// Writes the tightest policy that accepts this boot, with comments that say what each value is. `notes` become comments
/// at its head.
///
/// # Errors
/// What keeps the boot below the floor.
pub fn learn(
    _log: &ExplainedLog,
    _claims: &Claims<'_>,
    _name: &str,
    _notes: &[&str],
) -> Result<String, Vec<Finding>> {
    Err(vec![super::judge::unfinished()])
}

/// Writes only what a policy lacks to accept this boot as well: its `[[boot]]`, to be appended.
///
/// # Errors
/// As [`learn`].
pub fn learn_boot(_log: &ExplainedLog, _claims: &Claims<'_>, _name: &str) -> Result<String, Vec<Finding>> {
    Err(vec![super::judge::unfinished()])
}
