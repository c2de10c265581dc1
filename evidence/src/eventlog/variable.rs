//! UEFI variables as they are measured: `UEFI_VARIABLE_DATA` (PC Client Platform Firmware
//! Profile, section 10.2.6).

use super::cursor::Cursor;
use super::device_path::DevicePath;
use super::guid::{GLOBAL_VARIABLE, Guid, IMAGE_SECURITY, SHIM_LOCK};
use super::signatures::{Certificate, Entry, Signature, SignatureLists};
use super::text::{self, Utf16};
use std::fmt::{self, Write};

/// A variable: vendor, name and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Vendor GUID.
    pub vendor: Guid,
    /// Name, UCS-2 as the log has it.
    pub name: Utf16<'a>,
    /// The value's bytes.
    pub data: &'a [u8],
}

/// A variable that is known by vendor and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Known {
    /// Whether images are verified.
    SecureBoot,
    /// Platform key.
    Pk,
    /// Key exchange keys.
    Kek,
    /// What may be booted.
    Db,
    /// What may not.
    Dbx,
    /// Time stamping certificates.
    Dbt,
    /// Recovery certificates.
    Dbr,
    /// Whether keys may be enrolled without authentication.
    SetupMode,
    /// Whether everything is booted and recorded.
    AuditMode,
    /// Whether the modes are locked.
    DeployedMode,
    /// Numbers of boot entries.
    BootOrder,
    /// `Boot####`.
    Boot(u16),
    /// Shim: the oldest generations that may be booted.
    SbatLevel,
    /// Shim: certificate that is built in.
    Shim,
    /// Shim: certificates that are built in.
    VendorDb,
    /// Shim: keys of the machine's owner (`MokList`, `MokListRT`).
    MokList,
    /// Shim: keys that are not trusted (`MokListX`, `MokListXRT`).
    MokListX,
    /// Shim: whether the kernel trusts [`Known::MokList`].
    MokListTrusted,
    /// Shim: whether it verifies at all.
    MokSbState,
    /// Any other.
    Other,
}

/// What a variable's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// SecureBoot and the modes: one byte, 0 or 1.
    Flag(bool),
    /// Signature databases. An absent one has no entries.
    Signatures(SignatureLists<'a>),
    /// BootOrder: little-endian numbers.
    Numbers(&'a [[u8; 2]]),
    /// `Boot####`
    BootEntry(BootEntry<'a>),
    /// SbatLevel: lines of text.
    Text(&'a str),
    /// A variable without a known form, or not in its form.
    Bytes(&'a [u8]),
}

/// `EFI_LOAD_OPTION` (UEFI 2.10, section 3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootEntry<'a> {
    /// Bit 0: the entry is active.
    pub attributes: u32,
    /// For people.
    pub description: Utf16<'a>,
    /// What is booted.
    pub path: DevicePath<'a>,
    /// Optional data: load options.
    pub options: &'a [u8],
}

/// What an EV_EFI_VARIABLE_AUTHORITY event says: an image was verified by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The list that the signer is in: db, MokList, Shim, ...
    pub list: Variable<'a>,
    /// The certificate or hash.
    pub signer: Signature<'a>,
}

impl<'a> Variable<'a> {
    /// `UEFI_VARIABLE_DATA`, whole: nothing may follow.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let vendor = cursor.guid()?;
        let (name, length) = (cursor.u64()?, cursor.u64()?);
        let name = Utf16::new(cursor.take_u64(name.checked_mul(2)?)?)?;
        let data = cursor.take_u64(length)?;
        cursor.0.is_empty().then_some(Self { vendor, name, data })
    }

    /// Which variable it is.
    pub fn known(&self) -> Known {
        let is = |name| self.name.is(name);
        match self.vendor {
            GLOBAL_VARIABLE if is("SecureBoot") => Known::SecureBoot,
            GLOBAL_VARIABLE if is("PK") => Known::Pk,
            GLOBAL_VARIABLE if is("KEK") => Known::Kek,
            GLOBAL_VARIABLE if is("SetupMode") => Known::SetupMode,
            GLOBAL_VARIABLE if is("AuditMode") => Known::AuditMode,
            GLOBAL_VARIABLE if is("DeployedMode") => Known::DeployedMode,
            GLOBAL_VARIABLE if is("BootOrder") => Known::BootOrder,
            GLOBAL_VARIABLE => self.boot_number().map_or(Known::Other, Known::Boot),
            IMAGE_SECURITY if is("db") => Known::Db,
            IMAGE_SECURITY if is("dbx") => Known::Dbx,
            IMAGE_SECURITY if is("dbt") => Known::Dbt,
            IMAGE_SECURITY if is("dbr") => Known::Dbr,
            IMAGE_SECURITY if is("vendor_db") => Known::VendorDb,
            SHIM_LOCK if is("SbatLevel") => Known::SbatLevel,
            SHIM_LOCK if is("Shim") => Known::Shim,
            SHIM_LOCK if is("MokList") || is("MokListRT") => Known::MokList,
            SHIM_LOCK if is("MokListX") || is("MokListXRT") => Known::MokListX,
            SHIM_LOCK if is("MokListTrusted") => Known::MokListTrusted,
            SHIM_LOCK if is("MokSBState") => Known::MokSbState,
            _ => Known::Other,
        }
    }

    /// `Boot0001`: four upper-case hex digits.
    fn boot_number(&self) -> Option<u16> {
        // Not longer than the name of an entry, whoever chose it.
        let mut chars = (self.name.bytes().len() <= 18).then(|| self.name.chars())?;
        if !"Boot".chars().eq(chars.by_ref().take(4)) {
            return None;
        }
        let (mut number, mut digits) = (0, 0);
        for char in chars {
            number = number << 4 | char.to_digit(16).filter(|_| !char.is_ascii_lowercase())?;
            digits += 1;
        }
        (digits == 4).then_some(number as u16)
    }

    /// What the bytes mean.
    pub fn value(&self) -> Value<'a> {
        self.form().unwrap_or(Value::Bytes(self.data))
    }

    fn form(&self) -> Option<Value<'a>> {
        Some(match self.known() {
            Known::SecureBoot | Known::SetupMode | Known::AuditMode | Known::DeployedMode => {
                match self.data {
                    [flag @ (0 | 1)] => Value::Flag(*flag == 1),
                    _ => return None,
                }
            }
            Known::Pk | Known::Kek | Known::Db | Known::Dbx | Known::Dbt | Known::Dbr => {
                Value::Signatures(SignatureLists::parse(self.data)?)
            }
            Known::BootOrder => match self.data.as_chunks() {
                (numbers, []) => Value::Numbers(numbers),
                _ => return None,
            },
            Known::Boot(_) => Value::BootEntry(BootEntry::parse(self.data)?),
            Known::SbatLevel => {
                let text = self.data.strip_suffix(&[0]).unwrap_or(self.data);
                Value::Text(str::from_utf8(text).ok()?)
            }
            _ => return None,
        })
    }

    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        f.write_str("variable ")?;
        text::clean(f, self.name.chars())?;
        f.write_str(": ")?;
        self.value().describe(f)
    }
}

impl<'a> BootEntry<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor(data);
        let (attributes, paths) = (cursor.u32()?, cursor.u16()?);
        let description = cursor.0.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0])?;
        let description = Utf16::new(cursor.take(2 * description + 2)?)?;
        let path = DevicePath::new(cursor.take(paths.into())?);
        Some(Self { attributes, description, path, options: cursor.0 })
    }
}

impl<'a> Authority<'a> {
    /// `None` if the variable is not a list of signers, as SbatLevel, or its value has none of the forms that are known.
    ///
    /// Firmware measures `EFI_SIGNATURE_DATA`; shim does so too for a certificate of a list, but a hash, and its own
    /// certificates, come without the owner (`ownerless`: quirk `authority-without-owner`).
    pub(super) fn parse(list: Variable<'a>, ownerless: bool) -> Option<Self> {
        if !matches!(list.known(), Known::Db | Known::VendorDb | Known::MokList | Known::Shim) {
            return None;
        }
        let alone = if ownerless { signature(list.data) } else { None };
        let signer = alone.or_else(|| signature(list.data.get(OWNER..)?))?;
        Some(Self { list, signer })
    }

    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        f.write_str("verified by ")?;
        self.signer.describe(f)?;
        f.write_str(" of ")?;
        text::clean(f, self.list.name.chars())
    }
}

/// Length of `SignatureOwner`.
const OWNER: usize = 16;

/// A SHA-256 hash, or a certificate.
fn signature(data: &[u8]) -> Option<Signature<'_>> {
    if data.len() == 32 {
        return Some(Signature::ImageHash(data));
    }
    Certificate::sniff(data).map(Signature::Certificate)
}

/// Entries that a line for people shows.
const SHOWN: usize = 4;

impl Value<'_> {
    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self {
            Value::Flag(on) => f.write_str(if *on { "on" } else { "off" }),
            Value::Signatures(lists) => describe_entries(f, lists),
            Value::Numbers(numbers) => {
                let mut separator = "";
                numbers.iter().try_for_each(|number| {
                    write!(f, "{separator}{:04X}", u16::from_le_bytes(*number))?;
                    separator = " ";
                    Ok(())
                })
            }
            Value::BootEntry(entry) => {
                f.write_str("\"")?;
                text::clean(f, entry.description.chars())?;
                f.write_str("\" ")?;
                entry.path.describe(f)
            }
            Value::Text(text) => text::clean(f, text.trim_end().chars()),
            Value::Bytes([]) => f.write_str("empty"),
            Value::Bytes(bytes) => text::hex(f, bytes),
        }
    }
}

fn describe_entries(f: &mut dyn Write, lists: &SignatureLists<'_>) -> fmt::Result {
    let mut entries = lists.entries();
    for (at, Entry { signature, .. }) in entries.by_ref().take(SHOWN).enumerate() {
        f.write_str(if at > 0 { ", " } else { "" })?;
        signature.describe(f)?;
    }
    match entries.count() {
        0 if lists.is_empty() => f.write_str("empty"),
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}
