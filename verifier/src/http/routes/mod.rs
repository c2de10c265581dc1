//! [`node`] is for machines, [`operator`] and [`policies`] for people with a client certificate, [`internal`] for a verifier that asks
//! its registrar.

pub mod internal;
mod list;
pub mod node;
pub mod operator;
pub mod policies;
