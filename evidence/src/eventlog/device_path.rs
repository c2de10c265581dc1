//! Device paths as text (UEFI 2.10, sections 10.3 and 10.6).

use super::cursor::Cursor;
use super::guid::Guid;
use super::text::{self, Utf16};
use std::fmt::{self, Write};

/// Where something is: nodes, each with type, subtype and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePath<'a>(&'a [u8]);

/// One node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node<'a> {
    kind: (u8, u8),
    data: &'a [u8],
}

const END: u8 = 0x7f;
const FILE_PATH: (u8, u8) = (4, 4);

impl<'a> DevicePath<'a> {
    /// Any bytes: what does not parse ends the path.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.nodes().next().is_none()
    }

    /// The device path as the log has it, unread.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Path and name of the file, as `\EFI\Linux\linux.efi`; `None` if the path has none.
    /// As the log has it: control characters and all.
    pub fn file(&self) -> Option<String> {
        let mut path = String::new();
        for part in self.files() {
            // Each node is a part of the path, with or without its separator.
            if !path.is_empty()
                && !path.ends_with('\\')
                && part.chars().next().is_none_or(|first| first != '\\')
            {
                path.push('\\');
            }
            path.extend(part.chars());
        }
        (!path.is_empty()).then_some(path)
    }

    /// Whether it is one node: a vendor's own kind of media.
    pub(super) fn is_vendor_media(&self, vendor: &Guid) -> bool {
        let mut nodes = self.nodes().map(|node| (node.kind, Cursor(node.data).guid()));
        nodes.next() == Some(((4, 3), Some(*vendor))) && nodes.next().is_none()
    }

    fn files(&self) -> impl Iterator<Item = Utf16<'a>> + use<'a> {
        self.nodes().filter(|node| node.kind == FILE_PATH).filter_map(|node| Utf16::new(node.data))
    }

    fn nodes(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let mut cursor = Cursor(self.0);
        std::iter::from_fn(move || Node::read(&mut cursor))
    }

    /// The whole path: `PciRoot(0x0)/Pci(0x1,0x2)/HD(1,GPT,..)/\EFI\BOOT\BOOTX64.EFI`.
    pub(super) fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        for (at, node) in self.nodes().enumerate() {
            f.write_str(if at > 0 { "/" } else { "" })?;
            node.describe(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for DevicePath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe(f)
    }
}

impl<'a> Node<'a> {
    /// Ends at an end node, and at one that is shorter than its own head.
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let kind = (cursor.u8()?, cursor.u8()?);
        let length = usize::from(cursor.u16()?).checked_sub(4)?;
        let data = cursor.take(length)?;
        (kind.0 & END != END).then_some(Self { kind, data })
    }

    fn describe(&self, f: &mut dyn Write) -> fmt::Result {
        match self.known(f) {
            Some(result) => result,
            None => {
                write!(f, "Path({},{}", self.kind.0, self.kind.1)?;
                f.write_str(if self.data.is_empty() { "" } else { "," })?;
                text::hex(f, self.data)?;
                f.write_str(")")
            }
        }
    }

    /// Writes nothing, and is `None`, if the node is of another type or too short for its type.
    fn known(&self, f: &mut dyn Write) -> Option<fmt::Result> {
        let mut data = Cursor(self.data);
        Some(match self.kind {
            (1, 1) => {
                let (function, device) = (data.u8()?, data.u8()?);
                write!(f, "Pci({device:#x},{function:#x})")
            }
            (1, 3) => {
                let (kind, start, end) = (data.u32()?, data.u64()?, data.u64()?);
                write!(f, "MemoryMapped({kind:#x},{start:#x},{end:#x})")
            }
            (1, 4) => write!(f, "VenHw({})", data.guid()?),
            (2, 1) => {
                let (id, unit) = (data.u32()?, data.u32()?);
                match id {
                    0x0a03_41d0 => write!(f, "PciRoot({unit:#x})"),
                    0x0a08_41d0 => write!(f, "PcieRoot({unit:#x})"),
                    _ => write!(f, "Acpi({id:#010x},{unit:#x})"),
                }
            }
            (3, 2) => {
                let (target, lun) = (data.u16()?, data.u16()?);
                write!(f, "Scsi({target:#x},{lun:#x})")
            }
            (3, 5) => {
                let (port, interface) = (data.u8()?, data.u8()?);
                write!(f, "USB({port:#x},{interface:#x})")
            }
            (3, 10) => write!(f, "VenMsg({})", data.guid()?),
            (3, 11) => {
                let address = data.take(32)?;
                let kind = data.u8()?;
                // An address of Ethernet has 6 bytes of the 32.
                let length = if kind <= 1 { 6 } else { 32 };
                f.write_str("MAC(")
                    .and_then(|()| text::hex(f, &address[..length]))
                    .and_then(|()| write!(f, ",{kind:#x})"))
            }
            (3, 12) => {
                data.take(4)?;
                let remote: [u8; 4] = data.take(4)?.try_into().ok()?;
                write!(f, "IPv4({})", std::net::Ipv4Addr::from(remote))
            }
            (3, 13) => {
                data.take(16)?;
                let remote: [u8; 16] = data.take(16)?.try_into().ok()?;
                write!(f, "IPv6({})", std::net::Ipv6Addr::from(remote))
            }
            (3, 18) => {
                let (port, multiplier, lun) = (data.u16()?, data.u16()?, data.u16()?);
                write!(f, "Sata({port:#x},{multiplier:#x},{lun:#x})")
            }
            (3, 23) => {
                let (namespace, id) = (data.u32()?, data.u64()?);
                write!(f, "NVMe({namespace:#x},{id:016x})")
            }
            (3, 24) => f
                .write_str("Uri(")
                .and_then(|()| text::clean_bytes(f, data.0))
                .and_then(|()| f.write_str(")")),
            (4, 1) => return describe_hard_drive(f, data),
            (4, 2) => {
                let (entry, start, sectors) = (data.u32()?, data.u64()?, data.u64()?);
                write!(f, "CDROM({entry:#x},{start:#x},{sectors:#x})")
            }
            (4, 3) => write!(f, "VenMedia({})", data.guid()?),
            FILE_PATH => text::clean(f, Utf16::new(data.0)?.chars()),
            (4, 6) => write!(f, "FvFile({})", data.guid()?),
            (4, 7) => write!(f, "Fv({})", data.guid()?),
            (4, 8) => {
                data.take(4)?;
                let (start, end) = (data.u64()?, data.u64()?);
                write!(f, "Offset({start:#x},{end:#x})")
            }
            _ => return None,
        })
    }
}

/// `HD(1,GPT,GUID,0x800,0x64000)`
fn describe_hard_drive(f: &mut dyn Write, mut data: Cursor<'_>) -> Option<fmt::Result> {
    let (partition, start, sectors) = (data.u32()?, data.u64()?, data.u64()?);
    let signature = data.guid()?;
    let (_format, kind) = (data.u8()?, data.u8()?);
    Some(match kind {
        2 => write!(f, "HD({partition},GPT,{signature},{start:#x},{sectors:#x})"),
        1 => {
            let [a, b, c, d, ..] = signature.0;
            let disk = u32::from_le_bytes([a, b, c, d]);
            write!(f, "HD({partition},MBR,{disk:#010x},{start:#x},{sectors:#x})")
        }
        _ => write!(f, "HD({partition},{kind},{start:#x},{sectors:#x})"),
    })
}
