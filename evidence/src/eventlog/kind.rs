//! Event types (TCG PC Client Platform Firmware Profile 1.06, section 10.4.1).
//!
//! An event's type is **not** covered by its digest: it is what the log claims.

/// Static root of trust: contents of option ROMs and other POST code.
pub const POST_CODE: u32 = 0x1;
/// Extends nothing: information for whoever reads the log.
pub const NO_ACTION: u32 = 0x3;
/// End of the firmware's part of a PCR.
pub const SEPARATOR: u32 = 0x4;
/// A string of the specification: something has happened.
pub const ACTION: u32 = 0x5;
/// Data with a tag; the EFI stub of Linux measures its command line and initrd so.
pub const EVENT_TAG: u32 = 0x6;
/// Contents of the static root of trust.
pub const S_CRTM_CONTENTS: u32 = 0x7;
/// Version of the static root of trust.
pub const S_CRTM_VERSION: u32 = 0x8;
/// A microcode patch.
pub const CPU_MICROCODE: u32 = 0x9;
/// Configuration of the platform.
pub const PLATFORM_CONFIG_FLAGS: u32 = 0xa;
/// Devices by the platform's own format.
pub const TABLE_OF_DEVICES: u32 = 0xb;
/// A digest that a driver made.
pub const COMPACT_HASH: u32 = 0xc;
/// Initial program loader: what boot loaders measure.
pub const IPL: u32 = 0xd;
/// Data of the boot partition.
pub const IPL_PARTITION_DATA: u32 = 0xe;
/// Code of another processor.
pub const NONHOST_CODE: u32 = 0xf;
/// Configuration of another processor.
pub const NONHOST_CONFIG: u32 = 0x10;
/// That there is another processor.
pub const NONHOST_INFO: u32 = 0x11;
/// That boot devices are left out.
pub const OMIT_BOOT_DEVICE_EVENTS: u32 = 0x12;
/// POST code, with base and length.
pub const POST_CODE2: u32 = 0x13;
/// A UEFI variable that configures drivers, as those of Secure Boot.
pub const EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
/// A UEFI variable of the boot manager.
pub const EFI_VARIABLE_BOOT: u32 = 0x8000_0002;
/// An application, as a boot loader or kernel: its Authenticode digest.
pub const EFI_BOOT_SERVICES_APPLICATION: u32 = halfkey_measure::firmware::APPLICATION;
/// A boot services driver: its Authenticode digest.
pub const EFI_BOOT_SERVICES_DRIVER: u32 = 0x8000_0004;
/// A runtime driver: its Authenticode digest.
pub const EFI_RUNTIME_SERVICES_DRIVER: u32 = 0x8000_0005;
/// The partition table that was booted from.
pub const EFI_GPT_EVENT: u32 = 0x8000_0006;
/// A string of the specification: something has happened.
pub const EFI_ACTION: u32 = 0x8000_0007;
/// A part of the firmware, by base and length.
pub const EFI_PLATFORM_FIRMWARE_BLOB: u32 = 0x8000_0008;
/// Tables such as SMBIOS.
pub const EFI_HANDOFF_TABLES: u32 = 0x8000_0009;
/// The same as [`EFI_PLATFORM_FIRMWARE_BLOB`] with a description.
pub const EFI_PLATFORM_FIRMWARE_BLOB2: u32 = 0x8000_000a;
/// The same as [`EFI_HANDOFF_TABLES`] with a description.
pub const EFI_HANDOFF_TABLES2: u32 = 0x8000_000b;
/// A UEFI variable of the boot manager; the digest is over all of the event's data.
pub const EFI_VARIABLE_BOOT2: u32 = 0x8000_000c;
/// The partition table with its header's unused bytes zeroed.
pub const EFI_GPT_EVENT2: u32 = 0x8000_000d;
/// Measured by hardware before TPM2_Startup.
pub const EFI_HCRTM_EVENT: u32 = 0x8000_0010;
/// Which entry of db (or of shim's lists) verified an image.
pub const EFI_VARIABLE_AUTHORITY: u32 = 0x8000_00e0;
/// Firmware of a device, measured by SPDM.
pub const EFI_SPDM_FIRMWARE_BLOB: u32 = 0x8000_00e1;
/// Configuration of a device, measured by SPDM.
pub const EFI_SPDM_FIRMWARE_CONFIG: u32 = 0x8000_00e2;
/// Policy for SPDM devices.
pub const EFI_SPDM_DEVICE_POLICY: u32 = 0x8000_00e3;
/// What verified an SPDM device.
pub const EFI_SPDM_DEVICE_AUTHORITY: u32 = 0x8000_00e4;

/// The type's name in the specification.
pub fn name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x0 => "EV_PREBOOT_CERT",
        POST_CODE => "EV_POST_CODE",
        0x2 => "EV_UNUSED",
        NO_ACTION => "EV_NO_ACTION",
        SEPARATOR => "EV_SEPARATOR",
        ACTION => "EV_ACTION",
        EVENT_TAG => "EV_EVENT_TAG",
        S_CRTM_CONTENTS => "EV_S_CRTM_CONTENTS",
        S_CRTM_VERSION => "EV_S_CRTM_VERSION",
        CPU_MICROCODE => "EV_CPU_MICROCODE",
        PLATFORM_CONFIG_FLAGS => "EV_PLATFORM_CONFIG_FLAGS",
        TABLE_OF_DEVICES => "EV_TABLE_OF_DEVICES",
        COMPACT_HASH => "EV_COMPACT_HASH",
        IPL => "EV_IPL",
        IPL_PARTITION_DATA => "EV_IPL_PARTITION_DATA",
        NONHOST_CODE => "EV_NONHOST_CODE",
        NONHOST_CONFIG => "EV_NONHOST_CONFIG",
        NONHOST_INFO => "EV_NONHOST_INFO",
        OMIT_BOOT_DEVICE_EVENTS => "EV_OMIT_BOOT_DEVICE_EVENTS",
        POST_CODE2 => "EV_POST_CODE2",
        0x8000_0000 => "EV_EFI_EVENT_BASE",
        EFI_VARIABLE_DRIVER_CONFIG => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        EFI_VARIABLE_BOOT => "EV_EFI_VARIABLE_BOOT",
        EFI_BOOT_SERVICES_APPLICATION => "EV_EFI_BOOT_SERVICES_APPLICATION",
        EFI_BOOT_SERVICES_DRIVER => "EV_EFI_BOOT_SERVICES_DRIVER",
        EFI_RUNTIME_SERVICES_DRIVER => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        EFI_GPT_EVENT => "EV_EFI_GPT_EVENT",
        EFI_ACTION => "EV_EFI_ACTION",
        EFI_PLATFORM_FIRMWARE_BLOB => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        EFI_HANDOFF_TABLES => "EV_EFI_HANDOFF_TABLES",
        EFI_PLATFORM_FIRMWARE_BLOB2 => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        EFI_HANDOFF_TABLES2 => "EV_EFI_HANDOFF_TABLES2",
        EFI_VARIABLE_BOOT2 => "EV_EFI_VARIABLE_BOOT2",
        EFI_GPT_EVENT2 => "EV_EFI_GPT_EVENT2",
        EFI_HCRTM_EVENT => "EV_EFI_HCRTM_EVENT",
        EFI_VARIABLE_AUTHORITY => "EV_EFI_VARIABLE_AUTHORITY",
        EFI_SPDM_FIRMWARE_BLOB => "EV_EFI_SPDM_FIRMWARE_BLOB",
        EFI_SPDM_FIRMWARE_CONFIG => "EV_EFI_SPDM_FIRMWARE_CONFIG",
        EFI_SPDM_DEVICE_POLICY => "EV_EFI_SPDM_DEVICE_POLICY",
        EFI_SPDM_DEVICE_AUTHORITY => "EV_EFI_SPDM_DEVICE_AUTHORITY",
        _ => return None,
    })
}
