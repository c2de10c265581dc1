//! What runs in the initramfs.
//!
//! | module | what |
//! | --- | --- |
//! | [`cmdline`] | the kernel command line and crypttab: which volumes, which deadline |
//! | [`uevent`] | kernel events about block devices and the TPM |
//! | [`devices`] | finds the enrolled volumes, waiting for late ones |
//! | [`looker`] | opens them in another process: one that does not answer holds nobody |
//! | [`route`] | which enrollments the disks have, and where each is asked about |
//! | [`target`] | the volumes that one release is for, and whether they are what K sealed |
//! | [`flow`] | the steps of an unlocking, and what it means when one fails |
//! | [`unlock`] | the unlocking, from the first device to the last mapping |
//! | [`state`] | what `gate` and `status` need to know of it |
//! | [`gate`] | the root must be on a volume that was opened |
//! | [`init`] | PID 1 must be able to start what is on that root |
//! | [`exitrd`] | what the running system must not execute when it shuts down |
//! | [`mountinfo`] | what is mounted where |
//! | [`way_out`] | what must be done before a shell or a prompt |
//! | [`shell`] | what a unit runs that gives a shell |
//! | [`sysrq`] | off while something is open |
//! | [`teardown`] | takes away what was opened, before a shell or a prompt |
//! | [`stack`], [`processes`], [`dm`] | what stands on LUKS mappings, who uses them, the ioctls that remove them |

pub mod cmdline;
pub mod devices;
pub mod dm;
pub mod exitrd;
pub mod flow;
pub mod gate;
pub mod init;
pub mod looker;
pub mod mountinfo;
pub mod processes;
pub mod route;
pub mod shell;
pub mod stack;
pub mod state;
pub mod sysrq;
pub mod target;
pub mod teardown;
pub mod uevent;
pub mod unlock;
pub mod way_out;
