//! [`node`] is for machines, [`operator`] and [`policies`] for people with a client certificate, [`registrar`] for a verifier that asks
//! its registrar.

mod finish;
mod list;
pub mod node;
pub mod operator;
pub mod policies;
pub mod registrar;

/// Below which operators ask.
pub const OPERATORS: &str = "/v1/operator";
/// Below which a verifier on another host asks.
pub const VERIFIERS: &str = "/v1/internal";
