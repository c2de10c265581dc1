//! The operator's desk.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line and its help |
//! | [`app`] | runs a command |
//! | [`context`] | what commands share |
//! | [`bundle`] | the operator bundle: identity, servers, CA |
//! | [`home`] | the operator's folder |
//! | [`key`] | the tenant key |
//! | [`client`] | requests to the verifier |
//! | [`resolve`] | NODE: id, prefix or label |
//! | [`checks`] | what is checked here, whatever the server says |
//! | [`sequence`], [`follow`] | where the next document has its place; what came before it |
//! | [`roots`] | the folder of TPM manufacturers' roots |
//! | [`enroll`] | a new key for a node |
//! | [`approve`] | the boot that waits: once, learn it, replace the policy |
//! | [`decide`] | deny, revoke, restore, hold, release |
//! | [`policy`] | what nodes may boot: learn, predict, check, apply, explain |
//! | [`proposals`], [`groups`] | what nodes want to boot next; nodes with one policy |
//! | [`eventlog`] | a firmware event log from a file |
//! | [`watch`] | the audit trail as it grows |
//! | [`show`] | tables and lines |
//! | [`words`], [`labels`], [`time`], [`text`] | PCRs in words, labels by id, times, hostile text |
//! | [`output`], [`ask`], [`error`] | standard output and error, questions, exit codes |

pub mod app;
pub mod approve;
pub mod ask;
pub mod bundle;
pub mod checks;
pub mod cli;
pub mod client;
pub mod context;
pub mod decide;
pub mod enroll;
pub mod error;
pub mod eventlog;
pub mod follow;
pub mod groups;
pub mod home;
pub mod key;
pub mod labels;
pub mod output;
pub mod policy;
pub mod proposals;
pub mod resolve;
pub mod roots;
pub mod sequence;
pub mod show;
pub mod text;
pub mod time;
pub mod watch;
pub mod words;
