//! A real TPM (swtpm) and what a node would send, made with tpm2-tools.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

pub mod boots;
pub mod pins;

use halfkey_evidence::public::AkPublic;
use halfkey_evidence::quote::QuoteContext;
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::qualifying_data::QualifyingData;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{Credential, Evidence, Purpose, Register};
use std::fs;
use std::ops::Deref;

use halfkey_testkit::swtpm;
pub use halfkey_testkit::{hex, log};

/// A TPM, and what tpm2-tools make of it: another implementation than the one under test.
pub struct Swtpm(swtpm::Swtpm);

impl Deref for Swtpm {
    type Target = swtpm::Swtpm;
    fn deref(&self) -> &swtpm::Swtpm {
        &self.0
    }
}

impl Swtpm {
    pub fn start() -> Self {
        Self(swtpm::Swtpm::start())
    }

    /// Runs one of tpm2-tools in the TPM's folder.
    pub fn tool(&self, name: &str, args: &[&str]) {
        self.0.tool("tpm2_flushcontext", &["-t"]);
        self.0.tool(name, args);
    }

    /// `TPMT_PUBLIC` of a context file or persistent handle.
    pub fn public(&self, object: &str) -> Vec<u8> {
        self.tool("tpm2_readpublic", &["-c", object, "-f", "tpmt", "-o", "out.pub"]);
        self.read("out.pub")
    }

    /// An NV index that the owner may read.
    pub fn nv(&self, index: &str) -> Vec<u8> {
        self.tool("tpm2_nvread", &[index, "-C", "o", "-o", "out.nv"]);
        self.read("out.nv")
    }

    /// Makes `ak.ctx` and `srk.ctx` of our templates.
    pub fn make_keys(&self) {
        self.primary("e", AK_ALG, AK_ATTRIBUTES, "ak.ctx");
        self.primary("o", SRK_ALG, SRK_ATTRIBUTES, "srk.ctx");
        assert!(template::AK.point(&self.public("ak.ctx")).is_some());
        assert!(template::SRK.point(&self.public("srk.ctx")).is_some());
    }

    pub fn primary(&self, hierarchy: &str, alg: &str, attributes: &str, context: &str) {
        self.tool(
            "tpm2_createprimary",
            &["-C", hierarchy, "-g", "sha256", "-G", alg, "-a", attributes, "-c", context],
        );
    }

    /// TPM2_Certify with empty qualifying data: `TPMS_ATTEST` and `TPMT_SIGNATURE`.
    ///
    /// As a raw command, because tpm2_certify has qualifying data of its own.
    pub fn certify(&self, object: &str, by: &str) -> (Vec<u8>, Vec<u8>) {
        const HANDLES: [(&str, [u8; 4]); 2] =
            [("0x8101f000", [0x81, 0x01, 0xf0, 0x00]), ("0x8101f001", [0x81, 0x01, 0xf0, 0x01])];
        let mut command = vec![0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x48];
        for ((name, handle), context) in HANDLES.iter().zip([object, by]) {
            self.tool("tpm2_evictcontrol", &["-C", "o", "-c", context, name]);
            command.extend(handle);
        }
        let password = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
        command.extend([0, 0, 0, 18]);
        command.extend([password, password].concat());
        command.extend([0, 0, 0, 0x10]); // no qualifying data, the key's own scheme
        let size = command.len() as u32;
        command[2..6].copy_from_slice(&size.to_be_bytes());
        fs::write(self.path("command"), command).unwrap();
        self.tool("tpm2_send", &["-o", "response", "command"]);
        for (name, _) in HANDLES {
            self.tool("tpm2_evictcontrol", &["-C", "o", "-c", name]);
        }
        let response = self.read("response");
        assert_eq!(response[6..10], [0; 4], "TPM2_Certify: {}", hex(&response));
        // Header 10, size of the parameters 4, TPM2B_ATTEST, TPMT_SIGNATURE, two sessions of 5.
        let length = usize::from(u16::from_be_bytes([response[14], response[15]]));
        let (attest, signature) = response[16..response.len() - 10].split_at(length);
        (attest.to_vec(), signature.to_vec())
    }

    /// What a node sends for an EK at a persistent handle, its certificate in NV.
    /// [`Self::make_keys`] was called.
    pub fn register(&self, ek: &str, certificate: Option<&str>) -> Register {
        let (info, signature) = self.certify("srk.ctx", "ak.ctx");
        Register {
            versions: vec![1],
            ek_public: self.public(ek).into(),
            ek_certificate: certificate.map(|index| self.nv(index).into()),
            ek_chain: Vec::new(),
            ak_public: self.public("ak.ctx").into(),
            srk_public: self.public("srk.ctx").into(),
            certify_info: info.into(),
            certify_signature: signature.into(),
            label: "node".to_owned(),
        }
    }

    /// TPM2_ActivateCredential for the AK with a key; whether by PolicySecret of the
    /// endorsement hierarchy or by the key's own empty password. `None`: refused.
    pub fn activate(&self, credential: &Credential, key: &str, policy: bool) -> Option<Vec<u8>> {
        let mut blob = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
        for field in [&credential.id_object, &credential.secret] {
            blob.extend((field.len() as u16).to_be_bytes());
            blob.extend_from_slice(field);
        }
        fs::write(self.path("blob"), blob).unwrap();
        let _ = fs::remove_file(self.path("secret"));
        let mut args = vec!["-c", "ak.ctx", "-C", key, "-i", "blob", "-o", "secret"];
        if policy {
            self.tool("tpm2_startauthsession", &["--policy-session", "-S", "session.ctx"]);
            self.tool("tpm2_policysecret", &["-S", "session.ctx", "-c", "e"]);
            args.extend(["-P", "session:session.ctx"]);
        }
        self.0.tool("tpm2_flushcontext", &["-t"]);
        let opened = self.tool_command("tpm2_activatecredential", &args).output().unwrap().status.success();
        if policy {
            self.0.tool("tpm2_flushcontext", &["session.ctx"]);
        }
        opened.then(|| self.read("secret"))
    }

    /// What firmware does at the least: a separator in each of PCR 0 to 7.
    pub fn separators(&self) {
        (0..8).for_each(|pcr| self.measure(pcr, &[0; 4]));
    }

    /// A quote over a selection as tpm2-tools writes it.
    pub fn quote(&self, selection: &str, qualifying: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.tool(
            "tpm2_quote",
            &[
                "-c",
                "ak.ctx",
                "-l",
                selection,
                "-q",
                &hex(qualifying),
                "-g",
                "sha256",
                "-m",
                "att",
                "-s",
                "sig",
            ],
        );
        (self.read("att"), self.read("sig"))
    }

    /// PCR 0 to 15.
    pub fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        self.0.tool("tpm2_pcrread", &["-o", "pcrs", &all_pcrs(bank)]);
        self.read("pcrs").chunks(bank.digest_len()).map(Bytes::from).collect()
    }

    /// Evidence for an exchange.
    pub fn evidence(&self, exchange: &Exchange, bank: PcrBank) -> Evidence {
        let (quote, signature) = self.quote(&all_pcrs(bank), &exchange.qualifying_data().digest());
        Evidence {
            version: 1,
            node_id: String::new(),
            purpose: "boot".to_owned(),
            nonce: exchange.nonce.into(),
            hpke_public: exchange.hpke_public.into(),
            nonce_tpm: exchange.nonce_tpm.into(),
            purpose_data: exchange.purpose_data.into(),
            quote: quote.into(),
            signature: signature.into(),
            bank: bank.name().to_owned(),
            pcrs: self.pcrs(bank),
            event_log: None,
            systemd_log: None,
            ima_log: None,
            command_line: None,
            agent: "test".to_owned(),
        }
    }

    /// The certificates of its CA, as a roots folder would have them.
    pub fn roots(&self) -> halfkey_evidence::ek::Roots {
        let mut roots = halfkey_evidence::ek::Roots::default();
        for file in ["ca/issuercert.pem", "ca/swtpm-localca-rootca-cert.pem"] {
            let (more, skipped) = halfkey_evidence::ek::Roots::from_pem_or_der(&self.read(file));
            assert_eq!(skipped, 0);
            roots.extend(more);
        }
        roots
    }
}

pub const AK_ALG: &str = "ecc256:ecdsa-sha256:null";
pub const AK_ATTRIBUTES: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
pub const SRK_ALG: &str = "ecc256:null:aes128cfb";
pub const SRK_ATTRIBUTES: &str =
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";

pub const RSA_EK: (&str, &str) = ("0x81010001", "0x01c00002");
pub const P384_EK: (&str, &str) = ("0x81010016", "0x01c00016");

/// What both sides of an exchange know.
#[derive(Clone)]
pub struct Exchange {
    pub node: [u8; 16],
    pub nonce: [u8; 48],
    pub hpke_public: [u8; 32],
    pub nonce_tpm: [u8; 32],
    pub srk_name: Vec<u8>,
    pub purpose_data: [u8; 32],
}

impl Exchange {
    pub fn new() -> Self {
        Self {
            node: [1; 16],
            nonce: [2; 48],
            hpke_public: [3; 32],
            nonce_tpm: [4; 32],
            srk_name: vec![5; 34],
            purpose_data: [6; 32],
        }
    }

    pub fn qualifying_data(&self) -> QualifyingData<'_> {
        QualifyingData {
            version: 1,
            node: &self.node,
            purpose: Purpose::Boot,
            nonce: &self.nonce,
            hpke_public: &self.hpke_public,
            nonce_tpm: &self.nonce_tpm,
            srk_name: &self.srk_name,
            purpose_data: &self.purpose_data,
        }
    }

    pub fn context<'a>(&'a self, ak: &'a AkPublic, bank: PcrBank) -> QuoteContext<'a> {
        QuoteContext { ak, qualifying_data: self.qualifying_data(), bank }
    }
}

pub fn all_pcrs(bank: PcrBank) -> String {
    format!("{}:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15", bank.name())
}
