//! The firmware's variables: OVMF's store, written by the test before a boot as a hand at the hardware (or a firmware setup)
//! could. UEFI PI 1.7 volume 3, "Variable Storage" of edk2's VariableFormat.h; UEFI 2.10 section 32.4.1 for signature lists.

use crate::error::{Context, Result};
use std::fs;
use std::path::Path;

/// An empty store.
const EMPTY: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// One with Microsoft's keys, as a PC has them.
const MICROSOFT: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

const GLOBAL: [u8; 16] = guid(0x8be4_df61, 0x93ca, 0x11d2, *b"\xaa\x0d\x00\xe0\x98\x03\x2b\x8c");
const SECURITY_DATABASE: [u8; 16] = guid(0xd719_b2cb, 0x3d3a, 0x4596, *b"\xa3\xbc\xda\xd0\x0e\x67\x65\x6f");
const SECURE_BOOT_ENABLE: [u8; 16] = guid(0xf0a3_0bc7, 0xaf08, 0x4556, *b"\x99\xc4\x00\x10\x09\xc9\x3a\x44");
const CERTIFICATE: [u8; 16] = guid(0xa5c0_59a1, 0x94e4, 0x4aa7, *b"\x87\xb5\xab\x15\x5c\x2b\xf0\x72");
const SHA256: [u8; 16] = guid(0xc1c4_1626, 0x504c, 0x4092, *b"\xac\xa9\x41\xf9\x36\x93\x43\x28");
/// systemd's boot loader and stub.
const LOADER: [u8; 16] = guid(0x4a67_b082, 0x0a4c, 0x41cf, *b"\xb6\xc7\x44\x0b\x29\xbb\x8c\x4f");
/// Where the stub (261 and later) keeps the machine's secret: a firmware's setup leaves it alone.
const BOOT_SECRET: &str = "LoaderBootSecret";
/// Who wrote the signature lists: the test.
const OWNER: [u8; 16] = guid(0x4841_4c46, 0x4b45, 0x5900, *b"halfkey\0");

/// Non-volatile, for the firmware only.
const BOOT_SERVICE: u32 = 0x3;
/// Non-volatile, readable by the system.
const RUNTIME: u32 = 0x7;
/// The same, changed only by a signed update.
const AUTHENTICATED: u32 = 0x27;

/// The keys of Secure Boot.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Platform key: a certificate, DER.
    pub pk: Vec<u8>,
    /// Key exchange key: a certificate, DER.
    pub kek: Vec<u8>,
    /// Signers that may be booted: certificates, DER.
    pub db: Vec<Vec<u8>>,
    /// Images that may not: SHA-256.
    pub dbx: Vec<[u8; 32]>,
}

/// What is in the store besides the boot entry.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Nothing: Secure Boot is off.
    Nobody,
    /// These keys: Secure Boot is on.
    Own(Keys),
    /// Microsoft's keys, and a dbx with these images: Secure Boot is on.
    Microsoft(Vec<[u8; 32]>),
}

/// A boot entry: a path (with backslashes) on the partition, and the options of what is there.
#[derive(Clone, Debug)]
pub struct BootEntry {
    /// From the top of the partition.
    pub path: String,
    /// Empty: none.
    pub options: String,
}

/// Writes the store: whom the firmware trusts, and the boot entries, in order. What a stub keeps in the one that was there stays.
///
/// # Errors
/// If the distribution's store is not what this module knows, or a file can't be read or written.
pub fn write(trust: &Trust, partition: &Partition, entries: &[BootEntry], to: &Path) -> Result<()> {
    let mut store = Store::read(Path::new(EMPTY))?;
    let secure = |store: &mut Store, variables: [(&str, Vec<u8>); 4]| -> Result<()> {
        for (name, data) in variables {
            let vendor = if name.starts_with("db") { SECURITY_DATABASE } else { GLOBAL };
            store.set(name, vendor, AUTHENTICATED, &data)?;
        }
        store.set("SecureBootEnable", SECURE_BOOT_ENABLE, BOOT_SERVICE, &[1])
    };
    match trust {
        Trust::Nobody => {}
        Trust::Own(keys) => {
            let db = keys.db.iter().flat_map(|der| certificate(der)).collect();
            let (pk, kek) = (certificate(&keys.pk), certificate(&keys.kek));
            secure(&mut store, [("PK", pk), ("KEK", kek), ("db", db), ("dbx", hashes(&keys.dbx))])?;
        }
        Trust::Microsoft(revoked) => {
            // Only the keys: that store was filled on another machine, and holds its consoles and boot entries as well.
            let keys = Store::read(Path::new(MICROSOFT))?;
            let get = |name| keys.get(name).context(format_args!("{MICROSOFT} holds no variable {name}"));
            let (pk, kek, db) = (get("PK")?, get("KEK")?, get("db")?);
            secure(&mut store, [("PK", pk), ("KEK", kek), ("db", db), ("dbx", hashes(revoked))])?;
        }
    }
    let mut order = Vec::new();
    for (number, entry) in (0u16..).zip(entries) {
        store.set(&format!("Boot{number:04X}"), GLOBAL, RUNTIME, &partition.load_option(entry))?;
        order.extend(number.to_le_bytes());
    }
    store.set("BootOrder", GLOBAL, RUNTIME, &order)?;
    if to.exists() {
        let secret = Store::read(to)?.get(BOOT_SECRET).unwrap_or_default();
        store.set(BOOT_SECRET, LOADER, BOOT_SERVICE, &secret)?;
    }
    fs::write(to, store.image).context(format_args!("can't write {}", to.display()))
}

/// A GPT partition.
pub struct Partition {
    /// First sector, of 512 bytes.
    pub start: u64,
    /// Sectors.
    pub size: u64,
    /// Its GUID, as it stands in the table.
    pub guid: [u8; 16],
}

impl Partition {
    /// EFI_LOAD_OPTION, UEFI 2.10 section 3.1.3.
    fn load_option(&self, entry: &BootEntry) -> Vec<u8> {
        let mut device = Vec::new();
        // Media device path, hard drive: number, place, GPT, signed by its GUID.
        device.extend([4, 1, 42, 0]);
        device.extend(1u32.to_le_bytes());
        device.extend(self.start.to_le_bytes());
        device.extend(self.size.to_le_bytes());
        device.extend(self.guid);
        device.extend([2, 2]);
        let name = utf16(&entry.path);
        device.extend([4, 4]);
        device.extend(u16::try_from(4 + name.len()).expect("a path is short").to_le_bytes());
        device.extend(&name);
        device.extend([0x7f, 0xff, 4, 0]);

        let mut option = 1u32.to_le_bytes().to_vec();
        option.extend(u16::try_from(device.len()).expect("a path is short").to_le_bytes());
        option.extend(utf16("Linux"));
        option.extend(device);
        if !entry.options.is_empty() {
            option.extend(utf16(&entry.options));
        }
        option
    }
}

/// A GUID in the order in which it is stored.
pub const fn guid(a: u32, b: u16, c: u16, rest: [u8; 8]) -> [u8; 16] {
    let (a, b, c, r) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), rest);
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7]]
}

/// EFI_SIGNATURE_LIST with one certificate.
fn certificate(der: &[u8]) -> Vec<u8> {
    signature_list(CERTIFICATE, der.len(), std::iter::once(der))
}

/// EFI_SIGNATURE_LIST with SHA-256 hashes; nothing if there are none.
fn hashes(list: &[[u8; 32]]) -> Vec<u8> {
    if list.is_empty() {
        return Vec::new();
    }
    signature_list(SHA256, 32, list.iter().map(<[u8; 32]>::as_slice))
}

fn signature_list<'a>(kind: [u8; 16], length: usize, entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let entry = u32::try_from(OWNER.len() + length).expect("a certificate is small");
    let entries: Vec<u8> = entries.flat_map(|entry| [&OWNER, entry].concat()).collect();
    let size = 28 + u32::try_from(entries.len()).expect("a signature list is small");
    [&kind[..], &size.to_le_bytes(), &0u32.to_le_bytes(), &entry.to_le_bytes(), &entries].concat()
}

/// UTF-16, ended by a zero.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Where the first variable begins: a firmware volume header of 72 bytes, a variable store header of 28.
const FIRST: usize = 100;
/// AUTHENTICATED_VARIABLE_HEADER.
const HEADER: usize = 60;
/// gEfiAuthenticatedVariableGuid: the kind of store that has such headers.
const STORE: [u8; 16] = guid(0xaaf3_2c78, 0x947b, 0x439a, *b"\xa1\x80\x2e\x14\x4e\xc3\x77\x92");

/// How a variable begins.
const START: [u8; 2] = [0xaa, 0x55];
/// Its state, if it is whole and was not replaced.
const ADDED: u8 = 0x3f;

fn word(image: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize)
}

struct Store {
    image: Vec<u8>,
    /// Where the next variable goes.
    free: usize,
    /// Where the store ends.
    end: usize,
}

impl Store {
    fn read(path: &Path) -> Result<Self> {
        let image = fs::read(path).context(format_args!("can't read {}\nhint: make deps", path.display()))?;
        Self::parse(image).context(format_args!("{} is no variable store of OVMF", path.display()))
    }

    fn parse(image: Vec<u8>) -> Option<Self> {
        if image.get(40..44)? != b"_FVH" || image.get(72..88)? != STORE {
            return None;
        }
        let end = 72 + word(&image, 88)?;
        let mut store = Self { image, free: FIRST, end };
        while let Some((name, data)) = store.variable(store.free) {
            store.free = (store.free + HEADER + name + data).next_multiple_of(4);
        }
        (end <= store.image.len()).then_some(store)
    }

    /// The lengths of name and data of the variable at this place.
    fn variable(&self, at: usize) -> Option<(usize, usize)> {
        let found = self.image.get(at..at + 2)? == START;
        found.then_some((word(&self.image, at + 36)?, word(&self.image, at + 40)?))
    }

    /// The data of a variable.
    fn get(&self, wanted: &str) -> Option<Vec<u8>> {
        let (wanted, mut at) = (utf16(wanted), FIRST);
        loop {
            let (name, data) = self.variable(at)?;
            let (from, between) = (at + HEADER, at + HEADER + name);
            if self.image[at + 2] == ADDED && self.image.get(from..between)? == wanted {
                return self.image.get(between..between + data).map(<[u8]>::to_vec);
            }
            at = (between + data).next_multiple_of(4);
        }
    }

    /// Adds a variable that is not there yet.
    fn set(&mut self, name: &str, vendor: [u8; 16], attributes: u32, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let name = utf16(name);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a variable is small").to_le_bytes();
        let mut variable = vec![START[0], START[1], ADDED, 0];
        variable.extend(attributes.to_le_bytes());
        // Monotonic count, time, public key index: not used.
        variable.extend([0; 28]);
        variable.extend(size(&name));
        variable.extend(size(data));
        variable.extend(vendor);
        variable.extend(&name);
        variable.extend(data);
        let after = self.free + variable.len();
        crate::ensure!(after <= self.end, "the firmware's variables do not fit into its store");
        self.image[self.free..after].copy_from_slice(&variable);
        self.free = after.next_multiple_of(4);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_behind_those_that_are_there() {
        let mut image = vec![0xff; 4096];
        image[40..44].copy_from_slice(b"_FVH");
        image[72..88].copy_from_slice(&STORE);
        image[88..92].copy_from_slice(&1000u32.to_le_bytes());
        let mut store = Store::parse(image).unwrap();
        assert_eq!((store.free, store.end), (FIRST, 1072));
        store.set("db", GLOBAL, RUNTIME, &[1, 2, 3]).unwrap();
        let free = store.free;
        let store = Store::parse(store.image).unwrap();
        assert_eq!(store.free, free);
        assert_eq!(free, (FIRST + HEADER + 6 + 3).next_multiple_of(4));
        assert_eq!(store.get("db"), Some(vec![1, 2, 3]));
        assert_eq!(store.get("dbx"), None);
    }

    #[test]
    fn a_store_that_is_full_says_so() {
        let mut image = vec![0xff; 4096];
        image[40..44].copy_from_slice(b"_FVH");
        image[72..88].copy_from_slice(&STORE);
        image[88..92].copy_from_slice(&1000u32.to_le_bytes());
        let mut store = Store::parse(image).unwrap();
        assert!(store.set("big", GLOBAL, RUNTIME, &[0; 1000]).is_err());
        assert!(Store::parse(vec![0; 4096]).is_none());
    }
}
