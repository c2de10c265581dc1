//! What is read and signed as a document.
//!
//! | module | what |
//! | --- | --- |
//! | [`source`] | documents as they come: from files, from standard input |
//! | [`problems`] | what is wrong with one, with line and column |
//! | [`draft`] | texts that are learned from a boot, or made of a proposal |
//! | [`signed`] | documents that this workstation signed, as a server shows them |
//! | [`governed`] | what a node is judged by |
//! | [`tree`], [`rpm`] | files of a root file system, of a package |
//! | [`trial`] | a policy on stored boots |
//! | [`signing`] | what signing needs |
//! | [`change`] | a document that is to be signed: what it changes, and submitting it |

pub mod change;
pub mod draft;
pub mod governed;
pub mod problems;
pub mod rpm;
pub mod signed;
pub mod signing;
pub mod source;
pub mod tree;
pub mod trial;
