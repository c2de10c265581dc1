//! Sealing and unsealing by tpm2-tss.

use super::{Object, SIGNING, Signer};
use crate::Failure;
use halfkey_evidence::credential;
use halfkey_protocol::tpm::name::object_name;
use halfkey_protocol::tpm::template;
use std::io::ErrorKind;
use tss_esapi::attributes::SessionAttributesBuilder;
use tss_esapi::constants::response_code::Tss2ResponseCodeKind;
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, SessionHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    CapabilityData, Digest, EncryptedSecret, PcrSelectionListBuilder, PcrSlot, Private, Public,
    SensitiveData, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

/// Where the storage key is kept by whoever provisions a TPM.
const SRK: u32 = 0x8100_0001;

/// A TPM that is open. What is loaded goes away with it.
pub struct Tpm {
    pub(super) context: Context,
    srk: KeyHandle,
    name: Vec<u8>,
}

impl Tpm {
    /// Opens it, as tpm2-tss names it: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.
    ///
    /// # Errors
    /// When there is none, it can't be used, or it gives no storage key.
    pub fn open(at: &str) -> Result<Self, Failure> {
        let name: TctiNameConf = at.parse().map_err(|_| {
            Failure::new(format!("tpm: expected a TPM as tpm2-tss names it, found {at:?}"))
                .hint("tpm = \"device:/dev/tpmrm0\", or \"tabrmd:\"")
        })?;
        if let Some(device) = at.strip_prefix("device:") {
            require_device(device)?;
        }
        let context = Context::new(name).map_err(|e| {
            Failure::new(format!("the TPM {at}: {e}")).hint(
                "is it there, and the library of tpm2-tss for it (Debian: libtss2-tcti-device0)? something else may hold it: /dev/tpmrm0 serves several",
            )
        })?;
        let mut tpm = Self { context, srk: ObjectHandle::None.into(), name: Vec::new() };
        (tpm.srk, tpm.name) = tpm.storage_key()?;
        Ok(tpm)
    }

    fn storage_key(&mut self) -> Result<(KeyHandle, Vec<u8>), Failure> {
        let failed = |e: Error| failed("its storage key", e);
        if self.is_there(SRK).map_err(failed)? {
            let kept = PersistentTpmHandle::new(SRK).map_err(failed)?;
            let kept = self.context.tr_from_tpm_public(TpmHandle::Persistent(kept)).map_err(failed)?.into();
            let (public, _, _) = self.context.read_public(kept).map_err(failed)?;
            let public = public.marshall().map_err(failed)?;
            if template::SRK.point(&public).is_some() {
                return Ok((kept, object_name(&public).unwrap_or_default()));
            }
        }
        let public = Public::unmarshall(&template::SRK.template()).map_err(failed)?;
        let made = self.context.execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Owner, public, None, None, None, None)
        });
        let made = made.map_err(failed)?;
        let public = made.out_public.marshall().map_err(failed)?;
        Ok((made.key_handle, object_name(&public).unwrap_or_default()))
    }

    fn is_there(&mut self, handle: u32) -> Result<bool, Error> {
        let (found, _) = self.context.get_capability(CapabilityType::Handles, handle, 1)?;
        Ok(match found {
            CapabilityData::Handles(list) => {
                list.into_inner().into_iter().any(|found| u32::from(found) == handle)
            }
            _ => false,
        })
    }

    /// Seals up to 128 bytes. With PCRs: as long as they are what they are now, in the SHA-256 bank.
    ///
    /// # Errors
    /// When the TPM refuses.
    pub fn seal(&mut self, secret: &[u8], pcrs: &[u8]) -> Result<Object, Failure> {
        let failed = |e: Error| failed("sealing a key", e);
        let policy = match pcrs {
            [] => Vec::new(),
            pcrs => {
                self.policy(SessionType::Trial, pcrs, Context::policy_get_digest).map_err(failed)?.to_vec()
            }
        };
        // noDA | fixedParent | fixedTPM, and userWithAuth where no policy stands for it.
        let attributes: u32 = if pcrs.is_empty() { 0x452 } else { 0x412 };
        // TPM_ALG_KEYEDHASH, nameAlg SHA-256, attributes, policy; no scheme, no unique.
        let public = [
            &[0, 8, 0, 0x0b][..],
            &attributes.to_be_bytes(),
            &(policy.len() as u16).to_be_bytes(),
            &policy,
            &[0, 0x10, 0, 0],
        ];
        let public = Public::unmarshall(&public.concat()).map_err(failed)?;
        let secret = SensitiveData::try_from(secret).map_err(failed)?;
        let srk = self.srk;
        let made = self
            .with_session(|context| context.create(srk, public, None, Some(secret), None, None))
            .map_err(failed)?;
        self.object(&made.out_public, &made.out_private, pcrs).map_err(failed)
    }

    /// What was sealed.
    ///
    /// # Errors
    /// When this is another TPM, the PCRs are others, or the object was changed.
    pub fn unseal(&mut self, object: &Object) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let handle = self.load(object)?;
        let unseal = |context: &mut Context| context.unseal(handle.into());
        let unsealed = match &object.pcrs[..] {
            [] => self.with_session(unseal),
            pcrs => self.policy(SessionType::Policy, pcrs, |context, policy| {
                context.execute_with_session(Some(policy.into()), unseal)
            }),
        };
        let unsealed = unsealed.map_err(|e| failed("unsealing a key", e))?;
        self.context.flush_context(handle.into()).map_err(|e| failed("unsealing a key", e))?;
        Ok(Zeroizing::new(unsealed.to_vec()))
    }

    /// Puts a P-256 key into the TPM that signs there ([`SIGNING`]) and does not come out again. On the way it is encrypted for the
    /// storage key.
    ///
    /// # Errors
    /// When the TPM refuses.
    pub fn import(&mut self, key: &[u8; 32], point: (&[u8; 32], &[u8; 32])) -> Result<Object, Failure> {
        let failed = |e: Error| failed("putting the release key into the TPM", e);
        let public = SIGNING.public(point.0, point.1);
        let name = object_name(&public).unwrap_or_default();
        let (storage, _, _) = self.context.read_public(self.srk).map_err(failed)?;
        let storage = storage.marshall().map_err(failed)?;
        let wrapped = template::SRK
            .point(&storage)
            .and_then(|(x, y)| credential::wrap_key(&x, &y, &name, key).ok())
            .ok_or_else(|| Failure::new("the release key could not be encrypted for the TPM"))?;
        let public = Public::unmarshall(&public).map_err(failed)?;
        let duplicate = Private::try_from(wrapped.id_object.to_vec()).map_err(failed)?;
        let seed = EncryptedSecret::try_from(wrapped.secret.to_vec()).map_err(failed)?;
        let (srk, imported) = (self.srk.into(), public.clone());
        let private = self.with_session(|context| {
            context.import(srk, None, imported, duplicate, seed, SymmetricDefinitionObject::Null)
        });
        self.object(&public, &private.map_err(failed)?, &[]).map_err(failed)
    }

    /// Signs by a key that was put into this TPM.
    ///
    /// # Errors
    /// When this is another TPM, or the object was changed.
    pub fn signer(self, at: &str, object: &Object) -> Result<Signer, Failure> {
        Signer::new(self, at, object)
    }

    /// Loads an object.
    ///
    /// # Errors
    /// As [`Tpm::unseal`].
    pub(super) fn load(&mut self, object: &Object) -> Result<KeyHandle, Failure> {
        if object.srk[..] != self.name[..] {
            return Err(Failure::new("expected a key that this TPM has sealed, found one that is sealed by another TPM")
                .hint("a TPM that was cleared is another one; halfkey-verifier seal-keys --from FOLDER seals a recovery copy by this one"));
        }
        let failed = |e: Error| failed("loading a key", e);
        let public = Public::unmarshall(&object.public).map_err(failed)?;
        let private = Private::try_from(object.private.to_vec()).map_err(failed)?;
        let srk = self.srk;
        self.with_session(|context| context.load(srk, private, public)).map_err(failed)
    }

    fn object(&self, public: &Public, private: &Private, pcrs: &[u8]) -> Result<Object, Error> {
        Ok(Object {
            srk: self.name.clone().into(),
            pcrs: pcrs.to_vec(),
            public: public.marshall()?.into(),
            private: private.value().to_vec().into(),
        })
    }

    /// With a session that is salted to the storage key and encrypts what comes and goes.
    fn with_session<T>(&mut self, ask: impl FnOnce(&mut Context) -> Result<T, Error>) -> Result<T, Error> {
        let session = self.session(SessionType::Hmac)?;
        let answer = self.context.execute_with_session(Some(session), ask);
        self.context.flush_context(SessionHandle::from(session).into())?;
        answer
    }

    /// With such a session in which these PCRs, of the SHA-256 bank, are what they are.
    fn policy<T>(
        &mut self,
        kind: SessionType,
        pcrs: &[u8],
        ask: impl FnOnce(&mut Context, PolicySession) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let slots = pcrs
            .iter()
            .map(|pcr| PcrSlot::try_from(1u32.checked_shl(u32::from(*pcr)).unwrap_or(0)))
            .collect::<Result<Vec<_>, _>>()?;
        let selection =
            PcrSelectionListBuilder::new().with_selection(HashingAlgorithm::Sha256, &slots).build()?;
        let session = self.session(kind)?;
        let context = &mut self.context;
        let answer = PolicySession::try_from(session).and_then(|policy| {
            context.policy_pcr(policy, Digest::default(), selection)?;
            ask(context, policy)
        });
        context.flush_context(SessionHandle::from(session).into())?;
        answer
    }

    fn session(&mut self, kind: SessionType) -> Result<AuthSession, Error> {
        let salt = Some(self.srk);
        let (symmetric, hash) = (SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256);
        let session = self.context.start_auth_session(salt, None, None, kind, symmetric, hash)?;
        let session = session.ok_or(Error::WrapperError(tss_esapi::WrapperErrorKind::WrongValueFromTpm))?;
        if kind != SessionType::Trial {
            let secret = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true);
            let (attributes, mask) = secret.with_continue_session(true).build();
            self.context.tr_sess_set_attributes(session, attributes, mask)?;
        }
        Ok(session)
    }
}

/// What tpm2-tss would say of it helps nobody.
fn require_device(device: &str) -> Result<(), Failure> {
    let Err(e) = std::fs::File::options().read(true).write(true).open(device) else { return Ok(()) };
    let failure = Failure::new(format!("the TPM {device}: {e}"));
    Err(match e.kind() {
        ErrorKind::NotFound => failure.hint(
            "this host shows no TPM: is it on in the firmware, and PrivateDevices= of the service off? `tpm` in the settings names another",
        ),
        ErrorKind::PermissionDenied => {
            failure.hint("the server's user needs the group of that device: SupplementaryGroups=tss in the service")
        }
        _ => failure,
    })
}

/// What the TPM refused, and what to do about it.
pub(super) fn failed(what: &str, e: Error) -> Failure {
    let failure = Failure::new(format!("the TPM, {what}: {e}"));
    let Error::Tss2Error(code) = e else { return failure };
    match code.kind() {
        Some(Tss2ResponseCodeKind::PolicyFail) => Failure::new(format!("the TPM, {what}: its PCRs are not what they were when it was sealed"))
            .hint("after an update of firmware or boot: halfkey-verifier seal-keys --from FOLDER, with the recovery copy; it is bound to the same PCRs, as they are now"),
        Some(Tss2ResponseCodeKind::Integrity) => {
            failure.hint("the file was changed, or its TPM was cleared: seal the recovery copy, halfkey-verifier seal-keys --from FOLDER")
        }
        Some(Tss2ResponseCodeKind::Lockout) => {
            failure.hint("the TPM is locked after failed authorizations: wait, or tpm2_dictionarylockout --clear-lockout")
        }
        Some(Tss2ResponseCodeKind::AuthFail | Tss2ResponseCodeKind::BadAuth) => failure.hint(
            "its owner hierarchy has a password: keep the storage key, tpm2_createprimary -C o -G ecc and tpm2_evictcontrol to 0x81000001",
        ),
        Some(Tss2ResponseCodeKind::Initialize) => failure.hint("nobody has started it (TPM2_Startup): firmware does"),
        _ => failure,
    }
}
