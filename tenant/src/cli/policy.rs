//! `halfkey policy`, `proposal`, `group`.

use super::Bank;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

const PREDICT_HELP: &str = "\
What can't be known here is said: a package of a kernel has neither the initrd nor the command
line of your machines. The block allows what was predicted and nothing else, so take files that
you trust.

--db and --kek are for certificates that the firmware or fwupd is going to add: an X.509
certificate (DER or PEM), EFI signature lists (.esl), or a signed update of them (.auth, as
Microsoft publishes it). Its signature is for the firmware, and not checked here.";

const TEST_HELP: &str = "\
LOG is a firmware event log (/sys/kernel/security/tpm0/binary_bios_measurements, or what
`halfkey evidence --id N --event-log FILE` saved), or an IMA list
(/sys/kernel/security/ima/binary_runtime_measurements), which is judged by [ima] of the policy. No quote
vouches for it: it is taken as it is.";

/// What can be done with policies.
#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Write a policy that explains one boot as tightly as it can
    Learn {
        /// Id, prefix or label
        node: String,
        /// Evidence of that boot; otherwise the boot that waits, or the last one released
        #[arg(long, value_name = "N")]
        boot: Option<u64>,
        /// Name of the policy; otherwise the node's label
        #[arg(long)]
        name: Option<String>,
        /// Where to write it; otherwise standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The kernel measures its initrd wherever it comes from (Linux 6.13 and later); only for boots without uki
        /// and without GRUB, and nothing in a log proves it
        #[arg(long)]
        kernel_measures_initrd: bool,
        /// Allow also the images that were started before this boot and came back to the firmware (a UEFI shell, a network
        /// boot program): whatever they can be made to do has the key
        #[arg(long)]
        trust_returned_images: bool,
        /// Allow also what no text proves (credentials and extensions beside a uki, something unusual in PCR 7): any of it may be an
        /// initramfs or a command line, whatever it is called. Of GRUB's files a first policy takes all as they are
        #[arg(long)]
        trust_unknown_events: bool,
    },
    /// Compute what the next boot will measure, and the block that allows it
    #[command(after_help = PREDICT_HELP)]
    Predict(PredictArgs),
    /// Say what is wrong with a policy, with line and column
    Check {
        /// TOML; `-` is standard input
        file: PathBuf,
        /// It is additions to a group's policy
        #[arg(long)]
        additions: bool,
    },
    /// What one policy allows and another does not
    Diff {
        /// A file, or group:NAME, node:NODE, perhaps with a version: group:web@3
        before: String,
        /// The same
        after: String,
    },
    /// Print a policy of the verifier
    Show {
        /// group:NAME, node:NODE or additions:NODE
        scope: String,
        /// This version instead of the newest
        #[arg(long, value_name = "N")]
        version: Option<u64>,
    },
    /// List the policies of the verifier
    List,
    /// Sign a policy and submit it
    Apply {
        /// TOML
        file: PathBuf,
        /// What it is for.
        #[command(flatten)]
        target: ApplyTarget,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Take back a node's own policy, or its additions: its group's policy is what is left
    Withdraw {
        /// Id, prefix or label
        node: String,
        /// Its additions, not its policy
        #[arg(long)]
        additions: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Try a policy on stored boots: which would be denied
    #[command(after_help = TEST_HELP)]
    Test {
        /// TOML; `-` is standard input
        file: PathBuf,
        /// NODE, a group, `all`, or a LOG
        #[arg(long, value_name = "NODE|GROUP|all|LOG")]
        against: String,
        /// The kernel command line of LOG: a file like /proc/cmdline
        #[arg(long, value_name = "FILE")]
        cmdline: Option<PathBuf>,
        /// A list of digests that [ima] names, where LOG is an IMA list; again for each
        #[arg(long, value_name = "FILE")]
        digests: Vec<PathBuf>,
        /// The PCR bank of LOG
        #[arg(long, default_value = "sha256")]
        bank: Bank,
    },
    /// Each event of a boot, and the rule that accepts it, or none
    Explain {
        /// Id, prefix or label
        node: String,
        /// Evidence of that boot; otherwise the last one
        #[arg(long, value_name = "N")]
        boot: Option<u64>,
    },
}

/// What a policy is for.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct ApplyTarget {
    /// All nodes of this group that have no policy of their own
    #[arg(long)]
    pub group: Option<String>,
    /// This node alone
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// This node of a group, besides what the group's policy allows
    #[arg(long, value_name = "NODE")]
    pub additions: Option<String>,
}

/// `halfkey policy predict`.
#[derive(Args)]
pub struct PredictArgs {
    /// What will be booted.
    #[command(flatten)]
    pub files: PredictFiles,
    /// The initrd that the boot loader will hand to the kernel; several in the order of loading
    #[arg(long, value_name = "FILE", conflicts_with = "uki")]
    pub initrd: Vec<PathBuf>,
    /// The kernel command line, as in /proc/cmdline
    #[arg(long, value_name = "TEXT", conflicts_with = "uki")]
    pub cmdline: Option<String>,
    /// A node that boots the same way now: what comes before the image is taken from its last boot;
    /// with --add otherwise that of --node, or one of --group
    #[arg(long, value_name = "NODE")]
    pub base: Option<String>,
    /// Whether the machines boot with Secure Boot on; otherwise as the base did, or on
    #[arg(long, value_name = "on|off")]
    pub secure_boot: Option<Switch>,
    /// The kernel measures its initrd wherever it comes from (Linux 6.13 and later); otherwise as the boot says that it
    /// is based on, if it is the same kernel or its image says that it is of such a release
    #[arg(long, conflicts_with = "uki")]
    pub kernel_measures_initrd: bool,
    /// What --db brings may also verify images of the boot, and what else firmware starts before it
    #[arg(long, requires = "db")]
    pub authority: bool,
    /// Name of the boot; otherwise that of the file
    #[arg(long)]
    pub name: Option<String>,
    /// PCR bank of the machines
    #[arg(long, default_value = "sha256")]
    pub bank: Bank,
    /// Add the block to the policy of --group or --node, sign it and submit it
    #[arg(long, requires = "AddTarget")]
    pub add: bool,
    /// Where to add it.
    #[command(flatten)]
    pub target: AddTarget,
    /// Do not ask
    #[arg(long, requires = "add")]
    pub yes: bool,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// What will be booted.
#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct PredictFiles {
    /// A unified kernel image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kernel", "package", "db", "kek"])]
    pub uki: Option<PathBuf>,
    /// A kernel, with --initrd and --cmdline
    #[arg(long, value_name = "FILE", requires_all = ["initrd", "cmdline"], conflicts_with_all = ["package", "db", "kek"])]
    pub kernel: Option<PathBuf>,
    /// A Debian package with kernels or unified kernel images; nothing of it is run
    #[arg(long, value_name = "FILE.deb", conflicts_with_all = ["db", "kek"])]
    pub package: Option<PathBuf>,
    /// What will be added to db, besides what is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_FOR_KEYS)]
    pub db: Vec<PathBuf>,
    /// What will be added to KEK, besides what is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = NOT_FOR_KEYS)]
    pub kek: Vec<PathBuf>,
}

/// What is said of images.
const NOT_FOR_KEYS: [&str; 6] =
    ["initrd", "cmdline", "base", "secure_boot", "kernel_measures_initrd", "name"];

/// Where to add a boot.
#[derive(Args)]
#[group(id = "AddTarget", multiple = false)]
pub struct AddTarget {
    /// The policy of this group
    #[arg(long, requires = "add")]
    pub group: Option<String>,
    /// The policy that governs this node, its own or its group's
    #[arg(long, value_name = "NODE", requires = "add")]
    pub node: Option<String>,
}

/// What can be done with one proposal.
#[derive(Subcommand)]
pub enum ProposalCommand {
    /// Show what a node wants to boot next, and the block that would allow it
    Show {
        /// Its number
        id: u64,
    },
    /// Add it to the policy of the node or its group, sign that and submit it
    Accept {
        /// Its number
        id: u64,
        /// The kernel measures its initrd wherever it comes from (Linux 6.13 and later, or one that this was ported back to); said
        /// already where the policy says it of this kernel, or of the one before and the image says that it is of 6.13 or later
        #[arg(long)]
        kernel_measures_initrd: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Refuse it
    Deny {
        /// Its number
        id: u64,
        /// Reason, for the audit trail
        #[arg(long, value_name = "TEXT")]
        because: String,
    },
}

/// What can be done with groups.
#[derive(Subcommand)]
pub enum GroupCommand {
    /// List the groups and their nodes
    List,
    /// Put nodes into a group, or into none
    Set {
        /// Ids, prefixes or labels
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Which group.
        #[command(flatten)]
        target: GroupTarget,
    },
}

/// Which group.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct GroupTarget {
    /// Its name; it comes to be with its first node or policy
    #[arg(long)]
    pub group: Option<String>,
    /// Out of its group
    #[arg(long)]
    pub none: bool,
}
