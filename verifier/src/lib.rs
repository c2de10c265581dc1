//! The servers of Halfkey: registrar and verifier in one program.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | commands and flags |
//! | [`config`] | the settings file and the state folder |
//! | [`init`], [`pki`], [`keys`] | making a state folder: CA, certificates, key files |
//! | [`key_files`], [`seal_keys`], [`tpm`], [`locked`] | keys that the TPM of this host seals, or signs with |
//! | [`backup`], [`migrate`] | copies of a state folder, there and back; from SQLite to PostgreSQL |
//! | [`cluster_key`] | another cluster key in the place of the one in use |
//! | [`serve`], [`tls`], [`client`] | what `serve` puts together; TLS in and out |
//! | [`reload`], [`current`] | what is read again while it serves |
//! | [`clock`] | the time |
//! | [`http`] | HTTP: nodes, operators, the verifier asking its registrar |
//! | [`registrar`] | registrations, here or on another host |
//! | [`appraisal`] | what a piece of evidence is worth: the order of checks |
//! | [`policies`] | what governs a node; proposals |
//! | [`nonce`] | stateless nonces |
//! | [`domain`] | what is decided by what is recorded; every change is one durable transaction |
//! | [`store`] | what keeps rows: SQLite, PostgreSQL, and memory for tests |
//! | [`standbys`] | whether a failover of the database forgets something |
//! | [`events`] | what has happened, for who waits |
//! | [`webhooks`] | who is told what has happened, at addresses of the operator's own |
//! | [`metrics`] | what is counted and measured, for Prometheus |
//! | [`long_poll`], [`limit`] | held-open requests; rates, slots for connections, memory |

pub mod appraisal;
pub mod backup;
mod cache;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster_key;
pub mod config;
pub mod current;
pub mod domain;
pub mod events;
pub mod failure;
pub mod http;
pub mod init;
pub mod key_files;
pub mod keys;
pub mod limit;
pub mod locked;
pub mod long_poll;
pub mod metrics;
pub mod migrate;
pub mod nonce;
mod parked;
pub mod pki;
pub mod policies;
pub mod proxy;
mod pulse;
pub mod registrar;
pub mod reload;
pub mod seal_keys;
pub mod serve;
pub mod standbys;
pub mod store;
pub mod tls;
pub mod tpm;
pub mod webhooks;

pub use clock::Clock;
pub use failure::Failure;

/// Seconds since 1970, UTC.
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// So many of something: `1 node`, `2 nodes`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Seconds since 1970 as RFC 3339 has it, for programs; the time before all times if it is none of four digits for a year.
pub fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| x509_parser::time::ASN1Time::from_timestamp(s).ok());
    let time = time.map(|time| time.to_datetime()).filter(|time| time.year() < 10_000);
    time.map_or_else(
        || "0000-01-01T00:00:00Z".to_owned(),
        |time| {
            let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
            format!(
                "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
                time.hour(),
                time.minute(),
                time.second()
            )
        },
    )
}

/// How far ahead the clock of an operator's machine may be, in seconds.
pub const CLOCK_TOLERANCE: u64 = 86_400;

/// Seconds since 1970 as a date and time, for people.
pub fn utc(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|s| x509_parser::time::ASN1Time::from_timestamp(s).ok());
    time.map_or_else(|| format!("{seconds} s after 1970"), |time| time.to_string())
}
