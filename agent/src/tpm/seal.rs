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
//! 5. Load and Unseal; the answer is encrypted. If a PCR moved since 3, PolicyRestart clears
//!    the policy but keeps nonceTPM, so 3 to 5 are done again with the same signature.
//! 6. What opens the credential of V, is encrypted by the same session: another would cost the TPM another
//!    multiplication. Unseal has ended its policy, not its key.
//!
//! The kernel's resource manager loads and saves whatever is in the TPM around each command, which takes a chip
//! longer than most of them. So a key is loaded right before it is used, and flushed right after.

use super::codec::Writer;
use super::codes;
use super::credential::only_field;
use super::session::{Auth, CONTINUE, DECRYPT, ENCRYPT, Kind, Session};
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

/// A policy session that waits for the release key's signature. [`Tpm::activate_in`] is the last
/// to use it, [`Tpm::abandon`] flushes it.
pub struct UnsealSession {
    /// What the release key must sign.
    pub nonce_tpm: Vec<u8>,
    pub(super) session: Session,
}

/// What lets a session unseal.
pub struct Release<'a> {
    /// The bank whose fence must be open.
    pub bank: PcrBank,
    /// The release key, a `TPMT_PUBLIC`.
    pub public: &'a [u8],
    /// r || s over [`halfkey_protocol::tpm::seal_policy::release_digest`].
    pub signature: &'a [u8; 64],
    /// Id of the node.
    pub node: &'a [u8; 16],
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

    /// Flushes a session that will not be used any more.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn abandon(&mut self, unseal: UnsealSession) -> Result<(), Error> {
        self.flush_handle(unseal.session.handle)
    }

    /// Unseals the half. The session is still there afterwards, for [`Tpm::activate_in`].
    ///
    /// # Errors
    /// [`Error::FenceExtended`]; [`Error::PcrChanged`] (begin again with a new session);
    /// `TPM_RC_SIGNATURE` for a signature of another key, session or node; `TPM_RC_POLICY_FAIL`
    /// if the half was sealed under another policy; another [`Error`] from the TPM.
    pub fn unseal(
        &mut self,
        unseal: &mut UnsealSession,
        srk: &Object,
        sealed: &SealedBlob,
        release: &Release,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let session = &mut unseal.session;
        for _ in 0..UNSEAL_TRIES {
            self.policy_fence(session.handle, release.bank)?;
            self.policy_signed(session, release)?;
            let half = self.load(srk, sealed)?;
            let auths = &mut [Auth::Session(session, ENCRYPT | CONTINUE, &[])];
            let answer = self.run(codes::UNSEAL, &[(&half).into()], Writer::default(), auths);
            self.flush(half)?;
            match answer {
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

    fn policy_signed(&mut self, session: &Session, release: &Release) -> Result<(), Error> {
        let key = self.load_external(release.public)?;
        let parameters = Writer::default()
            .sized(&session.nonce_tpm)
            .u16(0) // cpHashA
            .sized(release.node)
            .u32(0) // expiration
            .u16(0x0018) // ECDSA
            .u16(Hash::Sha256.alg())
            .sized(&release.signature[..32])
            .sized(&release.signature[32..]);
        let handles = [(&key).into(), session.handle.into()];
        let result = self.plain(codes::POLICY_SIGNED, &handles, parameters).map(drop);
        self.flush(key)?;
        result
    }
}
