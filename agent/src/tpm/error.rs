//! What can go wrong with a TPM, in words.

use super::rc;
use halfkey_protocol::Reason;
use halfkey_protocol::tpm::bank::PcrBank;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// What went wrong. Displayed without the remedy; see [`Error::hint`].
///
/// After `Io`, `Timeout` or a frame that is `Malformed` nobody knows what the TPM says next, so
/// every later command fails too: open it again. All others leave the [`super::Tpm`] as it was.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The device or socket (first field) can't be opened.
    Open(String, io::Error),
    /// The transport failed during this command.
    Io(&'static str, io::Error),
    /// No answer to this command for this long.
    Timeout(&'static str, Duration),
    /// What the agent was given for this command (by a token, by a server) is larger than a TPM takes.
    TooLarge(&'static str),
    /// The TPM refused this command with this response code.
    Refused(&'static str, u32),
    /// The TPM is locked after failed authorizations.
    Lockout {
        /// The command it refused.
        command: &'static str,
        /// Seconds after which it forgets one failed authorization; 0 if it never does or did not say.
        interval: u32,
    },
    /// An answer to this command that no TPM gives.
    Malformed(&'static str),
    /// An answer to this command whose HMAC is wrong: something sits between.
    Hmac(&'static str),
    /// PCRs kept changing while the half was unsealed: begin again with a new session.
    PcrChanged,
    /// PCR 15 is not zero: the boot window is over.
    FenceExtended,
    /// The TPM keeps no PCRs in the bank that is to be quoted; its `TPM_ALG_ID`.
    BankInactive(u16),
    /// The TPM keeps no PCRs at all.
    NoActiveBank,
    /// The SRK is not the key that was expected: the TPM was cleared, or is another one.
    WrongSrk,
    /// The hierarchy (`owner`, `endorsement`) has an authorization value that the agent lacks.
    HierarchyAuth(&'static str),
    /// The hierarchy is disabled by the firmware.
    HierarchyDisabled(&'static str),
    /// This persistent handle is taken by another key.
    Occupied(u32),
    /// The kernel gave no randomness.
    Random,
    /// Something that the TPM lacks or should not have, in words.
    Unsuitable(&'static str),
}

impl Error {
    /// The response code, if the TPM gave one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Refused(_, code) => Some(*code),
            Self::Lockout { .. } => Some(rc::LOCKOUT),
            _ => None,
        }
    }

    /// Whether the TPM refused with this code, whatever parameter, handle or session it names.
    pub(super) fn is(&self, base: u32) -> bool {
        self.code().is_some_and(|code| rc::base(code) == base)
    }

    /// What the operator can do, if something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Open(_, error) => match error.kind() {
                ErrorKind::NotFound => {
                    "is the TPM enabled in the firmware setup, and its driver in the initramfs?"
                }
                ErrorKind::PermissionDenied => "run as root",
                ErrorKind::ResourceBusy => "another program holds the TPM: use /dev/tpmrm0, not /dev/tpm0",
                ErrorKind::ConnectionRefused => "is swtpm running, with --server?",
                _ => return None,
            },
            Self::Timeout(..) => "power the machine off and on; a TPM that stays silent is broken",
            Self::Lockout { interval: 0, .. } => {
                "clear the lockout with 'tpm2_dictionarylockout --clear-lockout' (add --auth if it has a password)"
            }
            Self::Lockout { interval, .. } => {
                return Some(format!(
                    "it forgets one failed try every {interval} s while it is powered; wait, or clear the \
                     lockout with 'tpm2_dictionarylockout --clear-lockout'"
                ));
            }
            Self::Hmac(_) => "the TPM's bus may be tampered with: look at the hardware",
            Self::PcrChanged => "try again",
            Self::BankInactive(_) => return Reason::Bank.hint().map(str::to_owned),
            Self::NoActiveBank => "activate its bank sha256 in the firmware setup",
            Self::FenceExtended => "only a reboot opens the boot window again",
            Self::WrongSrk => "enroll again if this TPM was cleared on purpose",
            Self::HierarchyAuth(_) => {
                "enroll with the hierarchy's password, so that the keys are made persistent, or clear it with tpm2_changeauth"
            }
            Self::HierarchyDisabled(_) => "enable the TPM's hierarchies in the firmware setup",
            Self::Occupied(_) => "if nobody needs that key, remove it with tpm2_evictcontrol",
            Self::Refused(command, code) => return refusal_hint(command, rc::base(*code)).map(str::to_owned),
            Self::Io(..) | Self::TooLarge(_) | Self::Malformed(_) | Self::Random | Self::Unsuitable(_) => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

fn refusal_hint(command: &str, base: u32) -> Option<&'static str> {
    Some(match base {
        rc::INITIALIZE => "the firmware must start the TPM: is it enabled in the firmware setup?",
        rc::FAILURE => "power the machine off and on; look at the firmware for a TPM update",
        rc::DISABLED | rc::HIERARCHY => "enable the TPM and its hierarchies in the firmware setup",
        rc::OBJECT_MEMORY | 0x903 | 0x905 => {
            "use /dev/tpmrm0, or flush what others left with 'tpm2_flushcontext -t'"
        }
        rc::INTEGRITY => "the sealed half belongs to another TPM, or the TPM was cleared: enroll again",
        rc::POLICY_FAIL if command == "Unseal" => {
            "the half was sealed for another release key, node or bank: enroll again"
        }
        rc::SIGNATURE => "the verifier signed for another session, or with another release key",
        rc::AUTH_FAIL | rc::BAD_AUTH => return None,
        // Format 1 is about what a command was given, and that stands in the LUKS2 token, which root can write.
        _ if base & 0x80 != 0 && matches!(command, "Load" | "LoadExternal") => {
            "the volume's halfkey token may be damaged: enroll again from the running system"
        }
        _ => return None,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(location, error) => write!(f, "can't open the TPM at {location}: {error}"),
            Self::Io(command, error) => write!(f, "lost the TPM during {command}: {error}"),
            Self::Timeout(command, wait) => {
                write!(f, "the TPM did not answer {command} within {} s", wait.as_secs())
            }
            Self::TooLarge(command) => write!(f, "the data for {command} is larger than a TPM takes"),
            Self::Refused(command, code) => write!(f, "the TPM refused {command}: {}", rc::in_words(*code)),
            Self::Lockout { command, .. } => {
                write!(f, "the TPM refused {command}: {}", rc::in_words(rc::LOCKOUT))
            }
            Self::Malformed(command) => write!(f, "the TPM's answer to {command} is malformed"),
            Self::Hmac(command) => write!(f, "the TPM's answer to {command} has a wrong HMAC"),
            Self::PcrChanged => f.write_str("PCRs changed while the half was unsealed"),
            Self::FenceExtended => f.write_str("expected PCR 15 to be zero, found it extended"),
            Self::WrongSrk => f.write_str("the TPM's storage key is not the enrolled one"),
            Self::HierarchyAuth(name) => write!(f, "the TPM's {name} hierarchy has an unknown password"),
            Self::HierarchyDisabled(name) => write!(f, "the TPM's {name} hierarchy is disabled"),
            Self::Occupied(handle) => write!(f, "the TPM's handle 0x{handle:08x} is taken by another key"),
            Self::Random => f.write_str("the kernel gave no randomness"),
            Self::BankInactive(alg) => match PcrBank::from_alg(*alg) {
                Some(bank) => write!(f, "the TPM's PCR bank {} is not active", bank.name()),
                None => write!(f, "the TPM's PCR bank 0x{alg:04x} is not active"),
            },
            Self::NoActiveBank => f.write_str("the TPM has no active PCR bank"),
            Self::Unsuitable(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
