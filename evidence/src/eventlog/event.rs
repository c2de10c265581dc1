//! One event: what its digest proves, and what the log claims.

use super::content::{
    Blob, Claim, Content, GrubText, Image, ImageKind, Information, Separator, Standing, Tag,
};
use super::cursor::Cursor;
use super::device_path::DevicePath;
use super::partitions::PartitionTable;
use super::text::{self, Utf16};
use super::variable::{Authority, Variable};
use super::{kind, quirks};
use crate::digest::Bank;
use halfkey_measure::grub;

/// PCRs that a log may speak of (TCG PC Client platforms have 24).
pub const PCRS: usize = 24;

/// One event of a replayed log, in one bank; data is borrowed from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its number in the log, from 0; the Spec ID event of a crypto-agile log counts.
    pub number: u32,
    /// Which PCR; up to 23 unless the event extends nothing.
    pub pcr: u32,
    /// Event type, [`kind`]: as the log claims.
    pub kind: u32,
    /// What the PCR was extended with; empty if the event extends nothing.
    pub digest: &'a [u8],
    pub(super) data: &'a [u8],
    pub(super) bank: Bank,
}

/// Longest line about an event, in bytes.
const MAX_LINE: usize = 300;

impl<'a> Event<'a> {
    /// What the event's digest proves. Hashes the event's data, each time.
    pub fn content(&self) -> Content<'a> {
        if self.digest.is_empty() {
            return Content::Opaque;
        }
        match self.kind {
            // Their digests are those of images and memory; nothing to compute.
            kind::EFI_BOOT_SERVICES_APPLICATION
            | kind::EFI_BOOT_SERVICES_DRIVER
            | kind::EFI_RUNTIME_SERVICES_DRIVER
            | kind::EFI_PLATFORM_FIRMWARE_BLOB
            | kind::EFI_PLATFORM_FIRMWARE_BLOB2
            | kind::EFI_HANDOFF_TABLES
            | kind::EFI_HANDOFF_TABLES2 => Content::Opaque,
            kind::SEPARATOR if self.digest == &*self.bank.digest(&SEPARATOR_ERROR) => {
                Content::Separator(Separator::Error)
            }
            kind::EFI_VARIABLE_BOOT => self.boot_variable(),
            kind::IPL => self.ipl(),
            kind::EFI_VARIABLE_AUTHORITY => self.authority(),
            _ if self.is_digest_of(self.data) => self.content_of_data(),
            _ => Content::Opaque,
        }
    }

    /// How far the log's word for this event can be relied on. Hashes the event's data, each time.
    pub fn standing(&self) -> Standing {
        if self.digest.is_empty() {
            return Standing::Informational;
        }
        match self.content() {
            Content::Opaque => Standing::Opaque,
            _ => Standing::Verified,
        }
    }

    /// What the log says that the event is. Whoever wrote the log could write anything there:
    /// for people to read, not to decide by.
    pub fn claimed_content(&self) -> Claim<'a> {
        self.claim().unwrap_or(Claim::Bytes(self.data))
    }

    /// The event's data as the log has it: as little proven as [`Self::claimed_content`].
    pub fn claimed_data(&self) -> &'a [u8] {
        self.data
    }

    /// The event's data, if the PCR was extended with the digest of just that data.
    pub fn measured_data(&self) -> Option<&'a [u8]> {
        (!self.digest.is_empty() && self.is_digest_of(self.data)).then_some(self.data)
    }

    /// Whether the PCR was extended with the digest of `data`.
    pub fn is_digest_of(&self, data: &[u8]) -> bool {
        *self.bank.digest(data) == *self.digest
    }

    /// What the event is, in one line for people; claims included.
    pub fn what(&self) -> String {
        text::line(MAX_LINE, |f| match (self.content(), self.claimed_content()) {
            (Content::Opaque, Claim::Content(claimed)) => {
                claimed.describe(f)?;
                f.write_str(" (claimed: the digest is not that of this data)")
            }
            (Content::Opaque, claim) => claim.describe(f),
            (content, _) => content.describe(f),
        })
    }

    /// What the data means, for a type whose digest is that of all of the data.
    fn content_of_data(&self) -> Content<'a> {
        let content = match self.kind {
            kind::SEPARATOR => matches!(self.data, [0, 0, 0, 0] | [0xff, 0xff, 0xff, 0xff])
                .then_some(Content::Separator(Separator::Ready)),
            kind::ACTION | kind::EFI_ACTION => str::from_utf8(self.data).ok().map(Content::Action),
            kind::EFI_VARIABLE_DRIVER_CONFIG | kind::EFI_VARIABLE_BOOT | kind::EFI_VARIABLE_BOOT2 => {
                Variable::parse(self.data).map(Content::Variable)
            }
            kind::EFI_VARIABLE_AUTHORITY => self.signer(self.data),
            kind::EFI_GPT_EVENT | kind::EFI_GPT_EVENT2 => {
                PartitionTable::parse(self.data).map(Content::PartitionTable)
            }
            kind::S_CRTM_VERSION => Some(Content::FirmwareVersion(self.data)),
            _ => None,
        };
        content.unwrap_or(Content::Bytes(self.data))
    }

    fn authority(&self) -> Content<'a> {
        if self.is_digest_of(self.data) {
            return self.content_of_data();
        }
        self.logged_longer().unwrap_or(Content::Opaque)
    }

    /// Older versions of shim log a byte that they do not measure.
    fn logged_longer(&self) -> Option<Content<'a>> {
        let (_, measured) = self.data.split_last()?;
        let applies = quirks::AUTHORITY_LOGGED_LONGER.applies(self.kind) && self.is_digest_of(measured);
        applies.then(|| self.signer(measured))?
    }

    fn signer(&self, measured: &'a [u8]) -> Option<Content<'a>> {
        let list = Variable::parse(measured)?;
        let ownerless = quirks::AUTHORITY_WITHOUT_OWNER.applies(self.kind);
        Some(Authority::parse(list, ownerless).map_or(Content::Variable(list), Content::Authority))
    }

    fn boot_variable(&self) -> Content<'a> {
        if self.is_digest_of(self.data) {
            return self.content_of_data();
        }
        match Variable::parse(self.data) {
            Some(claimed)
                if quirks::BOOT_VARIABLE_VALUE.applies(self.kind) && self.is_digest_of(claimed.data) =>
            {
                Content::VariableValue { claimed, data: claimed.data }
            }
            _ => Content::Opaque,
        }
    }

    /// GRUB, shim, systemd-boot and stub all use EV_IPL, each in its own way.
    fn ipl(&self) -> Content<'a> {
        if let Some((form, text)) = grub::read(self.data)
            && form.measured(text).any(|measured| self.is_digest_of(&measured))
        {
            return Content::Grub { claimed: GrubText::of(form.text), text };
        }
        if let Some(name) = section_name(self.data)
            && quirks::SECTION_NAME_ASCII.applies(self.kind)
            && self.is_digest_of_ascii(name)
        {
            return Content::SectionName(name);
        }
        if !self.is_digest_of(self.data) {
            return Content::Opaque;
        }
        Utf16::strict(self.data).map_or(Content::Bytes(self.data), Content::Text)
    }

    /// The stub measures the name as it stands in the PE header, with a NUL, and logs it as UTF-16.
    fn is_digest_of_ascii(&self, name: Utf16<'_>) -> bool {
        let mut ascii = [0; MAX_SECTION_NAME + 1];
        let mut length = 0;
        for char in name.chars() {
            ascii[length] = char as u8;
            length += 1;
        }
        self.is_digest_of(&ascii[..=length])
    }

    fn claim(&self) -> Option<Claim<'a>> {
        let mut data = Cursor(self.data);
        Some(match self.kind {
            kind::NO_ACTION => Claim::Information(information(self.pcr, self.data)?),
            kind::EFI_BOOT_SERVICES_APPLICATION => image(ImageKind::Application, data)?,
            kind::EFI_BOOT_SERVICES_DRIVER => image(ImageKind::BootDriver, data)?,
            kind::EFI_RUNTIME_SERVICES_DRIVER => image(ImageKind::RuntimeDriver, data)?,
            kind::EFI_PLATFORM_FIRMWARE_BLOB | kind::S_CRTM_CONTENTS | kind::POST_CODE
                if self.data.len() == 16 =>
            {
                Claim::Blob(Blob { base: data.u64()?, length: data.u64()?, description: &[] })
            }
            kind::EFI_PLATFORM_FIRMWARE_BLOB2 | kind::POST_CODE2 => {
                let description = data.counted()?;
                Claim::Blob(Blob { base: data.u64()?, length: data.u64()?, description })
            }
            kind::EFI_HANDOFF_TABLES => Claim::Tables { count: data.u64()?, description: &[] },
            kind::EFI_HANDOFF_TABLES2 => {
                let description = data.counted()?;
                Claim::Tables { count: data.u64()?, description }
            }
            kind::EVENT_TAG => {
                let (id, length) = (data.u32()?, data.u32()?);
                Claim::Tag(Tag { id, data: data.take(length as usize)? })
            }
            kind::IPL => match grub::read(self.data) {
                Some((form, text)) => {
                    Claim::Content(Content::Grub { claimed: GrubText::of(form.text), text })
                }
                None => name(self.data)?,
            },
            kind::SEPARATOR
            | kind::ACTION
            | kind::EFI_ACTION
            | kind::EFI_VARIABLE_DRIVER_CONFIG
            | kind::EFI_VARIABLE_BOOT
            | kind::EFI_VARIABLE_BOOT2
            | kind::EFI_VARIABLE_AUTHORITY
            | kind::EFI_GPT_EVENT
            | kind::EFI_GPT_EVENT2
            | kind::S_CRTM_VERSION => Claim::Content(self.content_of_data()),
            _ => name(self.data)?,
        })
    }
}

/// What firmware extends in place of a separator when it failed (PC Client Platform
/// Firmware Profile, section 3.3.2.2); the data is then the error.
pub(super) const SEPARATOR_ERROR: [u8; 4] = 1u32.to_le_bytes();

/// `TCG_EfiStartupLocalityEvent` (PC Client Platform Firmware Profile, section 10.4.5.3).
pub(super) fn startup_locality(pcr: u32, data: &[u8]) -> Option<u8> {
    match data.strip_prefix(b"StartupLocality\0") {
        Some([locality]) if pcr == 0 => Some(*locality),
        _ => None,
    }
}

/// A signature of 16 bytes with NUL after it, then data.
fn information(pcr: u32, data: &[u8]) -> Option<Information<'_>> {
    if let Some(locality) = startup_locality(pcr, data) {
        return Some(Information::StartupLocality(locality));
    }
    let (signature, data) = data.split_at_checked(16)?;
    let end = signature.iter().position(|byte| *byte == 0)?;
    text::is_ascii_text(&signature[..end])
        .then_some(Information::Other { signature: &signature[..end], data })
}

/// `UEFI_IMAGE_LOAD_EVENT`: base, length, link-time address, device path with its length.
fn image<'a>(kind: ImageKind, mut data: Cursor<'a>) -> Option<Claim<'a>> {
    let (base, length, _link_time) = (data.u64()?, data.u64()?, data.u64()?);
    let path_length = data.u64()?;
    let path = DevicePath::new(data.take_u64(path_length)?);
    Some(Claim::Image(Image { kind, base, length, path }))
}

/// Longest name of a section of systemd's stub; PE headers have 8 bytes for it.
const MAX_SECTION_NAME: usize = 8;

fn section_name(data: &[u8]) -> Option<Utf16<'_>> {
    if data.len() > 2 * MAX_SECTION_NAME + 2 {
        return None;
    }
    let name = Utf16::strict(data)?;
    let printable = name.chars().all(|char| matches!(char, '!'..='~'));
    (printable && name.chars().next() == Some('.') && name.chars().count() <= MAX_SECTION_NAME)
        .then_some(name)
}

/// Text that describes what was measured, in ASCII or UTF-16.
fn name(data: &[u8]) -> Option<Claim<'_>> {
    let ascii = data.strip_suffix(&[0]).unwrap_or(data);
    if text::is_ascii_text(ascii) {
        return Some(Claim::Name(ascii));
    }
    match section_name(data) {
        Some(name) => Some(Claim::Section(name)),
        None => Utf16::strict(data).map(Claim::WideName),
    }
}
