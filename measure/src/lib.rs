//! What firmware, loaders, stubs, kernel and systemd measure, as facts that are used in both directions: to predict a boot, and
//! to judge one. No I/O, no policy.
//!
//! | module | what |
//! | --- | --- |
//! | [`pe`] | PE images: the digest that firmware measures, and sections |
//! | [`stub`] | systemd's stub: sections and what it hands over |
//! | [`command_line`] | kernel command lines: how they are read, and their floor |
//! | [`predict`] | what booting given files will measure |

pub mod command_line;
pub mod pe;
pub mod predict;
pub mod stub;
