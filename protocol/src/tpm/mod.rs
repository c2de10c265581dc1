//! What agent and servers agree on about the TPM. Pure: nothing here talks to one.
//!
//! | module | what |
//! | --- | --- |
//! | [`bank`] | the PCR banks that are quoted |
//! | [`template`] | the exact public areas of AK, SRK and release key |
//! | [`name`] | the name of a TPM object |
//! | [`qualifying_data`] | the qualifying data of a quote |
//! | [`seal_policy`] | the authorization policy of the sealed half, and what the release key signs |
//! | [`fence`] | what PCR 15 says of a boot |
//! | [`kdf`] | KDFa and KDFe of TPM 2.0 Part 1, 11.4.10 |

pub mod bank;
pub mod fence;
pub mod kdf;
pub mod name;
pub mod qualifying_data;
pub mod seal_policy;
pub mod template;
