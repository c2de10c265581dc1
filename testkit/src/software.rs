//! What a machine boots that never was: UEFI without Secure Boot, a kernel with its EFI stub. The firmware's log of it, the policy
//! that allows it, the proposal that announces it.

use crate::hex;
use crate::log::{self, Record, kind, tag, write};
use crate::secure_boot::{GLOBAL, SECURITY, variable};
use crate::swtpm::Swtpm;
use halfkey_protocol::Bytes;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::{Proposal, ProposedImage};

/// A kernel and its initrd, and what the firmware did before it.
#[derive(Clone, Debug)]
pub struct Software {
    /// The kernel's version.
    pub version: String,
    /// Where the kernel is, as firmware says it.
    pub path: String,
    /// Authenticode digest of the kernel, SHA-256.
    pub kernel: Vec<u8>,
    /// Digest of the initrd, SHA-256.
    pub initrd: Vec<u8>,
    /// The kernel's command line.
    pub command_line: String,
    /// What the firmware is measured as; nothing if it measures nothing of itself.
    pub firmware: Option<Vec<u8>>,
    /// Values of the variables PK, KEK and db; Secure Boot is off all the same.
    pub keys: [Vec<u8>; 3],
    /// Authenticode digests of what was started before the kernel, and came back to the firmware.
    pub returned: Vec<Vec<u8>>,
}

impl Default for Software {
    fn default() -> Self {
        Self::version("6.1.0-55")
    }
}

impl Software {
    /// With this kernel, and the command line that [`Software::policy`] allows.
    pub fn version(version: &str) -> Self {
        Self::new(version, "root=UUID=0b1c quiet efi=noruntime systemd.import_credentials=no")
    }

    /// With this kernel and command line.
    pub fn new(version: &str, command_line: &str) -> Self {
        let digest = |what: &str| Hash::Sha256.digest(&[what.as_bytes(), version.as_bytes()]);
        Self {
            version: version.to_owned(),
            path: format!("\\vmlinuz-{version}"),
            kernel: digest("kernel"),
            initrd: digest("initrd"),
            command_line: command_line.to_owned(),
            firmware: None,
            keys: Default::default(),
            returned: Vec::new(),
        }
    }

    /// Whose firmware is measured as this.
    #[must_use]
    pub fn on_firmware(self, firmware: &[u8]) -> Self {
        Self { firmware: Some(firmware.to_vec()), ..self }
    }

    /// With more options at the end of its command line.
    #[must_use]
    pub fn with_command_line(&self, more: &str) -> Self {
        Self { command_line: format!("{} {more}", self.command_line), ..self.clone() }
    }

    /// What is measured, in order.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        if let Some(firmware) = &self.firmware {
            records.push(Record::of(0, kind::S_CRTM_VERSION, &utf16("1.0\0")));
            records.push(digest(0, kind::FIRMWARE_BLOB, firmware, vec![0; 16]));
        }
        let [pk, kek, db] = &self.keys;
        for (vendor, name, value) in [
            (GLOBAL, "SecureBoot", &[0][..]),
            (GLOBAL, "PK", pk),
            (GLOBAL, "KEK", kek),
            (SECURITY, "db", db),
            (SECURITY, "dbx", &[]),
        ] {
            records.push(Record::of(7, kind::VARIABLE, &variable(vendor, name, value)));
        }
        records.push(Record::of(4, kind::ACTION, b"Calling EFI Application from Boot Option"));
        records.extend((0..8).map(|pcr| Record::of(pcr, kind::SEPARATOR, &[0; 4])));
        for returned in &self.returned {
            records.push(digest(4, kind::APPLICATION, returned, image_load("\\shellx64.efi")));
            records.push(Record::of(4, kind::ACTION, b"Returning from EFI Application from Boot Option"));
        }
        records.push(digest(4, kind::APPLICATION, &self.kernel, image_load(&self.path)));
        let options = Hash::Sha256.digest(&[&utf16(&format!("{}\0", self.command_line))]);
        records.push(digest(
            9,
            kind::EVENT_TAG,
            &options,
            tagged(tag::LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0"),
        ));
        records.push(digest(9, kind::EVENT_TAG, &self.initrd, tagged(tag::INITRD, b"Linux initrd\0")));
        records.push(Record::of(5, kind::ACTION, b"Exit Boot Services Invocation"));
        records.push(Record::of(5, kind::ACTION, b"Exit Boot Services Returned with Success"));
        records
    }

    /// `binary_bios_measurements`
    pub fn log(&self) -> Vec<u8> {
        write(&self.records(), &PcrBank::ALL)
    }

    /// PCR 0 to 15 after it.
    pub fn pcrs(&self, bank: PcrBank) -> Vec<Bytes> {
        log::pcrs(&self.records(), bank)
    }

    /// `/proc/cmdline`
    pub fn proc_cmdline(&self) -> Vec<u8> {
        format!("{}\n", self.command_line).into_bytes()
    }

    /// Measures what the log says.
    pub fn measure(&self, tpm: &Swtpm) {
        tpm.replay(&self.records(), &PcrBank::ALL);
    }

    /// A policy that allows it, if nothing of the firmware is measured.
    pub fn policy(&self, name: &str) -> String {
        format!("{}{}", policy_head(name), self.boot())
    }

    /// The `[[boot]]` of that policy.
    pub fn boot(&self) -> String {
        let digest = |digest: &[u8]| format!("sha256:{}", hex(digest));
        format!(
            "[[boot]]\nname = \"{}\"\nkernel_measures_initrd = true\ninitrd = \"{}\"\n[[boot.image]]\nrole = \"kernel\"\nauthenticode = [\"{}\"]\n",
            self.version,
            digest(&self.initrd),
            digest(&self.kernel)
        )
    }

    /// What a machine says that boots it next.
    pub fn proposal(&self) -> Proposal {
        Proposal {
            version: 1,
            name: self.version.clone(),
            bank: "sha256".into(),
            images: vec![ProposedImage {
                role: "kernel".into(),
                path: self.path.clone(),
                authenticode: self.kernel.clone().into(),
                release: Some("6.13.0".into()),
            }],
            sections: vec![],
            initrd: Some(self.initrd.clone().into()),
            command_line: Some(self.command_line.clone()),
            loader: None,
            written_by_update: true,
        }
    }
}

/// An event whose digest is not that of its data.
fn digest(pcr: u32, kind: u32, digest: &[u8], data: Vec<u8>) -> Record {
    Record { pcr, kind, digest: digest.to_vec(), data }
}

/// A policy up to its boots.
pub fn policy_head(name: &str) -> String {
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

/// `UEFI_IMAGE_LOAD_EVENT` with a device path of a file.
fn image_load(path: &str) -> Vec<u8> {
    let name = utf16(&format!("{path}\0"));
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
fn tagged(id: u32, data: &[u8]) -> Vec<u8> {
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
