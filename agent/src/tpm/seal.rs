//! The sealed half U: sealing, and unsealing with the release key's signature.
//!
//! Order of commands, and why:
//!
//! 1. StartAuthSession (policy, SHA-256, salted to the SRK). Its nonceTPM goes into
//!    the quote and to the verifier. **Nothing is run with this session** until Unseal,
//!    so the nonce stays: only commands that the session authorizes or encrypts roll it,
//!    and the policy commands below merely name its handle.
//! 2. (the verifier signs nonceTPM)
//! 3. PolicyPCR(15 = 0 of the bank), with the expected digest, so that an extended fence is
//!    refused here and by name. As late as this, because the session remembers the
//!    TPM's PCR update counter from here on, and any PCR moving (systemd measures phases) spoils it.
//! 4. PolicySigned(release key, nonceTPM, policyRef = node id, the signature).
//! 5. Unseal; the answer is encrypted. If a PCR moved since 3, PolicyRestart clears
//!    the policy but keeps nonceTPM, so 3 to 5 are done again with the same signature.

use super::codec::Writer;
use super::codes;
use super::credential::only_field;
use super::session::{Auth, DECRYPT, ENCRYPT, Kind, Session};
use super::{Error, Object, Tpm, rc};
use halfkey_protocol::FENCE_PCR;
use halfkey_protocol::tpm::bank::PcrBank;
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::seal_policy::pcr_selection;
use zeroize::Zeroizing;

/// How often a PCR may move between PolicyPCR and Unseal.
const UNSEAL_TRIES: usize = 8;

/// fixedTPM | fixedParent | noDA. Not userWithAuth: an empty password would open it.
const ATTRIBUTES: u32 = 0x0000_0412;

/// The sealed half, as the token keeps it.
pub struct SealedBlob {
    /// `TPMT_PUBLIC`.
    pub public: Vec<u8>,
    /// Contents of `TPM2B_PRIVATE`, without its size.
    pub private: Vec<u8>,
}

/// A policy session that waits for the release key's signature. [`Tpm::unseal`]
/// consumes it, [`Tpm::abandon`] flushes it.
pub struct UnsealSession {
    /// What the release key must sign.
    pub nonce_tpm: Vec<u8>,
    session: Session,
}

impl Tpm {
    /// Seals at most 128 bytes under the SRK with this policy and nothing else:
    /// no password opens it. The secret crosses the bus encrypted.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn seal(&mut self, srk: &Object, secret: &[u8], policy: &[u8; 32]) -> Result<SealedBlob, Error> {
        let sensitive = Zeroizing::new(Writer::default().u16(0).sized(secret).0);
        let public = Writer::default()
            .u16(0x0008) // keyed hash
            .u16(Hash::Sha256.alg())
            .u32(ATTRIBUTES)
            .sized(policy)
            .u16(0x0010) // null scheme
            .u16(0) // unique
            .0;
        // Room for all, so that no copy of the secret is left behind by growing.
        let mut parameters = Writer(Vec::with_capacity(16 + sensitive.len() + public.len()));
        parameters = parameters.sized(&sensitive).sized(&public).u16(0).u32(0);
        let mut session = self.start_session(Kind::Hmac, Hash::Sha256, Some(srk))?;
        let handle = session.handle;
        let auths = &mut [Auth::Session(&mut session, DECRYPT | ENCRYPT, &[])];
        let answer = self.run(codes::CREATE, &[srk.into()], parameters, auths);
        let answer = self.after_last_use(handle, answer)?;
        let mut reader = answer.reader();
        let private = reader.sized()?.to_vec();
        let public = reader.sized()?.to_vec();
        Ok(SealedBlob { public, private })
    }

    /// Loads a sealed half.
    ///
    /// # Errors
    /// `TPM_RC_INTEGRITY` if it was sealed by another TPM or SRK, or is damaged.
    pub fn load(&mut self, srk: &Object, blob: &SealedBlob) -> Result<Object, Error> {
        self.load_object(srk, &blob.private, &blob.public)
    }

    /// Starts the session whose nonceTPM the release key must sign.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn start_unseal(&mut self, srk: &Object) -> Result<UnsealSession, Error> {
        let session = self.start_session(Kind::Policy, Hash::Sha256, Some(srk))?;
        Ok(UnsealSession { nonce_tpm: session.nonce_tpm.clone(), session })
    }

    /// Flushes a session that will not be used.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn abandon(&mut self, unseal: UnsealSession) -> Result<(), Error> {
        self.flush_handle(unseal.session.handle)
    }

    /// Unseals the half. `release_public` is a `TPMT_PUBLIC`, `signature` is r || s over
    /// [`halfkey_protocol::tpm::seal_policy::release_digest`]. `sealed` may get another handle.
    ///
    /// # Errors
    /// [`Error::FenceExtended`]; [`Error::PcrChanged`] (begin again with a new session);
    /// `TPM_RC_SIGNATURE` for a signature of another key, session or node; `TPM_RC_POLICY_FAIL`
    /// if the half was sealed under another policy; another [`Error`] from the TPM.
    pub fn unseal(
        &mut self,
        unseal: UnsealSession,
        sealed: &mut Object,
        bank: PcrBank,
        release_public: &[u8],
        signature: &[u8; 64],
        node: &[u8; 16],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut session = unseal.session;
        let result = self.satisfy_and_unseal(&mut session, sealed, bank, release_public, signature, node);
        self.after_last_use(session.handle, result)
    }

    fn satisfy_and_unseal(
        &mut self,
        session: &mut Session,
        sealed: &mut Object,
        bank: PcrBank,
        release_public: &[u8],
        signature: &[u8; 64],
        node: &[u8; 16],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        for _ in 0..UNSEAL_TRIES {
            self.policy_fence(session.handle, bank)?;
            self.policy_signed(session, sealed, release_public, signature, node)?;
            let auths = &mut [Auth::Session(session, ENCRYPT, &[])];
            match self.run(codes::UNSEAL, &[(&*sealed).into()], Writer::default(), auths) {
                Err(Error::Refused(_, rc::PCR_CHANGED)) => {
                    self.plain(codes::POLICY_RESTART, &[session.handle.into()], Writer::default())?;
                }
                answer => return only_field(&answer?),
            }
        }
        Err(Error::PcrChanged)
    }

    /// PolicyPCR: PCR 15 of the bank is zero now.
    fn policy_fence(&mut self, session: u32, bank: PcrBank) -> Result<(), Error> {
        // The digest of the selected PCRs uses the session's hash, not the bank's.
        let open = Hash::Sha256.digest(&[&vec![0; bank.digest_len()]]);
        let parameters = Writer::default().sized(&open).bytes(&pcr_selection(bank, 1 << FENCE_PCR));
        match self.plain(codes::POLICY_PCR, &[session.into()], parameters) {
            Err(error) if error.is(rc::VALUE) => Err(Error::FenceExtended),
            answer => answer.map(drop),
        }
    }

    fn policy_signed(
        &mut self,
        session: &Session,
        sealed: &mut Object,
        release_public: &[u8],
        signature: &[u8; 64],
        node: &[u8; 16],
    ) -> Result<(), Error> {
        // A TPM without a resource manager holds three objects: SRK, AK and U are there
        // already, and U makes room for the release key for a moment.
        let (release, swapped) = match self.load_external(release_public) {
            Err(error) if error.is(rc::OBJECT_MEMORY) => {
                let context = self.swap_out(sealed)?;
                (self.load_external(release_public), Some(context))
            }
            release => (release, None),
        };
        let result = release.and_then(|release| {
            let parameters = Writer::default()
                .sized(&session.nonce_tpm)
                .u16(0) // cpHashA
                .sized(node)
                .u32(0) // expiration
                .u16(0x0018) // ECDSA
                .u16(Hash::Sha256.alg())
                .sized(&signature[..32])
                .sized(&signature[32..]);
            let handles = [(&release).into(), session.handle.into()];
            let result = self.plain(codes::POLICY_SIGNED, &handles, parameters).map(drop);
            self.flush(release)?;
            result
        });
        if let Some(context) = swapped {
            sealed.handle = self.swap_in(&context)?;
        }
        result
    }
}
