//! What `make bench` runs, and load for a server.
//!
//! | module | what |
//! | --- | --- |
//! | [`boot`] | a boot with Secure Boot, its log as long as that of a machine in the field, and the policy that allows it |
//! | [`fleet`] | machines whose TPMs are keys in memory: enrolled, and booted |
//! | [`https`] | connections to a server, from any address of this host |
//! | [`load`] | many boots at once, closed and open loop, and how long each took |
//! | [`server`] | a server that is measured, and PostgreSQL under it |
//! | [`cpu`] | what the kernel says that something cost |
//!
//! `halfkey-bench` is what `make bench` runs, `halfkey-loadgen` loads any server.

pub mod boot;
pub mod cpu;
pub mod fleet;
pub mod https;
pub mod load;
pub mod server;

/// A measurement that could not be taken says why and that is all.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
