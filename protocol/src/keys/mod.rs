//! Keys that are made from others, and what they seal.
//!
//! | module | what |
//! | --- | --- |
//! | [`half`] | K = U xor V, and what is derived from K |
//! | [`header_seal`] | what K authenticates of a LUKS2 volume |
//! | [`hpke`] | sealing of the released credentials to the quoted ephemeral key |
//! | [`opening`] | what opens the fence, known to the verifier and to whom it released |
//! | [`label`] | the labels that keep one derived value from being used as another |

pub mod half;
pub mod header_seal;
pub mod hpke;
pub mod label;
pub mod opening;
