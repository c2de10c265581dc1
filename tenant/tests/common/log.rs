//! Firmware event logs of machines that never were: UEFI without Secure Boot, a kernel with its EFI stub.

use halfkey_protocol::tpm::kdf::Hash;

const SEPARATOR: u32 = 0x4;
const EVENT_TAG: u32 = 0x6;
const S_CRTM_VERSION: u32 = 0x8;
const VARIABLE: u32 = 0x8000_0001;
const APPLICATION: u32 = 0x8000_0003;
const ACTION: u32 = 0x8000_0007;
const BLOB: u32 = 0x8000_0008;

/// What a machine boots.
#[derive(Clone)]
pub struct Boot {
    /// Authenticode digest of the kernel.
    pub kernel: Vec<u8>,
    /// Digest of the initrd.
    pub initrd: Vec<u8>,
    pub cmdline: String,
    /// What the firmware is measured as.
    pub firmware: Vec<u8>,
    /// Authenticode digests of what was started before the kernel, and came back to the firmware.
    pub returned: Vec<Vec<u8>>,
}

impl Boot {
    pub fn new(kernel: &str, cmdline: &str) -> Self {
        let digest = |what: &str| Hash::Sha256.digest(&[what.as_bytes(), kernel.as_bytes()]);
        Self {
            kernel: digest("kernel"),
            initrd: digest("initrd"),
            cmdline: cmdline.to_owned(),
            firmware: sha256(b"firmware"),
            returned: Vec::new(),
        }
    }

    /// PCR and digest of each event, and the log.
    pub fn measure(&self) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
        let mut log = Log::default();
        log.data(0, S_CRTM_VERSION, &utf16("1.0\0"));
        log.digest(0, BLOB, &self.firmware, &[0; 16]);
        for (vendor, name, value) in [
            (GLOBAL, "SecureBoot", &[0][..]),
            (GLOBAL, "PK", &[]),
            (GLOBAL, "KEK", &[]),
            (SECURITY, "db", &[]),
            (SECURITY, "dbx", &[]),
        ] {
            log.data(7, VARIABLE, &variable(vendor, name, value));
        }
        log.data(4, ACTION, b"Calling EFI Application from Boot Option");
        for pcr in 0..8 {
            log.data(pcr, SEPARATOR, &[0; 4]);
        }
        for returned in &self.returned {
            log.digest(4, APPLICATION, returned, &image("\\shellx64.efi"));
            log.data(4, ACTION, b"Returning from EFI Application from Boot Option");
        }
        log.digest(4, APPLICATION, &self.kernel, &image("\\EFI\\debian\\vmlinuz"));
        let options = utf16(&format!("{}\0", self.cmdline));
        log.digest(9, EVENT_TAG, &sha256(&options), &tag(0x8f3b_22ed, b"LOADED_IMAGE::LoadOptions\0"));
        log.digest(9, EVENT_TAG, &self.initrd, &tag(0x8f3b_22ec, b"Linux initrd\0"));
        log.data(5, ACTION, b"Exit Boot Services Invocation");
        log.data(5, ACTION, b"Exit Boot Services Returned with Success");
        (log.extended, [head(), log.events].concat())
    }
}

#[derive(Default)]
struct Log {
    extended: Vec<(u8, Vec<u8>)>,
    events: Vec<u8>,
}

impl Log {
    /// An event whose digest is that of its data.
    fn data(&mut self, pcr: u8, kind: u32, data: &[u8]) {
        self.digest(pcr, kind, &sha256(data), data);
    }

    fn digest(&mut self, pcr: u8, kind: u32, digest: &[u8], data: &[u8]) {
        self.extended.push((pcr, digest.to_vec()));
        for field in [u32::from(pcr), kind, 1] {
            self.events.extend(field.to_le_bytes());
        }
        self.events.extend(0x0bu16.to_le_bytes());
        self.events.extend(digest);
        self.events.extend((data.len() as u32).to_le_bytes());
        self.events.extend(data);
    }
}

fn sha256(data: &[u8]) -> Vec<u8> {
    Hash::Sha256.digest(&[data])
}

/// The Spec ID event: one bank, SHA-256.
fn head() -> Vec<u8> {
    let mut spec_id = b"Spec ID Event03\0\0\0\0\0\0\x02\x00\x02".to_vec();
    spec_id.extend([1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend((spec_id.len() as u32).to_le_bytes());
    log.extend(spec_id);
    log
}

type Guid = (u32, u16, u16, u64);
const GLOBAL: Guid = (0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
const SECURITY: Guid = (0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);

fn variable(vendor: Guid, name: &str, value: &[u8]) -> Vec<u8> {
    let mut data = vendor.0.to_le_bytes().to_vec();
    data.extend(vendor.1.to_le_bytes());
    data.extend(vendor.2.to_le_bytes());
    data.extend(vendor.3.to_be_bytes());
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(utf16(name));
    data.extend(value);
    data
}

/// `UEFI_IMAGE_LOAD_EVENT` with a file path.
fn image(path: &str) -> Vec<u8> {
    let name = utf16(&format!("{path}\0"));
    let mut node = vec![4, 4];
    node.extend((name.len() as u16 + 4).to_le_bytes());
    node.extend(name);
    node.extend([0x7f, 0xff, 4, 0]);
    let mut data = Vec::new();
    for field in [0x10_0000u64, 0x80_0000, 0, node.len() as u64] {
        data.extend(field.to_le_bytes());
    }
    data.extend(node);
    data
}

fn tag(id: u32, text: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &(text.len() as u32).to_le_bytes(), text].concat()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
