//! The agent on a real TPM, and tss-esapi on the same one as an oracle.
//!
//! swtpm serves one connection at a time: drop the agent's [`Tpm`] before you ask
//! the oracle or a tpm2-tools program, and the other way round.
#![allow(dead_code)] // each test file uses a part

use halfkey_agent::tpm::{Location, Tpm};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_testkit::swtpm;
use std::ops::{Deref, DerefMut};
use tss_esapi::Context;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Digest, Public, Signature};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::UnMarshall;

/// A TPM behind a port.
pub struct Swtpm(swtpm::Swtpm);

impl Deref for Swtpm {
    type Target = swtpm::Swtpm;
    fn deref(&self) -> &swtpm::Swtpm {
        &self.0
    }
}

impl DerefMut for Swtpm {
    fn deref_mut(&mut self) -> &mut swtpm::Swtpm {
        &mut self.0
    }
}

impl Swtpm {
    /// A fresh, started TPM with banks SHA-1, SHA-256 and SHA-384.
    pub fn start() -> Self {
        Self(swtpm::Swtpm::on_port())
    }

    /// A TPM that nobody has started (TPM2_Startup).
    pub fn not_started() -> Self {
        let mut swtpm = Self::start();
        swtpm.power_on_unstarted().expect("swtpm starts");
        swtpm
    }

    /// The same TPM, started anew, behind a socket in the file system.
    pub fn restart_on_unix_socket(&mut self) -> Location {
        Location::Unix(self.move_to_socket())
    }

    pub fn location(&self) -> Location {
        self.0.location().parse().expect("a location")
    }

    pub fn open(&self) -> Tpm {
        Tpm::open(&self.location()).expect("open swtpm")
    }

    /// The oracle.
    pub fn oracle(&self) -> Context {
        Context::new(self.tcti().parse::<TctiNameConf>().expect("a TCTI")).expect("tss-esapi connects")
    }

    /// Whether the oracle accepts this signature of the AK.
    pub fn oracle_accepts(&self, ak: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let mut oracle = self.oracle();
        let ak = Public::unmarshall(ak).expect("TPMT_PUBLIC");
        let ak = oracle.load_external_public(ak, Hierarchy::Null).expect("load the AK");
        let digest = Digest::try_from(Hash::Sha256.digest(&[message])).expect("a digest");
        let signature = Signature::unmarshall(signature).expect("TPMT_SIGNATURE");
        let accepted = oracle.verify_signature(ak, digest, signature);
        oracle.flush_context(ak.into()).expect("flush");
        accepted.is_ok()
    }

    /// Runs a program of tpm2-tools on this TPM, arguments split at spaces; gives what it prints.
    pub fn told(&self, line: &str) -> String {
        let mut words = line.split(' ');
        self.0.tool(words.next().expect("a program"), &words.collect::<Vec<_>>())
    }

    /// The same, for what it does.
    pub fn tool(&self, line: &str) {
        self.told(line);
    }
}
