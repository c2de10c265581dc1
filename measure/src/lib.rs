//! What firmware, loaders, stubs, kernel and systemd measure, as facts that are used in both directions: to predict a boot, and
//! to judge one. No I/O, no policy.
//!
//! | module | what |
//! | --- | --- |
//! | [`pe`] | PE images: the digest that firmware measures, and sections |
//! | [`firmware`] | separators and actions of UEFI firmware |
//! | [`grub`] | commands, command lines and files that GRUB measures |
//! | [`efi_stub`] | the EFI stub of Linux: initrd and load options |
//! | [`systemd`] | phases and boundaries that systemd measures, and its log |
//! | [`stub`] | systemd's stub: sections and what it hands over |
//! | [`command_line`] | kernel command lines: how they are read, and their floor |
//! | [`predict`] | what booting given files will measure |
//! | [`pcrs`] | what PCRs become by that |

pub mod command_line;
pub mod efi_stub;
pub mod firmware;
pub mod grub;
pub mod pcrs;
pub mod pe;
pub mod predict;
pub mod stub;
pub mod systemd;
