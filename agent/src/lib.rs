//! halfkey-agent
