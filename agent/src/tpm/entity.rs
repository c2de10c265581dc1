//! What handles stand for: objects, hierarchies.

pub(super) const RH_OWNER: u32 = 0x4000_0001;
pub(super) const RH_NULL: u32 = 0x4000_0007;
pub(super) const RH_ENDORSEMENT: u32 = 0x4000_000b;

/// A loaded object.
pub struct Object {
    /// Transient (0x80...) or persistent (0x81...).
    pub handle: u32,
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// nameAlg and digest of the public area.
    pub name: Vec<u8>,
}

/// A hierarchy whose authorization value a caller may supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// `TPM_RH_OWNER`
    Owner,
    /// `TPM_RH_ENDORSEMENT`
    Endorsement,
}

impl Hierarchy {
    pub(super) fn handle(self) -> u32 {
        match self {
            Self::Owner => RH_OWNER,
            Self::Endorsement => RH_ENDORSEMENT,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Endorsement => "endorsement",
        }
    }
}

/// What a command's handle stands for.
#[derive(Clone, Copy)]
pub(super) struct Entity<'a> {
    pub handle: u32,
    /// Objects have a name of their own; hierarchies, PCRs and sessions are named by
    /// their handle (TPM 2.0 Part 1, section 16).
    pub name: Option<&'a [u8]>,
}

impl<'a> From<&'a Object> for Entity<'a> {
    fn from(object: &'a Object) -> Self {
        Self { handle: object.handle, name: Some(&object.name) }
    }
}

impl From<u32> for Entity<'_> {
    fn from(handle: u32) -> Self {
        Self { handle, name: None }
    }
}
