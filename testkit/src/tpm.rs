//! A TPM with the keys of a node, spoken to directly: what an agent would have it do, without an agent.

use crate::swtpm::Swtpm;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::name;
use halfkey_protocol::tpm::template;
use halfkey_protocol::wire::{Credential, Register};
use halfkey_protocol::{Bytes, NodeId, identity};
use std::ops::{Deref, DerefMut};

const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;
const ENDORSEMENT: u32 = 0x4000_000b;
/// Where the keys are kept, so that tpm2-tools have all the room for their own.
const AK: u32 = 0x8101_f001;
const SRK: u32 = 0x8101_f000;

const CC_CREATE_PRIMARY: u32 = 0x131;
const CC_EVICT_CONTROL: u32 = 0x120;
const CC_ACTIVATE_CREDENTIAL: u32 = 0x147;
const CC_CERTIFY: u32 = 0x148;
const CC_NV_READ: u32 = 0x14e;
const CC_POLICY_SECRET: u32 = 0x151;
const CC_QUOTE: u32 = 0x158;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_NV_READ_PUBLIC: u32 = 0x169;
const CC_READ_PUBLIC: u32 = 0x173;
const CC_START_AUTH_SESSION: u32 = 0x176;
const CC_PCR_READ: u32 = 0x17e;

/// Handle and NV index of an EK and its certificate, as swtpm_setup lays them out.
#[derive(Clone, Copy)]
pub struct EkKind {
    handle: u32,
    certificate: u32,
}

/// The EK of the low range.
pub const RSA_2048: EkKind = EkKind { handle: 0x8101_0001, certificate: 0x01c0_0002 };
/// The EK of the high range.
pub const ECC_P384: EkKind = EkKind { handle: 0x8101_0016, certificate: 0x01c0_0016 };

/// A [`Swtpm`] with AK and SRK.
pub struct Tpm {
    swtpm: Swtpm,
    ek: EkKind,
    /// What its agent would send.
    pub register: Register,
}

impl Deref for Tpm {
    type Target = Swtpm;
    fn deref(&self) -> &Swtpm {
        &self.swtpm
    }
}

impl DerefMut for Tpm {
    fn deref_mut(&mut self) -> &mut Swtpm {
        &mut self.swtpm
    }
}

impl Tpm {
    /// Powered on, with this EK.
    pub fn new(ek: EkKind) -> Self {
        let register = Register {
            versions: vec![1],
            ek_public: Bytes(vec![]),
            ek_certificate: None,
            ek_chain: vec![],
            ak_public: Bytes(vec![]),
            srk_public: Bytes(vec![]),
            certify_info: Bytes(vec![]),
            certify_signature: Bytes(vec![]),
            label: "web1".into(),
        };
        let mut tpm = Self { swtpm: Swtpm::start(), ek, register };
        tpm.make_keys();
        tpm.register.ek_certificate = Some(tpm.read_nv(ek.certificate).into());
        tpm
    }

    /// Another machine's, with a copy of what this one has in its NV memory.
    pub fn copied(&self) -> Self {
        Self { swtpm: Swtpm::copied(self), ek: self.ek, register: self.register.clone() }
    }

    /// Makes AK and SRK, anew if the TPM was cleared.
    pub fn make_keys(&mut self) {
        for (hierarchy, template, kept) in [(OWNER, template::SRK, SRK), (ENDORSEMENT, template::AK, AK)] {
            let mut params = vec![0, 4, 0, 0, 0, 0];
            params.extend(tpm2b(&template.template()));
            params.extend([0; 6]);
            let answer = self.run(CC_CREATE_PRIMARY, &[hierarchy], &[PASSWORD], &params);
            let handle = u32::from_be_bytes(answer[..4].try_into().unwrap());
            let evict = |object: u32| {
                self.try_run(CC_EVICT_CONTROL, &[OWNER, object], &[PASSWORD], &kept.to_be_bytes())
            };
            if evict(handle).is_err() {
                // There is one already.
                evict(kept).unwrap();
                evict(handle).unwrap();
            }
            self.run(CC_FLUSH_CONTEXT, &[], &[], &handle.to_be_bytes());
        }
        let public = |handle| Bytes(sized(&self.run(CC_READ_PUBLIC, &[handle], &[], &[])).0.to_vec());
        let answer = self.run(CC_CERTIFY, &[SRK, AK], &[PASSWORD, PASSWORD], &[0, 0, 0, 0x10]);
        let (info, signature) = sized(&answer);
        self.register = Register {
            ek_public: public(self.ek.handle),
            ak_public: public(AK),
            srk_public: public(SRK),
            certify_info: info.into(),
            certify_signature: signature.into(),
            ..self.register.clone()
        };
    }

    /// By its EK.
    pub fn node_id(&self) -> NodeId {
        NodeId::from_ek_name(&name::object_name(&self.register.ek_public).unwrap())
    }

    /// Of its EK, as the operator compares it.
    pub fn fingerprint(&self) -> String {
        identity::fingerprint(&self.register.ek_public)
    }

    /// ActivateCredential with the EK (which wants a policy session).
    pub fn activate_with_ek(&self, credential: &Credential) -> Vec<u8> {
        self.try_with_ek(credential).unwrap()
    }

    /// The same; the TPM's response code when it refuses.
    pub fn try_with_ek(&self, credential: &Credential) -> Result<Vec<u8>, u32> {
        let mut start = vec![0, 16];
        start.extend([7; 16]);
        start.extend([0, 0, 1, 0, 0x10, 0, 0x0b]);
        let answer = self.run(CC_START_AUTH_SESSION, &[NULL, NULL], &[], &start);
        let session = u32::from_be_bytes(answer[..4].try_into().unwrap());
        self.run(CC_POLICY_SECRET, &[ENDORSEMENT, session], &[PASSWORD], &[0; 10]);
        let activated = self.activate(self.ek.handle, session, credential);
        if activated.is_err() {
            self.run(CC_FLUSH_CONTEXT, &[], &[], &session.to_be_bytes());
        }
        activated
    }

    /// ActivateCredential with the SRK.
    pub fn activate_with_srk(&self, credential: &Credential) -> Vec<u8> {
        self.activate(SRK, PASSWORD, credential).unwrap()
    }

    fn activate(&self, key: u32, session: u32, credential: &Credential) -> Result<Vec<u8>, u32> {
        let params = [tpm2b(&credential.id_object), tpm2b(&credential.secret)].concat();
        let answer = self.try_run(CC_ACTIVATE_CREDENTIAL, &[AK, key], &[PASSWORD, session], &params)?;
        Ok(sized(&answer).0.to_vec())
    }

    /// PCR 0 to 15 of a bank.
    pub fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        let mut values = Vec::new();
        for select in [[0xff, 0, 0], [0, 0xff, 0]] {
            let params = [&[0, 0, 0, 1][..], &bank.alg().to_be_bytes(), &[3], &select].concat();
            let answer = self.run(CC_PCR_READ, &[], &[], &params);
            // Counter, selection, count.
            let mut rest = &answer[4 + 10 + 4..];
            while !rest.is_empty() {
                let (value, after) = sized(rest);
                values.push(value.into());
                rest = after;
            }
        }
        values
    }

    /// TPM2_Quote of PCR 0 to 15 by the AK: `TPMS_ATTEST` and `TPMT_SIGNATURE`.
    pub fn quote(&self, bank: PcrBank, qualifying: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let selection = [&[0, 0, 0, 1][..], &bank.alg().to_be_bytes(), &[3, 0xff, 0xff, 0]].concat();
        let params = [tpm2b(qualifying), vec![0, 0x10], selection].concat();
        let answer = self.run(CC_QUOTE, &[AK], &[PASSWORD], &params);
        let (attest, signature) = sized(&answer);
        (attest.to_vec(), signature.to_vec())
    }

    fn read_nv(&self, index: u32) -> Vec<u8> {
        let public = self.run(CC_NV_READ_PUBLIC, &[index], &[], &[]);
        let public = sized(&public).0.to_vec();
        let size = usize::from(u16::from_be_bytes(public[public.len() - 2..].try_into().unwrap()));
        let mut out = Vec::new();
        while out.len() < size {
            let part = (size - out.len()).min(512) as u16;
            let params = [part.to_be_bytes(), (out.len() as u16).to_be_bytes()].concat();
            out.extend(sized(&self.run(CC_NV_READ, &[index, index], &[PASSWORD], &params)).0);
        }
        out
    }

    /// One command that must work.
    fn run(&self, code: u32, handles: &[u32], sessions: &[u32], params: &[u8]) -> Vec<u8> {
        self.try_run(code, handles, sessions, params)
            .unwrap_or_else(|status| panic!("TPM command {code:#x} failed with {status:#x}"))
    }

    /// One command. Gives the answer's handle (if it has one) and parameters, without sizes and
    /// sessions; or the response code.
    fn try_run(&self, code: u32, handles: &[u32], sessions: &[u32], params: &[u8]) -> Result<Vec<u8>, u32> {
        let mut body = code.to_be_bytes().to_vec();
        handles.iter().for_each(|handle| body.extend(handle.to_be_bytes()));
        if !sessions.is_empty() {
            body.extend((9 * sessions.len() as u32).to_be_bytes());
            for session in sessions {
                body.extend(session.to_be_bytes());
                body.extend([0; 5]);
            }
        }
        body.extend(params);
        let tag: u16 = if sessions.is_empty() { 0x8001 } else { 0x8002 };
        let mut command = tag.to_be_bytes().to_vec();
        command.extend((body.len() as u32 + 6).to_be_bytes());
        command.extend(body);

        let mut answer = self.command(&command);
        let status = u32::from_be_bytes(answer[6..10].try_into().unwrap());
        answer.drain(..10);
        if status != 0 {
            return Err(status);
        }
        if !sessions.is_empty() {
            // CreatePrimary answers with a handle before the size of the parameters.
            let at = if code == CC_CREATE_PRIMARY { 4 } else { 0 };
            let size = u32::from_be_bytes(answer[at..at + 4].try_into().unwrap()) as usize;
            answer.truncate(at + 4 + size);
            answer.drain(at..at + 4);
        }
        Ok(answer)
    }
}

fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The first TPM2B and what follows.
fn sized(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = usize::from(u16::from_be_bytes(bytes[..2].try_into().unwrap()));
    bytes[2..].split_at(len)
}
