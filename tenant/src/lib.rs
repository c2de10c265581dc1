//! halfkey
