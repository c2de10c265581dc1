//! Certification of the SRK, activation of credentials
//! (TPM 2.0 Part 1, section 24; Part 3, sections 12.5 and 18.2).

use super::codec::Writer;
use super::command::Answer;
use super::entity::{Hierarchy, RH_ENDORSEMENT};
use super::session::{Auth, DECRYPT, ENCRYPT, Kind};
use super::{Ek, Error, Object, Tpm, UnsealSession, codes};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::wire::Credential;
use zeroize::Zeroizing;

/// `TPMA_OBJECT` userWithAuth
const USER_WITH_AUTH: u8 = 0x40;

/// The SRK certified by the AK.
pub struct Certification {
    /// `TPMS_ATTEST`.
    pub info: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    pub signature: Vec<u8>,
}

impl Tpm {
    /// TPM2_Certify(SRK by AK) with empty qualifying data.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn certify_storage_key(&mut self, srk: &Object, ak: &Object) -> Result<Certification, Error> {
        let parameters = Writer::default().u16(0).u16(0x0010); // the key's own scheme
        let handles = [srk.into(), ak.into()];
        let auths = &mut [Auth::Password, Auth::Password];
        let answer = self.run(codes::CERTIFY, &handles, parameters, auths)?;
        let mut reader = answer.reader();
        let info = reader.sized()?.to_vec();
        Ok(Certification { info, signature: reader.rest().to_vec() })
    }

    /// The secret of a credential made to the EK for the AK's name. The answer
    /// crosses the bus encrypted to the SRK's session.
    ///
    /// # Errors
    /// [`Error::HierarchyAuth`] if the endorsement hierarchy has a password that is
    /// not supplied; `TPM_RC_INTEGRITY` or `TPM_RC_VALUE` if it was made for another key.
    pub fn activate_with_ek(
        &mut self,
        srk: &Object,
        ek: &Ek,
        ak: &Object,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let ek = &ek.object;
        // Byte 7: the low byte of the attributes. EKs of the high range take an empty password.
        if ek.public.get(7).is_some_and(|attributes| attributes & USER_WITH_AUTH != 0) {
            return self.activate(srk, ek, ak, credential, &mut Auth::Password);
        }
        let name_alg = ek.public.get(2..4).map_or(0, |alg| u16::from_be_bytes([alg[0], alg[1]]));
        let hash = Hash::from_alg(name_alg)
            .ok_or(Error::Unsuitable("the endorsement key's name is neither SHA-256 nor SHA-384"))?;
        let mut policy = self.start_session(Kind::Policy, hash, None)?;
        let handle = policy.handle;
        let result = self
            .policy_secret(handle)
            .and_then(|()| self.activate(srk, ek, ak, credential, &mut Auth::Session(&mut policy, 0, &[])));
        self.after_last_use(handle, result)
    }

    /// The secret of a credential made to the SRK for the AK's name.
    ///
    /// # Errors
    /// As [`Tpm::activate_with_ek`].
    pub fn activate_with_srk(
        &mut self,
        srk: &Object,
        ak: &Object,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.activate(srk, srk, ak, credential, &mut Auth::Password)
    }

    /// The same in the session that unsealed, which ends with it: nothing is salted again.
    ///
    /// # Errors
    /// As [`Tpm::activate_with_ek`].
    pub fn activate_in(
        &mut self,
        unseal: UnsealSession,
        srk: &Object,
        ak: &Object,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut session = unseal.session;
        let handle = session.handle;
        let parameters = Writer::default().sized(&credential.id_object).sized(&credential.secret);
        // The keys take empty passwords, and no policy: a policy session can't stand for them.
        let auths =
            &mut [Auth::Password, Auth::Password, Auth::Session(&mut session, DECRYPT | ENCRYPT, &[])];
        let answer = self.run(codes::ACTIVATE_CREDENTIAL, &[ak.into(), srk.into()], parameters, auths);
        only_field(&self.after_last_use(handle, answer)?)
    }

    fn activate(
        &mut self,
        srk: &Object,
        key: &Object,
        ak: &Object,
        credential: &Credential,
        key_auth: &mut Auth,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let parameters = Writer::default().sized(&credential.id_object).sized(&credential.secret);
        let mut session = self.start_session(Kind::Hmac, Hash::Sha256, Some(srk))?;
        let handle = session.handle;
        let key_auth = match key_auth {
            Auth::Password => Auth::Password,
            Auth::Session(policy, attributes, value) => Auth::Session(policy, *attributes, value),
        };
        let auths = &mut [Auth::Session(&mut session, DECRYPT | ENCRYPT, &[]), key_auth];
        let answer = self.run(codes::ACTIVATE_CREDENTIAL, &[ak.into(), key.into()], parameters, auths);
        only_field(&self.after_last_use(handle, answer)?)
    }

    /// PolicySecret(endorsement): the policy of EKs of the low range.
    fn policy_secret(&mut self, session: u32) -> Result<(), Error> {
        let parameters = Writer::default().u16(0).u16(0).u16(0).u32(0);
        let handles = [RH_ENDORSEMENT.into(), session.into()];
        self.authorized_by(Hierarchy::Endorsement, codes::POLICY_SECRET, &handles, parameters).map(drop)
    }
}

/// The contents of an answer that is one `TPM2B` with a secret in it.
pub(super) fn only_field(answer: &Answer) -> Result<Zeroizing<Vec<u8>>, Error> {
    let mut reader = answer.reader();
    let secret = Zeroizing::new(reader.sized()?.to_vec());
    reader.end()?;
    Ok(secret)
}
