//! halfkey-evidence
