//! What only one key opens.

use super::declare::wire;

wire! {
    /// A TPM credential: what TPM2_MakeCredential gives and TPM2_ActivateCredential takes.
    pub struct Credential {
        /// Contents of `TPM2B_ID_OBJECT`, without its size.
        pub id_object: crate::Bytes,
        /// Contents of `TPM2B_ENCRYPTED_SECRET`, without its size.
        pub secret: crate::Bytes,
    }

    /// An HPKE ciphertext.
    pub struct Sealed {
        /// Encapsulated key, 32 bytes.
        pub enc: crate::Bytes,
        /// Ciphertext and tag.
        pub ciphertext: crate::Bytes,
    }
}
