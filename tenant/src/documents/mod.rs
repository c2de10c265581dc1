//! What is read and signed as a document.
//!
//! | module | what |
//! | --- | --- |
//! | [`signed`] | documents from files, and those that this desk signed |
//! | [`problems`] | what is wrong with one, with line and column |
//! | [`governed`] | what a node is judged by |
//! | [`trial`] | a policy on stored boots |

pub mod governed;
pub mod problems;
pub mod signed;
pub mod trial;
