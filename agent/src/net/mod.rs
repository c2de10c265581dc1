//! The way to the servers: HTTPS with one pinned CA, TLS 1.3, bounded in time and size.
//!
//! | module | what |
//! | --- | --- |
//! | [`server`] | a server's URL |
//! | [`tls`] | TLS settings and the clock that certificates are checked against |
//! | [`connect`] | name, TCP and TLS, each under the deadline |
//! | [`http`] | the little of HTTP/1.1 that a POST and its answer need |
//! | [`client`] | one request, one answer |
//! | [`wait`] | kernel events that say when another attempt is worth it |
//! | [`race`] | `begin` at several servers at once |
//! | [`resolv`] | a resolver configuration where nobody wrote one |
//! | [`error`] | what went wrong, and when to try again |

pub mod client;
pub mod connect;
pub mod error;
pub mod http;
pub mod race;
pub mod resolv;
pub mod server;
pub mod tls;
pub mod wait;

pub use client::Client;
pub use error::{Again, Error};
pub use server::Server;
