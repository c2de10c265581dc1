//! A real TPM (swtpm, manufactured with EK certificates by a CA of its own), spoken to directly.

use halfkey_protocol::kdf::Hash;
use halfkey_protocol::template;
use halfkey_protocol::wire::{Credential, Register};
use halfkey_protocol::{Bytes, NodeId, identity};
use std::fs::{self, DirBuilder};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const OWNER: u32 = 0x4000_0001;
const NULL: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;
const ENDORSEMENT: u32 = 0x4000_000b;

/// Handle and NV index of an EK, as swtpm_setup lays them out.
#[derive(Clone, Copy)]
pub struct EkKind {
    handle: u32,
    certificate: u32,
}

pub const RSA_2048: EkKind = EkKind { handle: 0x8101_0001, certificate: 0x01c0_0002 };
pub const ECC_P384: EkKind = EkKind { handle: 0x8101_0016, certificate: 0x01c0_0016 };

/// The TPM ends when this is dropped.
pub struct Tpm {
    stream: Mutex<UnixStream>,
    dir: tempfile::TempDir,
    ak: u32,
    srk: u32,
    ek: EkKind,
    /// PCR 0 to 15 of the SHA-256 bank, kept in step.
    pcrs: Mutex<Vec<Vec<u8>>>,
    /// What its agent would send.
    pub register: Register,
}

impl Tpm {
    pub fn new(ek: EkKind) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let socket = manufacture(dir.path());
        let stream = Mutex::new(UnixStream::connect(socket).unwrap());
        let (srk, srk_public) = create_primary(&stream, OWNER, &template::SRK.template());
        let (ak, ak_public) = create_primary(&stream, ENDORSEMENT, &template::AK.template());
        let answer = run(&stream, 0x148, &[srk, ak], &[PASSWORD, PASSWORD], &[0, 0, 0, 0x10]);
        let (certify_info, certify_signature) = sized(&answer);
        let ek_public = run(&stream, 0x173, &[ek.handle], &[], &[]);
        let register = Register {
            versions: vec![1],
            ek_public: sized(&ek_public).0.into(),
            ek_certificate: Some(read_nv(&stream, ek.certificate).into()),
            ek_chain: vec![],
            ak_public: ak_public.into(),
            srk_public: srk_public.into(),
            certify_info: certify_info.into(),
            certify_signature: certify_signature.into(),
            label: "web1".into(),
        };
        let pcrs = Mutex::new(vec![vec![0; 32]; 16]);
        Self { stream, dir, ak, srk, ek, pcrs, register }
    }

    pub fn node_id(&self) -> NodeId {
        NodeId::from_ek_name(&identity::object_name(&self.register.ek_public).unwrap())
    }

    pub fn fingerprint(&self) -> String {
        identity::fingerprint(&self.register.ek_public)
    }

    /// The folder with the certificates of this TPM's manufacturer, and private keys beside them.
    pub fn roots(&self) -> PathBuf {
        self.dir.path().join("ca")
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
        let answer = run(&self.stream, 0x176, &[NULL, NULL], &[], &start);
        let session = u32::from_be_bytes(answer[..4].try_into().unwrap());
        run(&self.stream, 0x151, &[ENDORSEMENT, session], &[PASSWORD], &[0; 10]);
        self.activate(self.ek.handle, session, credential)
    }

    /// ActivateCredential with the SRK.
    pub fn activate_with_srk(&self, credential: &Credential) -> Vec<u8> {
        self.activate(self.srk, PASSWORD, credential).unwrap()
    }

    /// TPM2_PCR_Extend in the SHA-256 bank.
    pub fn extend(&self, pcr: u8, digest: &[u8]) {
        let params = [&[0, 0, 0, 1, 0, 0x0b][..], digest].concat();
        run(&self.stream, 0x182, &[pcr.into()], &[PASSWORD], &params);
        let value = &mut self.pcrs.lock().unwrap()[usize::from(pcr)];
        *value = Hash::Sha256.digest(&[value, digest]);
    }

    /// PCR 0 to 15.
    pub fn pcrs(&self) -> Vec<Bytes> {
        self.pcrs.lock().unwrap().iter().map(|value| value.clone().into()).collect()
    }

    /// TPM2_Quote of PCR 0 to 15 by the AK: `TPMS_ATTEST` and `TPMT_SIGNATURE`.
    pub fn quote(&self, qualifying: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
        let selection = [0, 0x10, 0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0];
        let params = [tpm2b(qualifying), selection.to_vec()].concat();
        let answer = run(&self.stream, 0x158, &[self.ak], &[PASSWORD], &params);
        let (attest, signature) = sized(&answer);
        (attest.to_vec(), signature.to_vec())
    }

    /// Power off and on: PCRs are zero, resetCount grows, transient keys are made again.
    pub fn reset(&self) {
        run(&self.stream, 0x145, &[], &[], &[0, 0]);
        let control = format!("{}", self.dir.path().join("control").display());
        let done = Command::new("swtpm_ioctl").args(["--unix", &control, "-i"]).status();
        assert!(done.expect("swtpm_ioctl is installed").success());
        run(&self.stream, 0x144, &[], &[], &[0, 0]);
        assert_eq!(create_primary(&self.stream, OWNER, &template::SRK.template()).0, self.srk);
        assert_eq!(create_primary(&self.stream, ENDORSEMENT, &template::AK.template()).0, self.ak);
        self.pcrs.lock().unwrap().iter_mut().for_each(|value| value.fill(0));
    }

    fn activate(&self, key: u32, session: u32, credential: &Credential) -> Result<Vec<u8>, u32> {
        let params = [tpm2b(&credential.id_object), tpm2b(&credential.secret)].concat();
        let answer = try_run(&self.stream, 0x147, &[self.ak, key], &[PASSWORD, session], &params)?;
        Ok(sized(&answer).0.to_vec())
    }
}

/// Makes the TPM's state with EK certificates and starts it; gives its socket.
fn manufacture(dir: &Path) -> PathBuf {
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    for name in ["state", "ca"] {
        DirBuilder::new().mode(0o700).create(at(name)).unwrap();
    }
    let setup = format!(
        "create_certs_tool=/usr/bin/swtpm_localca\ncreate_certs_tool_config={}\ncreate_certs_tool_options={}\n",
        at("localca.conf"),
        at("options")
    );
    let ca = at("ca");
    let localca = format!(
        "statedir={ca}\nsigningkey={ca}/signkey.pem\nissuercert={ca}/issuercert.pem\ncertserial={ca}/certserial\n"
    );
    fs::write(at("setup.conf"), setup).unwrap();
    fs::write(at("localca.conf"), localca).unwrap();
    let options = "--platform-manufacturer halfkey\n--platform-version 1\n--platform-model test\n";
    fs::write(at("options"), options).unwrap();
    let made = Command::new("swtpm_setup")
        .args(["--tpm2", "--create-ek-cert", "--overwrite", "--pcr-banks", "sha256"])
        .args(["--tpmstate", &at("state"), "--config", &at("setup.conf")])
        .output()
        .expect("swtpm_setup is installed (Debian: swtpm-tools)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    // --daemon: it returns when the socket is there. --terminate: it ends with the connection.
    let started = Command::new("swtpm")
        .args(["socket", "--tpm2", "--daemon", "--terminate", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", at("state"))])
        .args(["--server", &format!("type=unixio,path={}", at("sock"))])
        .args(["--ctrl", &format!("type=unixio,path={}", at("control"))])
        .status()
        .expect("swtpm is installed");
    assert!(started.success());
    dir.join("sock")
}

fn create_primary(stream: &Mutex<UnixStream>, hierarchy: u32, template: &[u8]) -> (u32, Vec<u8>) {
    let mut params = vec![0, 4, 0, 0, 0, 0];
    params.extend(tpm2b(template));
    params.extend([0; 6]);
    let mut answer = run(stream, 0x131, &[hierarchy], &[PASSWORD], &params);
    let handle: Vec<u8> = answer.drain(..4).collect();
    (u32::from_be_bytes(handle.try_into().unwrap()), sized(&answer).0.to_vec())
}

fn read_nv(stream: &Mutex<UnixStream>, index: u32) -> Vec<u8> {
    let public = run(stream, 0x169, &[index], &[], &[]);
    let public = sized(&public).0.to_vec();
    let size = usize::from(u16::from_be_bytes(public[public.len() - 2..].try_into().unwrap()));
    let mut out = Vec::new();
    while out.len() < size {
        let part = (size - out.len()).min(512) as u16;
        let params = [part.to_be_bytes(), (out.len() as u16).to_be_bytes()].concat();
        out.extend(sized(&run(stream, 0x14e, &[index, index], &[PASSWORD], &params)).0);
    }
    out
}

/// One command that must work.
fn run(stream: &Mutex<UnixStream>, code: u32, handles: &[u32], sessions: &[u32], params: &[u8]) -> Vec<u8> {
    try_run(stream, code, handles, sessions, params)
        .unwrap_or_else(|status| panic!("TPM command {code:#x} failed with {status:#x}"))
}

/// One command. Gives the answer's handle (if it has one) and parameters, without sizes and
/// sessions; or the response code.
fn try_run(
    stream: &Mutex<UnixStream>,
    code: u32,
    handles: &[u32],
    sessions: &[u32],
    params: &[u8],
) -> Result<Vec<u8>, u32> {
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

    let mut stream = stream.lock().unwrap();
    stream.write_all(&command).unwrap();
    let mut head = [0; 10];
    stream.read_exact(&mut head).unwrap();
    let size = u32::from_be_bytes(head[2..6].try_into().unwrap()) as usize;
    let mut answer = vec![0; size - 10];
    stream.read_exact(&mut answer).unwrap();
    let status = u32::from_be_bytes(head[6..].try_into().unwrap());
    if status != 0 {
        return Err(status);
    }
    if !sessions.is_empty() {
        // CreatePrimary answers with a handle before the size of the parameters.
        let at = if code == 0x131 { 4 } else { 0 };
        let size = u32::from_be_bytes(answer[at..at + 4].try_into().unwrap()) as usize;
        answer.truncate(at + 4 + size);
        answer.drain(at..at + 4);
    }
    Ok(answer)
}

fn tpm2b(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The first TPM2B and what follows.
fn sized(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = usize::from(u16::from_be_bytes(bytes[..2].try_into().unwrap()));
    bytes[2..].split_at(len)
}

/// A changed copy.
pub fn flipped(bytes: &Bytes, at: usize) -> Bytes {
    let mut bytes = bytes.clone();
    bytes.0[at] ^= 1;
    bytes
}
