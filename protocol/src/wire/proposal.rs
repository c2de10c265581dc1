//! Proposals: node -> verifier, in the running system, about its next boot.

use super::attest::Evidence;
use super::declare::wire;
use crate::Bytes;

wire! {
    /// What the node will boot next, measured from the files that its boot loader will load. A hint: root on the node
    /// could lie.
    pub struct Proposal {
        /// Version of this document: 1.
        pub version: u32,
        /// For people: the kernel's version.
        pub name: String,
        /// The bank of the digests below: the enrolled one.
        pub bank: String,
        /// The images that the boot loader will start, in order: a UKI and the kernel in it, or a kernel. What comes
        /// before them (shim, boot loader) stays as it is.
        pub images: Vec<ProposedImage>,
        /// The sections of the UKI that its stub will measure into PCR 11, in the order of measuring. Empty for a kernel.
        pub sections: Vec<ProposedSection>,
        /// Digest of the initrd, as the kernel will measure it into PCR 9.
        pub initrd: Option<Bytes>,
        /// Kernel command line, UTF-8.
        pub command_line: Option<String>,
        /// What is known of a boot loader that measures its own configuration.
        pub loader: Option<ProposedLoader>,
        /// Whether an update has handed the agent these files, on file systems that nobody else can write. Else they are what stood on the
        /// boot partitions, and somebody may have put it there while the machine was off.
        pub written_by_update: bool,
    }

    /// A boot loader that measures its own configuration, as GRUB does: what that will be is known once it was booted. For the operator; no rule
    /// goes by it.
    pub struct ProposedLoader {
        /// `grub`
        pub name: String,
        /// How its configuration differs from the one that the running system was booted with: lines of printable ASCII. Empty where it does
        /// not.
        pub changes: String,
        /// Digests of files that it will read as they are: the kernel, each initrd, its configuration. None from an agent that does not say.
        pub files: Option<Vec<Bytes>>,
    }

    /// An image of a [`Proposal`].
    pub struct ProposedImage {
        /// `uki` or `kernel`.
        pub role: String,
        /// Where the node found it; for people.
        pub path: String,
        /// Authenticode digest.
        pub authenticode: Bytes,
        /// Release of the kernel in it, as the image says it; of a `kernel` alone, and none if it does not say.
        pub release: Option<String>,
    }

    /// A section of a [`Proposal`].
    pub struct ProposedSection {
        /// With its dot: `.linux`.
        pub name: String,
        /// Digest of its content.
        pub digest: Bytes,
    }

    /// Body of `POST /v1/propose`.
    pub struct Propose {
        /// A quote of the running system: purpose `propose`, bank `sha256` whatever the enrolled one, no HPKE key, no
        /// nonceTPM, and as `purpose_data` the SHA-256 of `proposal`.
        pub evidence: Evidence,
        /// [`Proposal`] as JSON text.
        pub proposal: Bytes,
    }

    /// The answer to a proposal.
    pub struct Proposed {
        /// `accepted`: that boot will be released. `waiting`: for an operator. `refused`.
        pub outcome: String,
        /// A [`crate::Reason`] code, unless accepted.
        pub code: Option<String>,
        /// Which rule accepts it, or why none does.
        pub message: String,
        /// What to do next.
        pub hint: Option<String>,
        /// Number of the proposal at the verifier.
        pub proposal_id: Option<u64>,
    }
}
