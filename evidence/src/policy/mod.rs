//! The policy language: what a node may boot, in terms of what was booted.
//!
//! A policy is a TOML document (docs/policy.md has the schema for people). It is parsed once into rules over the
//! **events** of a replayed log, never over what a node merely says: a rule relies on an event's content only where the
//! digest that the PCR was extended with is that of the content; any other event counts by its digest alone.
//!
//! | module | what |
//! | --- | --- |
//! | [`rules`] | what a document says, typed |
//! | `parse` | TOML to rules: `schema` has each key, `check` what is wrong with a whole document, `trust` that table |
//! | `boot_path` | what pins the initramfs, by the way that a kernel comes to it: where another boot loader begins |
//! | `command_line`, `compiled` | rules made ready to judge: patterns, steps by PCR |
//! | `appraise` | a policy against the events of a boot: `survey` sorts them, `boot`, `secure_boot` and `sequence` judge, `recorder` says why |
//! | `parsed`, `governing`, `effective` | what is signed, which of it governs a node, and what that comes to |
//! | `booted`, `announced` | a boot beside what was proposed; what is asked of one that was |
//! | `ima` | `[ima]`: what a machine may use while it runs, for [`crate::ima`] |
//! | `unproven` | what a log's labels are worth: events that no text proves |
//! | `sidecar` | credentials that systemd's stub takes from beside its image |
//! | `learn`, `learned_boot`, `proposal`, `compare`, `write` | a policy from a boot, from a proposal, beside another, and as text |
//! | `key_update`, `edit` | what KEK and db gain, and a document with it |
//!
//! [`TenantNode`] says which documents govern a node, [`Effective`] is what they come to; [`evaluate`] judges a boot, [`explain`] says why, event by event; [`learn`] writes the policy that a boot is accepted by.

pub mod rules;

mod command_line;

mod announced;
mod appraise;
mod boot_path;
mod booted;
mod compare;
mod compiled;
mod edit;
mod effective;
mod governing;
mod ima;
mod key_update;
mod learn;
mod learned_boot;
mod parse;
mod parsed;
mod proposal;
mod sidecar;
mod unproven;
mod write;

pub use appraise::{Claims, Evaluation, ExplainedEvent, Explanation, Matched, evaluate, explain};
pub use booted::{is_booted, loaded_by_grub, not_as_proposed};
pub use compare::{Change, diff};
pub use effective::{Effective, LeftOut};
pub use governing::{TenantNode, Unfit, signed_for};
pub use halfkey_protocol::wire::policies::{Finding, MAX_POLICY};
pub use ima::{ImaPolicy, ListReference};
pub use key_update::{KeyList, KeyUpdate, NewEntry};
pub use learn::{Assured, learn, learn_announced, learn_boot};
pub use parse::Problem;
pub use parsed::{Additions, Policy};
pub use proposal::{Cover, boot_of, boot_toml, check_proposal, covers, is_in_uki, is_known_once_booted};
pub use rules::{Boot, Origin, Trust};
pub use unproven::unknown;
