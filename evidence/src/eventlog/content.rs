//! What an event says: what its digest proves, and what the log merely claims.

use super::device_path::DevicePath;
use super::guid::Guid;
use super::partitions::PartitionTable;
use super::text::{self, Utf16};
use super::variable::{Authority, Value, Variable};
use halfkey_measure::{efi_stub, grub};
use std::fmt::{self, Write};

/// How far the log's word for an event can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The digest was recomputed: the event's content is as trustworthy as the PCR.
    Verified,
    /// Only the digest is proven: the type does not say how data becomes the digest (an
    /// image, a file), or the digest is not that of the data (the log lies, or firmware does it otherwise).
    Opaque,
    /// The event extends nothing and proves nothing.
    Informational,
}

/// What an event's digest proves. An event's type is not covered by the digest, so neither is what is
/// called `claimed` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// Nothing but the digest.
    Opaque,
    /// The firmware's part of the PCR ends here.
    Separator(Separator),
    /// A string of the specification (EV_EFI_ACTION, EV_ACTION).
    Action(&'a str),
    /// A UEFI variable: vendor, name and value.
    Variable(Variable<'a>),
    /// A UEFI variable's value alone: that is all that some firmware measures for a variable of the boot
    /// manager. The name could be any.
    VariableValue {
        /// What the log says that it is.
        claimed: Variable<'a>,
        /// What was measured.
        data: &'a [u8],
    },
    /// An image was verified by this certificate or hash.
    Authority(Authority<'a>),
    /// The partition table that was booted from.
    PartitionTable(PartitionTable<'a>),
    /// Version of the firmware (EV_S_CRTM_VERSION): UTF-16, ASCII or a GUID.
    FirmwareVersion(&'a [u8]),
    /// GRUB: a line of its script or a command line, without the word before it.
    Grub {
        /// What the log says that the text is: the digest is the same for each.
        claimed: GrubText,
        /// The text, as GRUB had it.
        text: &'a [u8],
    },
    /// systemd's stub: the name of the section that is measured next.
    SectionName(Utf16<'a>),
    /// UTF-16 text of a boot loader: systemd-boot and stub measure command lines so, into PCR 12.
    Text(Utf16<'a>),
    /// The digest is that of these bytes, whatever they mean.
    Bytes(&'a [u8]),
}

/// How a separator was measured (PC Client Platform Firmware Profile, section 3.3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// Firmware hands over: 0, or 0xffffffff.
    Ready,
    /// Firmware failed.
    Error,
}

/// What GRUB says that a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrubText {
    /// `grub_cmd: `, `grub_cmd `
    Command,
    /// `kernel_cmdline: `, `grub_kernel_cmdline `
    KernelCommandLine,
    /// `module_cmdline: `
    ModuleCommandLine,
}

/// What the log says about an event, true or not: for people, and to find out what to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim<'a> {
    /// What the content would be if the digest were that of the data.
    Content(Content<'a>),
    /// An image that was loaded; the digest is its Authenticode digest.
    Image(Image<'a>),
    /// Code or data in memory; the digest is that of it.
    Blob(Blob<'a>),
    /// How many tables; the digest is that of them.
    Tables {
        /// Their number.
        count: u64,
        /// What they are.
        description: &'a [u8],
    },
    /// Tagged data; of the EFI stub of Linux the digest is that of what the tag names.
    Tag(Tag<'a>),
    /// systemd's stub: this section; the digest is that of it.
    Section(Utf16<'a>),
    /// A file's name or another description; the digest is that of what it names.
    Name(&'a [u8]),
    /// The same as UTF-16.
    WideName(Utf16<'a>),
    /// EV_NO_ACTION.
    Information(Information<'a>),
    /// Nothing that is known.
    Bytes(&'a [u8]),
}

/// `UEFI_IMAGE_LOAD_EVENT` (section 10.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Which kind of image.
    pub kind: ImageKind,
    /// Address in memory.
    pub base: u64,
    /// Length in memory, in bytes.
    pub length: u64,
    /// Where it came from; empty if it was in memory, as the kernel inside a unified image.
    pub path: DevicePath<'a>,
}

/// Kinds of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Boot loaders and kernels.
    Application,
    /// Boot services driver.
    BootDriver,
    /// Runtime driver.
    RuntimeDriver,
}

/// `UEFI_PLATFORM_FIRMWARE_BLOB`, with or without a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Address in memory.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// For people; may be empty.
    pub description: &'a [u8],
}

/// `TCG_PCClientTaggedEvent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The tag.
    pub id: u32,
    /// Its data.
    pub data: &'a [u8],
}

impl Tag<'_> {
    /// The EFI stub of Linux: an initrd (`INITRD_EVENT_TAG_ID`).
    pub const INITRD: u32 = efi_stub::INITRD_TAG;
    /// The EFI stub of Linux: its command line as UTF-16LE with a NUL (`LOAD_OPTIONS_EVENT_TAG_ID`).
    pub const LOAD_OPTIONS: u32 = efi_stub::LOAD_OPTIONS_TAG;
}

/// What an event that extends nothing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Information<'a> {
    /// The locality of TPM2_Startup.
    StartupLocality(u8),
    /// Another: its signature, up to 15 bytes, and what follows.
    Other {
        /// Text that names it.
        signature: &'a [u8],
        /// Its data.
        data: &'a [u8],
    },
}

impl Content<'_> {
    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Opaque => f.write_str("opaque"),
            Self::Separator(Separator::Ready) => f.write_str("separator"),
            Self::Separator(Separator::Error) => f.write_str("separator of an error"),
            Self::Action(text) => {
                f.write_str("action \"")?;
                text::clean(f, text.chars())?;
                f.write_str("\"")
            }
            Self::Variable(variable) => variable.describe(f),
            Self::VariableValue { claimed, .. } => {
                f.write_str("value of ")?;
                claimed.describe(f)
            }
            Self::Authority(authority) => authority.describe(f),
            Self::PartitionTable(table) => table.describe(f),
            Self::FirmwareVersion(version) => {
                f.write_str("firmware version ")?;
                describe_version(f, version)
            }
            Self::Grub { claimed, text } => {
                f.write_str(claimed.describe())?;
                text::clean_bytes(f, text)
            }
            Self::SectionName(name) => {
                f.write_str("name of section ")?;
                text::clean(f, name.chars())
            }
            Self::Text(text) => {
                f.write_str("text ")?;
                text::clean(f, text.chars())
            }
            Self::Bytes(bytes) => describe_bytes(f, bytes),
        }
    }
}

impl GrubText {
    pub(super) fn of(text: grub::Text) -> Self {
        match text {
            grub::Text::Command => Self::Command,
            grub::Text::KernelLine => Self::KernelCommandLine,
            grub::Text::ModuleLine => Self::ModuleCommandLine,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Command => "grub command: ",
            Self::KernelCommandLine => "grub kernel command line: ",
            Self::ModuleCommandLine => "grub module command line: ",
        }
    }
}

impl Claim<'_> {
    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self {
            Self::Content(content) => content.describe(f),
            Self::Image(image) => image.describe(f),
            Self::Blob(blob) => {
                write!(f, "firmware blob at {:#x}, {} bytes", blob.base, blob.length)?;
                describe_name(f, blob.description)
            }
            Self::Tables { count, description } => {
                write!(f, "{count} handoff tables")?;
                describe_name(f, description)
            }
            Self::Tag(Tag { id: Tag::INITRD, .. }) => f.write_str("initrd of the kernel's efi stub"),
            Self::Tag(Tag { id: Tag::LOAD_OPTIONS, .. }) => {
                f.write_str("command line of the kernel's efi stub")
            }
            Self::Tag(tag) => {
                write!(f, "tag {:#010x}: ", tag.id)?;
                describe_bytes(f, tag.data)
            }
            Self::Section(name) => {
                f.write_str("section ")?;
                text::clean(f, name.chars())
            }
            Self::Name(name) => text::clean_bytes(f, name),
            Self::WideName(name) => text::clean(f, name.chars()),
            Self::Information(Information::StartupLocality(locality)) => {
                write!(f, "startup locality {locality}")
            }
            Self::Information(Information::Other { signature, data }) => {
                f.write_str("information ")?;
                text::clean_bytes(f, signature)?;
                write!(f, ", {} bytes", data.len())
            }
            Self::Bytes(bytes) => describe_bytes(f, bytes),
        }
    }
}

/// `STUB_PAYLOAD_GUID` of systemd (src/boot/efi/linux.c).
const STUB_PAYLOAD: Guid = Guid::new(0x55c5_d1f8, 0x04cd, 0x46b5, 0x8a20_e56c_bb30_52d0);

impl Image<'_> {
    /// Whether it is said to be the kernel inside a unified image, as systemd's stub starts it.
    pub fn is_payload_of_stub(&self) -> bool {
        self.path.is_vendor_media(&STUB_PAYLOAD)
    }

    fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        f.write_str(match self.kind {
            ImageKind::Application => "boot application ",
            ImageKind::BootDriver => "boot driver ",
            ImageKind::RuntimeDriver => "runtime driver ",
        })?;
        match self.path.file() {
            Some(file) => text::clean(f, file.chars()),
            None if self.is_payload_of_stub() => {
                f.write_str("inside the unified image (payload of systemd's stub)")
            }
            None if self.path.is_empty() => write!(f, "from memory, {} bytes", self.length),
            None => self.path.describe(f),
        }
    }
}

fn describe_name(f: &mut dyn Write, name: &[u8]) -> fmt::Result {
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    if name.is_empty() {
        return Ok(());
    }
    f.write_str(", ")?;
    text::clean_bytes(f, name)
}

/// As UTF-16 or ASCII if it looks like it, a GUID if it has the length of one, else hex.
fn describe_version(f: &mut dyn Write, version: &[u8]) -> fmt::Result {
    let wide = Utf16::strict(version).filter(|text| text.chars().all(|char| matches!(char, ' '..='~')));
    match (wide, <[u8; 16]>::try_from(version)) {
        (Some(text), _) => text::clean(f, text.chars()),
        (None, Ok(guid)) => write!(f, "{}", Guid(guid)),
        (None, Err(_)) => describe_bytes(f, version),
    }
}

/// As text if it is ASCII, maybe with a NUL after it, else as hex.
fn describe_bytes(f: &mut dyn Write, bytes: &[u8]) -> fmt::Result {
    match bytes.strip_suffix(&[0]).unwrap_or(bytes) {
        [] if bytes.is_empty() => f.write_str("no data"),
        text if text::is_ascii_text(text) => text::clean_bytes(f, text),
        _ => text::hex(f, bytes),
    }
}

/// So that a value's meaning can be shown without its event.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}
