//! What is checked here, whatever a server says.
//!
//! | module | what |
//! | --- | --- |
//! | [`checks`] | a node's registration and EK, and what a server says of itself |
//! | [`roots`] | the folder of TPM manufacturers' roots |
//! | [`boot`] | stored boots |
//! | [`ledger`] | what this workstation knows of a deployment's documents |
//! | [`sequence`], [`follow`] | where the next document has its place; what came before it |

pub mod boot;
pub mod checks;
pub mod follow;
pub mod ledger;
pub mod roots;
pub mod sequence;
