//! The operator's command, at the operator's workstation.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line and its help |
//! | [`commands`] | what each command does, and how it is shown |
//! | [`context`] | what commands share |
//! | [`documents`] | what is read and signed as a document |
//! | [`trust`] | what is checked here, whatever a server says |
//! | [`client`] | requests to the verifier |
//! | [`home`] | the operator's folder: bundle, tenant key, pins |
//! | [`render`] | tables, times, PCRs in words, hostile text |
//! | [`output`], [`ask`], [`error`] | standard output and error, questions, exit codes |

pub mod ask;
pub mod cli;
pub mod client;
pub mod commands;
pub mod context;
pub mod documents;
pub mod error;
pub mod home;
pub mod output;
pub mod render;
pub mod trust;
