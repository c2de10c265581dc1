//! Where logs depart from the specification, and what is made of it: all in one place.

use super::kind;

/// A departure that is known and allowed for.
#[derive(Debug)]
pub struct Quirk {
    /// What it is called where a log is explained.
    pub name: &'static str,
    /// What is done, and why that is safe.
    pub reason: &'static str,
    /// Who does it.
    pub source: &'static str,
    /// The type of event that it is seen in.
    pub kind: u32,
}

impl Quirk {
    /// Whether it may be at work in an event of this type.
    pub(super) fn applies(&self, kind: u32) -> bool {
        self.kind == kind
    }
}

/// All of them.
pub static QUIRKS: [&Quirk; 6] = [
    &BOOT_VARIABLE_VALUE,
    &SECTION_NAME_ASCII,
    &INFORMATION_WITHOUT_PCR,
    &STARTUP_LOCALITY_UNSTATED,
    &AUTHORITY_WITHOUT_OWNER,
    &AUTHORITY_LOGGED_LONGER,
];

/// The digest of a boot variable is over its value alone.
pub(super) static BOOT_VARIABLE_VALUE: Quirk = Quirk {
    name: "boot-variable-value",
    reason: "EV_EFI_VARIABLE_BOOT covers the variable's value and not its name; the content is then the value, and the name \
             counts as claimed",
    source: "edk2, SecurityPkg/Tcg/Tcg2Dxe/Tcg2Dxe.c, MeasureVariable: only EV_EFI_VARIABLE_DRIVER_CONFIG is hashed whole",
    kind: kind::EFI_VARIABLE_BOOT,
};

/// The name of a section is measured in another encoding than it is logged in.
pub(super) static SECTION_NAME_ASCII: Quirk = Quirk {
    name: "section-name-ascii",
    reason: "the name is measured as ASCII with a NUL and logged as UTF-16; both spell the same text, and the digest is \
             recomputed over the ASCII",
    source: "systemd, src/boot/efi/measure.c, tpm_log_event_ascii",
    kind: kind::IPL,
};

/// An event that extends nothing names a PCR that does not exist.
pub(super) static INFORMATION_WITHOUT_PCR: Quirk = Quirk {
    name: "information-without-pcr",
    reason: "EV_NO_ACTION is taken with any index, as 0xffffffff: it extends nothing, so its index means nothing",
    source: "PC Client Platform Firmware Profile 1.05, section 10.4.3: EV_NO_ACTION extends no PCR",
    kind: kind::NO_ACTION,
};

/// PCR 0 starts at 4 without a word in the log.
pub(super) static STARTUP_LOCALITY_UNSTATED: Quirk = Quirk {
    name: "startup-locality-unstated",
    reason: "an EV_EFI_HCRTM_EVENT that comes first in PCR 0 means locality 4; if that is wrong, PCR 0 does not replay",
    source: "TPM 2.0 Part 1, section 34.3 (H-CRTM before TPM2_Startup)",
    kind: kind::EFI_HCRTM_EVENT,
};

/// An authority is logged without `SignatureOwner`.
pub(super) static AUTHORITY_WITHOUT_OWNER: Quirk = Quirk {
    name: "authority-without-owner",
    reason: "a certificate or SHA-256 hash may stand alone where EFI_SIGNATURE_DATA is specified; which of both it is shows in \
             the bytes, which the digest covers",
    source: "shim, shim.c, tpm_measure_variable(L\"Shim\", ..) and check_db_hash_in_ram",
    kind: kind::EFI_VARIABLE_AUTHORITY,
};

/// An authority is logged with a byte that is not measured.
pub(super) static AUTHORITY_LOGGED_LONGER: Quirk = Quirk {
    name: "authority-logged-longer",
    reason: "the digest is over all of the data but its last byte; what was measured must then be a whole UEFI_VARIABLE_DATA, and the byte \
             behind it is not looked at",
    source: "shim of older distributions; canonical/tcglog-parser knows it as EfiVariableAuthorityHasUnmeasuredByte",
    kind: kind::EFI_VARIABLE_AUTHORITY,
};
