//! The node's side of Halfkey, as a library so that tests can drive it.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`] | the command line and its help |
//! | [`boot`] | what runs in the initramfs: find, attest, open; the root gate |
//! | [`fence`] | PCR 15: closed on every way out of the boot window |
//! | [`enroll`] | registration, the tenant's document, binding of volumes |
//! | [`propose`] | the next boot, measured and told to the verifier before it happens |
//! | [`firmware`] | whether this boot could pass a policy's floor |
//! | [`initramfs`] | the image that this host builds: whether it can, and what is in it |
//! | [`commands`] | what each command does with these, and how it is shown |
//! | [`exchange`] | an attestation, shared by `enroll`, `unlock` and `propose` |
//! | [`logs`] | the logs that travel with a quote |
//! | [`luks`] | headers, the allow-list, tokens, cryptsetup |
//! | [`net`] | HTTPS to the servers, and kernel events about the network |
//! | [`tpm`] | commands, sessions and keys of the TPM |
//! | [`words`] | what it says on the console of a machine that boots |
//! | [`error`], [`console`], [`terminal`] | how it says what went wrong, and asks |
//! | [`trace`] | a name for this run, for the logs of the servers |
//! | [`hardening`], [`deadline`], [`timing`], [`bounded`], [`durable`], [`apart`], [`sd_notify`] | small things used everywhere |

pub mod apart;
pub mod boot;
pub mod bounded;
pub mod cli;
pub mod commands;
pub mod console;
pub mod deadline;
pub mod durable;
pub mod enroll;
pub mod error;
pub mod exchange;
pub mod fence;
pub mod firmware;
pub mod hardening;
pub mod initramfs;
pub mod logs;
pub mod luks;
pub mod net;
pub mod propose;
pub mod sd_notify;
pub mod terminal;
pub mod timing;
pub mod tpm;
pub mod trace;
pub mod words;
