//! The operator's desk.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line and its help |
//! | [`app`] | runs a command |
//! | [`bundle`] | the operator bundle: identity, servers, CA |
//! | [`home`] | the operator's folder |
//! | [`key`] | the tenant key |
//! | [`client`] | requests to the verifier |
//! | [`resolve`] | NODE: id, prefix or label |
//! | [`checks`] | what is checked here, whatever the server says |
//! | [`roots`] | the folder of TPM manufacturers' roots |
//! | [`enroll`] | a new key for a node |
//! | [`decide`] | approve, deny, revoke, restore |
//! | [`watch`] | the audit trail as it grows |
//! | [`show`] | tables and lines |
//! | [`words`], [`time`], [`text`] | PCRs in words, times, hostile text |
//! | [`output`], [`ask`], [`error`] | standard output and error, yes or no, exit codes |

pub mod app;
pub mod ask;
pub mod bundle;
pub mod checks;
pub mod cli;
pub mod client;
pub mod decide;
pub mod enroll;
pub mod error;
pub mod home;
pub mod key;
pub mod output;
pub mod resolve;
pub mod roots;
pub mod show;
pub mod text;
pub mod time;
pub mod watch;
pub mod words;
