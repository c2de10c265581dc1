//! What a policy document says, typed. Digests are bytes here; the texts are gone.

use crate::digest::Bank;
use halfkey_protocol::tpm::bank::PcrBank;
use std::fmt;

/// The whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// The name that it gives itself.
    pub name: String,
    /// `ignore`: bit n is PCR n.
    pub ignore: u32,
    /// `[secure_boot]`
    pub secure_boot: SecureBoot,
    /// `[firmware]`: PCR 0 and 2, if covered.
    pub firmware: [Option<Vec<Digest>>; 2],
    /// `[tpm]`: versions that the TPM's firmware may have, if anything is said of them.
    pub tpm_firmware: Option<Vec<u64>>,
    /// `[pcr]`: allowed values of whole PCRs.
    pub pcrs: Vec<(u8, Vec<Digest>)>,
    /// `[command_line]`
    pub command_line: CommandLine,
    /// `[[boot]]`
    pub boots: Vec<Boot>,
    /// `[[event]]`
    pub events: Vec<EventRule>,
    /// `[trust_root_with_next_boot]`
    pub trust: Option<Trust>,
}

/// A digest of one of the banks, or a fingerprint (SHA-256).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(crate::digest::Digest);

impl Digest {
    /// From as many bytes as SHA-256 or SHA-384 has; none for another number.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        matches!(bytes.len(), 32 | 48).then(|| crate::digest::Digest::from_bytes(bytes).map(Self))?
    }

    /// The digest of `data`.
    pub fn of(bank: PcrBank, data: &[u8]) -> Self {
        Self(Bank::from(bank).digest(data))
    }

    /// From `sha256:<64 hex digits>` or `sha384:<96 hex digits>`, lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digits) = text.split_once(':')?;
        let bank = PcrBank::from_name(name)?;
        let digest = crate::digest::Digest::from_hex(digits)?;
        (digest.len() == bank.digest_len()).then_some(Self(digest))
    }

    /// Those of a list, for people: a policy may have thousands, and a finding is one line.
    pub(super) fn one_of(list: &[Self]) -> String {
        match list {
            [one] => one.to_string(),
            [first, rest @ ..] => format!("{first} or {} more", rest.len()),
            [] => "none".to_owned(),
        }
    }

    /// The digest, 32 or 48 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bank that it is of, by its length.
    pub fn bank(&self) -> PcrBank {
        if self.0.len() == 32 { PcrBank::Sha256 } else { PcrBank::Sha384 }
    }
}

impl std::hash::Hash for Digest {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// As in a document: `sha256:<hex>`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.bank().name(), self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry of a signature database, as a document lists it. What it is belongs to it: whoever chooses the hash of an image can choose
/// the fingerprint of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listed {
    /// `sha256:<hex>`: SHA-256 over a certificate's DER.
    Certificate(Digest),
    /// `image:sha256:<hex>`: the Authenticode digest of an image.
    Image(Digest),
}

impl Listed {
    /// From what a document says; SHA-256 only, whatever the bank.
    pub fn parse(text: &str) -> Option<Self> {
        let (digest, listed): (_, fn(Digest) -> Self) = match text.strip_prefix("image:") {
            Some(digest) => (digest, Self::Image),
            None => (text, Self::Certificate),
        };
        Digest::parse(digest).filter(|digest| digest.bank() == PcrBank::Sha256).map(listed)
    }

    /// Whether it is one of these certificates.
    pub(crate) fn is_among(&self, certificates: &[Digest]) -> bool {
        matches!(self, Self::Certificate(fingerprint) if certificates.contains(fingerprint))
    }
}

/// As in a document.
impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(digest) => digest.fmt(f),
            Self::Image(digest) => write!(f, "image:{digest}"),
        }
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[secure_boot]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecureBoot {
    /// Whether firmware must have checked signatures.
    pub required: bool,
    /// Certificates and hashes that PK, KEK and db may have.
    pub pk: Vec<Listed>,
    pub kek: Vec<Listed>,
    pub db: Vec<Listed>,
    /// What dbx must have, if anything is said of it.
    pub dbx: Option<Dbx>,
    /// What may have verified something.
    pub authorities: Vec<Listed>,
}

/// `[secure_boot]` of additions: what one machine may have besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MoreKeys {
    pub kek: Vec<Listed>,
    pub db: Vec<Listed>,
    pub authorities: Vec<Listed>,
}

impl SecureBoot {
    /// Allows more.
    pub(crate) fn allow(&mut self, more: &MoreKeys) {
        self.kek.extend_from_slice(&more.kek);
        self.db.extend_from_slice(&more.db);
        self.authorities.extend_from_slice(&more.authorities);
    }
}

/// The forbidden signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dbx {
    /// `dbx`: exactly these.
    Exactly(Vec<Digest>),
    /// `dbx_at_least`: these, and maybe more.
    AtLeast(Vec<Digest>),
}

/// A word of a command line; a final `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub String);

/// `[command_line]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandLine {
    /// Nothing is said: each boot has its own.
    None,
    /// `exact`: one of these.
    Exact(Vec<String>),
    /// Token by token.
    Tokens { allowed: Vec<Token>, required: Vec<Token>, forbidden: Vec<Token> },
}

impl CommandLine {
    /// Allows more tokens, if tokens are what is asked.
    pub(crate) fn allow(&mut self, more: &[Token]) {
        if let Self::Tokens { allowed, .. } = self {
            allowed.extend_from_slice(more);
        }
    }
}

/// `[[boot]]`: one of the things that may be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// For people; unique in its policy.
    pub name: String,
    /// The exact command line, if it has one of its own.
    pub command_line: Option<String>,
    /// What the kernel measured into PCR 9.
    pub initrd: Initrd,
    /// What a stub measured into PCR 11; none: nothing.
    pub sections: Option<Sections>,
    /// The images in the order of their start.
    pub images: Vec<Image>,
    /// Further events that belong to it.
    pub events: Vec<EventRule>,
    /// Its kernel measures the initrd wherever it comes from (Linux c004703ed7ae): the owner's word.
    pub kernel_measures_initrd: bool,
    /// Who says so. No document can say that of itself.
    pub origin: Origin,
}

/// Where a `[[boot]]` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A document that the tenant signed, or will sign.
    #[default]
    Document,
    /// The node's proposal of this number, which `[trust_root_with_next_boot]` accepted.
    Proposal(u64),
}

/// The rule for the initrd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Initrd {
    /// This one.
    Digest(Digest),
    /// Whatever the signed image has in it.
    Signed,
    /// The section of the UKI, which is known by its hash, and what its stub adds on this machine alone.
    InUki,
}

/// The rule for the sections of a UKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sections {
    /// Name and digest.
    Digests(Vec<(String, Digest)>),
    /// Whatever the signed image has.
    Signed,
}

/// `[[boot.image]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the image is in the boot path.
    pub role: Role,
    /// By what it is known.
    pub allowed: Allowed,
    /// What else its signer signs, and the owner says that it may.
    pub signer_also_signs: Vec<Role>,
}

/// How an image is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `authenticode`: one of these digests.
    Authenticode(Vec<Digest>),
    /// `signer`: verified by one of these certificates.
    Signer(Vec<Digest>),
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// First stage that brings keys of its own.
    Shim,
    /// GRUB, systemd-boot.
    Loader,
    /// Unified kernel image.
    Uki,
    /// Kernel with EFI stub.
    Kernel,
    /// A driver, a firmware application.
    Other,
}

impl Role {
    /// As in a document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Loader => "loader",
            Self::Uki => "uki",
            Self::Kernel => "kernel",
            Self::Other => "other",
        }
    }

    /// From the name in a document.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Shim, Self::Loader, Self::Uki, Self::Kernel, Self::Other]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// `[[event]]`, `[[boot.event]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// Which PCR.
    pub pcr: u8,
    /// By what the event is known.
    pub is: EventIs,
    /// For people.
    pub because: Option<String>,
}

/// By what an event is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventIs {
    /// Its digest.
    Digest(Digest),
    /// Its verified text.
    Text(String),
}

/// `[trust_root_with_next_boot]`: proposals of a node are accepted unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Until when, in seconds since 1970.
    pub until: u64,
    /// How many different ones of each node.
    pub count: u32,
}

impl Boot {
    /// Whether an image is known by its signer.
    pub fn has_signer(&self) -> bool {
        self.images.iter().any(|image| matches!(image.allowed, Allowed::Signer(_)))
    }
}
