//! What a machine boots: a firmware log, the policy that allows it, the proposal that announces it.

use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, ProposedImage};
use halfkey_testkit::swtpm::Swtpm;
use halfkey_testkit::{hex, log};

/// A kernel with its EFI stub, started by firmware without Secure Boot.
#[derive(Clone, Debug)]
pub struct Software {
    /// Version of the kernel; stands for its bytes and those of the initrd.
    pub version: String,
    pub command_line: String,
}

/// PCR, event type, what is measured, event data.
type Event = (u32, u32, Vec<u8>, Vec<u8>);

impl Default for Software {
    fn default() -> Self {
        Self::version("6.1.0-55")
    }
}

impl Software {
    pub fn version(version: &str) -> Self {
        let command_line = "root=UUID=0b1c quiet efi=noruntime systemd.import_credentials=no";
        Self { version: version.to_owned(), command_line: command_line.to_owned() }
    }

    pub fn with_command_line(&self, more: &str) -> Self {
        Self { command_line: format!("{} {more}", self.command_line), ..self.clone() }
    }

    fn kernel(&self) -> Vec<u8> {
        format!("kernel {}", self.version).into_bytes()
    }

    fn initrd(&self) -> Vec<u8> {
        format!("initrd {}", self.version).into_bytes()
    }

    pub fn path(&self) -> String {
        format!("\\vmlinuz-{}", self.version)
    }

    fn events(&self) -> Vec<Event> {
        const VARIABLE: u32 = 0x8000_0001;
        const APPLICATION: u32 = 0x8000_0003;
        const ACTION: u32 = 0x8000_0007;
        let mut events: Vec<Event> = Vec::new();
        let mut same = |pcr, kind, data: Vec<u8>| events.push((pcr, kind, data.clone(), data));
        for (vendor, name, value) in [
            (GLOBAL, "SecureBoot", &[0][..]),
            (GLOBAL, "PK", &[]),
            (GLOBAL, "KEK", &[]),
            (SECURITY, "db", &[]),
            (SECURITY, "dbx", &[]),
        ] {
            same(7, VARIABLE, variable(vendor, name, value));
        }
        same(4, ACTION, b"Calling EFI Application from Boot Option".to_vec());
        (0..8).for_each(|pcr| same(pcr, 4, vec![0; 4]));
        events.push((4, APPLICATION, self.kernel(), image_load(&self.path())));
        let options = [&utf16(&self.command_line)[..], &[0, 0]].concat();
        events.push((9, 6, options, tag(0x8f3b_22ed, b"LOADED_IMAGE::LoadOptions\0")));
        events.push((9, 6, self.initrd(), tag(0x8f3b_22ec, b"Linux initrd\0")));
        events.push((
            5,
            ACTION,
            b"Exit Boot Services Invocation".to_vec(),
            b"Exit Boot Services Invocation".to_vec(),
        ));
        events
    }

    /// `binary_bios_measurements`
    pub fn log(&self) -> Vec<u8> {
        let events = self.events();
        let events: Vec<log::Measured<'_>> = events
            .iter()
            .map(|(pcr, kind, measured, data)| (*pcr, *kind, &measured[..], &data[..]))
            .collect();
        log::crypto_agile(&events)
    }

    /// PCR 0 to 15 after it.
    pub fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        let mut pcrs = vec![vec![0; bank.digest_len()]; 16];
        for (pcr, _, measured, _) in self.events() {
            let pcr = &mut pcrs[pcr as usize];
            *pcr = bank.digest(&[pcr, &bank.digest(&[&measured])]);
        }
        pcrs.into_iter().map(Bytes).collect()
    }

    /// `/proc/cmdline`
    pub fn proc_cmdline(&self) -> Vec<u8> {
        format!("{}\n", self.command_line).into_bytes()
    }

    /// Measures what the log says.
    pub fn measure(&self, tpm: &Swtpm) {
        for (pcr, _, measured, _) in self.events() {
            tpm.measure(pcr as u8, &measured);
        }
    }

    /// The whole policy.
    pub fn policy(&self, name: &str) -> String {
        format!("{}{}", head(name), self.boot())
    }

    /// Its `[[boot]]`.
    pub fn boot(&self) -> String {
        let digest = |measured: &[u8]| format!("sha256:{}", hex(&Hash::Sha256.digest(&[measured])));
        format!(
            "[[boot]]\nname = \"{}\"\nkernel_measures_initrd = true\ninitrd = \"{}\"\n[[boot.image]]\nrole = \"kernel\"\nauthenticode = [\"{}\"]\n",
            self.version,
            digest(&self.initrd()),
            digest(&self.kernel())
        )
    }

    pub fn proposal(&self) -> Proposal {
        let digest = |measured: &[u8]| Bytes(Hash::Sha256.digest(&[measured]));
        Proposal {
            version: 1,
            name: self.version.clone(),
            bank: "sha256".into(),
            images: vec![ProposedImage {
                role: "kernel".into(),
                path: self.path(),
                authenticode: digest(&self.kernel()),
            }],
            sections: vec![],
            initrd: Some(digest(&self.initrd())),
            command_line: Some(self.command_line.clone()),
        }
    }
}

/// A policy up to its boots.
pub fn head(name: &str) -> String {
    format!(
        r#"format = 1
name = "{name}"
ignore = [1, 3, 5, 6]

[secure_boot]
required = false

[firmware]
pcr0 = []
pcr2 = []

[command_line]
allowed = ["root=UUID=*", "quiet"]
required = ["efi=noruntime", "systemd.import_credentials=no"]
forbidden = ["panic=*"]

"#
    )
}

/// `[trust_root_with_next_boot]`
pub fn trust(until: &str, count: u32) -> String {
    format!("[trust_root_with_next_boot]\nuntil = {until}\ncount = {count}\n\n")
}

const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
const SECURITY: [u8; 16] =
    [0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f];

/// `UEFI_VARIABLE_DATA`
fn variable(vendor: [u8; 16], name: &str, value: &[u8]) -> Vec<u8> {
    let mut data = vendor.to_vec();
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(utf16(name));
    data.extend(value);
    data
}

/// `UEFI_IMAGE_LOAD_EVENT` with a device path of a file.
fn image_load(path: &str) -> Vec<u8> {
    let name = [&utf16(path)[..], &[0, 0]].concat();
    let mut device_path = vec![4, 4];
    device_path.extend((name.len() as u16 + 4).to_le_bytes());
    device_path.extend(name);
    device_path.extend([0x7f, 0xff, 4, 0]);
    let mut data = Vec::new();
    for field in [0x1000, 0x2000, 0, device_path.len() as u64] {
        data.extend(field.to_le_bytes());
    }
    data.extend(device_path);
    data
}

/// `TCG_PCClientTaggedEvent`
fn tag(id: u32, data: &[u8]) -> Vec<u8> {
    let mut event = id.to_le_bytes().to_vec();
    event.extend((data.len() as u32).to_le_bytes());
    event.extend(data);
    event
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Allows what a node boots.
pub fn lax() -> String {
    Software::default().policy("lax")
}

/// Does not allow what the node boots.
pub fn strict() -> String {
    Software::version("6.1.0-56").policy("strict")
}
