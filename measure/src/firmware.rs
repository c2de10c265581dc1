//! UEFI firmware, as the TCG PC Client Platform Firmware Profile has it.

/// Firmware hands over: 0, or 0xffffffff (section 3.3.2.2).
pub const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];

/// In PCR 4: what was started is over, and firmware goes on.
pub const RETURNING: &str = "Returning from EFI Application from Boot Option";

/// Strings of EV_EFI_ACTION, by PCR (section 10.4.4), that every boot may have. Not those that say that something is switched off.
pub const ACTIONS: [(u8, &str); 5] = [
    (4, "Calling EFI Application from Boot Option"),
    (4, RETURNING),
    (5, "Exit Boot Services Invocation"),
    (5, "Exit Boot Services Returned with Success"),
    (5, "Exit Boot Services Returned with Failure"),
];

/// EV_EFI_BOOT_SERVICES_APPLICATION: an image was started.
pub const APPLICATION: u32 = 0x8000_0003;
