//! IMA, the kernel's list of the files that were used (`binary_runtime_measurements`), and the PCR that it is measured into.
//!
//! The list comes with the evidence, is bounded like each log, and is stored with the boot. No rule of a policy is about it and its
//! PCR is compared with nothing: a boot is decided before the root is mounted, and what IMA measures in the initramfs differs from one
//! boot to the next by who was first. A rule about it begins here.

/// The PCR that IMA extends (`CONFIG_IMA_MEASURE_PCR_IDX`, 10 unless a kernel was built otherwise). Each file that is used for the
/// first time moves it: two quotes of one boot differ in it.
pub const IMA_PCR: u8 = 10;
