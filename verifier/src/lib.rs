//! halfkey-verifier
