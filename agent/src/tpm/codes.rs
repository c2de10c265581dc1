//! Commands: names and codes.

use tpm2_protocol::data::TpmCc;

/// A command of TPM 2.0 Part 3.
#[derive(Clone, Copy)]
pub(super) struct Command {
    pub name: &'static str,
    pub code: u32,
    /// Whether the answer starts with a handle.
    pub returns_handle: bool,
}

macro_rules! commands {
    ($($name:ident = $code:ident, $text:literal, $returns_handle:literal;)+) => {
        $(pub(super) const $name: Command =
            Command { name: $text, code: TpmCc::$code as u32, returns_handle: $returns_handle };)+
    };
}

commands! {
    ACTIVATE_CREDENTIAL = ActivateCredential, "ActivateCredential", false;
    CERTIFY = Certify, "Certify", false;
    CREATE = Create, "Create", false;
    CREATE_PRIMARY = CreatePrimary, "CreatePrimary", true;
    EVICT_CONTROL = EvictControl, "EvictControl", false;
    FLUSH_CONTEXT = FlushContext, "FlushContext", false;
    GET_CAPABILITY = GetCapability, "GetCapability", false;
    LOAD = Load, "Load", true;
    LOAD_EXTERNAL = LoadExternal, "LoadExternal", true;
    NV_READ = NvRead, "NV_Read", false;
    NV_READ_PUBLIC = NvReadPublic, "NV_ReadPublic", false;
    PCR_EVENT = PcrEvent, "PCR_Event", false;
    PCR_READ = PcrRead, "PCR_Read", false;
    POLICY_PCR = PolicyPcr, "PolicyPCR", false;
    POLICY_RESTART = PolicyRestart, "PolicyRestart", false;
    POLICY_SECRET = PolicySecret, "PolicySecret", false;
    POLICY_SIGNED = PolicySigned, "PolicySigned", false;
    QUOTE = Quote, "Quote", false;
    READ_CLOCK = ReadClock, "ReadClock", false;
    READ_PUBLIC = ReadPublic, "ReadPublic", false;
    START_AUTH_SESSION = StartAuthSession, "StartAuthSession", true;
    UNSEAL = Unseal, "Unseal", false;
}
