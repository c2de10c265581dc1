//! LUKS2 volumes in files, and ways to craft what cryptsetup would not make.

#![allow(clippy::unwrap_used, dead_code, reason = "a test that fails here should say where")]

use halfkey_agent::luks::Token;
use halfkey_agent::net::Server;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::{Half, Key, NodeId, Role};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Opens keyslot 0.
pub const PASSPHRASE: &[u8] = b"correct horse";

/// A volume of 32 MiB (sparse) in a folder of its own.
pub struct Volume {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Volume {
    /// With cryptsetup's defaults, and PBKDF2 so that it is quick.
    pub fn new() -> Self {
        Self::with(&[], PASSPHRASE)
    }

    /// With more arguments of luksFormat.
    pub fn with(args: &[&str], passphrase: &[u8]) -> Self {
        let volume = Self::empty();
        File::create(volume.path()).unwrap().set_len(96 << 20).unwrap();
        std::fs::write(volume.key_file(), passphrase).unwrap();
        let typed = args.contains(&"--type");
        let mut all =
            vec!["luksFormat", "--batch-mode", "--pbkdf-force-iterations", "1000", "--key-file", "-"];
        if !typed {
            all.extend(["--type", "luks2", "--pbkdf", "pbkdf2"]);
        }
        all.extend(args);
        volume.cryptsetup(&all, passphrase).unwrap();
        volume
    }

    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("volume"), folder }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("key")
    }

    pub fn size(&self) -> u64 {
        std::fs::metadata(self.path()).unwrap().len()
    }

    /// A copy to craft in.
    pub fn clone_file(&self) -> Self {
        let other = Self::empty();
        // The metadata is enough, and quicker than 96 MiB.
        let mut start = vec![0; 1 << 20];
        File::open(self.path()).unwrap().read_exact_at(&mut start, 0).unwrap();
        let file = File::create(other.path()).unwrap();
        file.write_all_at(&start, 0).unwrap();
        file.set_len(self.size()).unwrap();
        other
    }

    /// Runs cryptsetup on the volume.
    pub fn cryptsetup(&self, args: &[&str], input: &[u8]) -> Result<(), String> {
        let mut command = Command::new("cryptsetup");
        command.args(args).arg(self.path());
        run(command, input)
    }

    /// The same for commands that take the new key from a file behind the device.
    pub fn cryptsetup_with_new_key(&self, args: &[&str], new: &[u8]) -> Result<(), String> {
        let file = self.folder.path().join("new");
        std::fs::write(&file, new).unwrap();
        let mut command = Command::new("cryptsetup");
        command.args(args).arg("--key-file").arg(self.key_file()).arg(self.path()).arg(file);
        run(command, b"")
    }

    /// Changes one byte.
    pub fn damage(&self, at: u64) {
        let file = File::options().read(true).write(true).open(self.path()).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[!byte[0]], at).unwrap();
    }

    /// Changes the JSON of both copies and makes their checksums right.
    pub fn rewrite(&self, change: &dyn Fn(&mut Value)) {
        let file = File::options().read(true).write(true).open(self.path()).unwrap();
        for at in [0, 0x4000] {
            let mut area = vec![0; 0x4000];
            file.read_exact_at(&mut area, at).unwrap();
            let text = area[4096..].split(|byte| *byte == 0).next().unwrap();
            let mut json: Value = serde_json::from_slice(text).unwrap();
            change(&mut json);
            let mut text = serde_json::to_vec(&json).unwrap();
            text.resize(area.len() - 4096, 0);
            area[4096..].copy_from_slice(&text);
            mend(&mut area);
            file.write_all_at(&area, at).unwrap();
        }
    }
}

/// Makes the checksum right.
pub fn mend(area: &mut [u8]) {
    area[448..512].fill(0);
    let checksum = Hash::Sha256.digest(&[area]);
    area[448..480].copy_from_slice(&checksum);
}

/// One volume for tests that only read.
pub fn shared() -> &'static Volume {
    static SHARED: OnceLock<Volume> = OnceLock::new();
    SHARED.get_or_init(Volume::new)
}

/// The key of an enrollment.
pub fn key() -> Key {
    Key::combine(&Half::take(&mut [1; 32]).unwrap(), &Half::take(&mut [2; 32]).unwrap())
}

/// The key of another.
pub fn other_key() -> Key {
    Key::combine(&Half::take(&mut [1; 32]).unwrap(), &Half::take(&mut [4; 32]).unwrap())
}

/// A token as enrollment makes it, `enrolled_at` this many seconds after the first.
pub fn token(enrolled_at: u64) -> Token {
    Token {
        slot: 0,
        complete: false,
        node: NodeId([0x80; 16]),
        enrollment: format!("{enrolled_at:08x}-fe84-4fc3-be1c-f947e595762f"),
        servers: vec![Server::parse("https://10.0.2.2:8443").unwrap()],
        ca: "-----BEGIN CERTIFICATE-----\n".into(),
        sealed_public: vec![1; 78],
        sealed_private: vec![2; 160],
        srk_name: vec![3; 34],
        bank: PcrBank::Sha256,
        release_public: vec![4; 88],
        enrolled_at: 1_800_000_000 + enrolled_at,
        mapping: "root".into(),
        role: Role::Root,
        flags: Vec::new(),
        volumes: vec!["0afd6329-fe84-4fc3-be1c-f947e595762f".into()],
        seal: None,
    }
}

fn run(mut command: Command, input: &[u8]) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
