//! [`node`] is for machines, [`operator`] and [`policies`] for people with a client certificate, [`registrar`] for a verifier that asks
//! its registrar.

mod list;
pub mod node;
pub mod operator;
pub mod policies;
pub mod registrar;
