//! halfkey-qemu-tests
