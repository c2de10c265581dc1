//! Creating, loading, reading, persisting and flushing objects
//! (TPM 2.0 Part 3, sections 12, 24 and 28).

use super::codec::Writer;
use super::codes;
use super::command::{Answer, checked_name};
use super::entity::{Entity, Hierarchy, Object, RH_NULL};
use super::session::{Auth, Kind};
use super::{Error, Tpm, rc};
use halfkey_protocol::tpm::kdf::Hash;
use halfkey_protocol::tpm::name::object_name;

impl Tpm {
    /// Makes a primary key from this `TPMT_PUBLIC` template. The same template
    /// gives the same key until the hierarchy's seed changes.
    ///
    /// # Errors
    /// [`Error::HierarchyAuth`], [`Error::HierarchyDisabled`], or another [`Error`].
    pub fn create_primary(&mut self, hierarchy: Hierarchy, template: &[u8]) -> Result<Object, Error> {
        let parameters = Writer::default()
            .sized(&[0; 4]) // no password, no data
            .sized(template)
            .u16(0) // outside info
            .u32(0); // creation PCRs
        let answer = self.with_hierarchy(hierarchy, codes::CREATE_PRIMARY, None, parameters)?;
        let mut reader = answer.reader();
        let public = reader.sized()?.to_vec();
        reader.sized()?; // creation data
        reader.sized()?; // creation hash
        reader.take(6)?; // tag and hierarchy of the ticket
        reader.sized()?;
        let name = checked_name("CreatePrimary", &public, reader.sized()?)?;
        reader.end()?;
        Ok(Object { handle: answer.handle, public, name })
    }

    /// The object at this handle; `None` if there is none.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn read_public(&mut self, handle: u32) -> Result<Option<Object>, Error> {
        let answer = match self.plain(codes::READ_PUBLIC, &[handle.into()], Writer::default()) {
            Err(error) if error.is(rc::HANDLE) => return Ok(None),
            answer => answer?,
        };
        let mut reader = answer.reader();
        let public = reader.sized()?.to_vec();
        let name = checked_name("ReadPublic", &public, reader.sized()?)?;
        reader.sized()?; // qualified name
        reader.end()?;
        Ok(Some(Object { handle, public, name }))
    }

    /// Loads an object of this parent.
    pub(super) fn load_object(
        &mut self,
        parent: &Object,
        private: &[u8],
        public: &[u8],
    ) -> Result<Object, Error> {
        let parameters = Writer::default().sized(private).sized(public);
        let answer = self.run(codes::LOAD, &[parent.into()], parameters, &mut [Auth::Password])?;
        let mut reader = answer.reader();
        let name = checked_name("Load", public, reader.sized()?)?;
        reader.end()?;
        Ok(Object { handle: answer.handle, public: public.to_vec(), name })
    }

    /// Loads a public key that is not of this TPM.
    pub(super) fn load_external(&mut self, public: &[u8]) -> Result<Object, Error> {
        let parameters = Writer::default().u16(0).sized(public).u32(RH_NULL);
        let answer = self.plain(codes::LOAD_EXTERNAL, &[], parameters)?;
        let mut reader = answer.reader();
        let name = checked_name("LoadExternal", public, reader.sized()?)?;
        reader.end()?;
        Ok(Object { handle: answer.handle, public: public.to_vec(), name })
    }

    /// Keeps a copy of a transient object at a persistent handle in the owner's range.
    pub(super) fn evict_to(&mut self, object: &Object, handle: u32) -> Result<Object, Error> {
        if let Some(there) = self.read_public(handle)? {
            return if there.name == object.name { Ok(there) } else { Err(Error::Occupied(handle)) };
        }
        let parameters = Writer::default().u32(handle);
        self.with_hierarchy(Hierarchy::Owner, codes::EVICT_CONTROL, Some(object), parameters)?;
        self.read_public(handle)?
            .filter(|there| there.name == object.name)
            .ok_or(Error::Malformed("ReadPublic"))
    }

    /// Flushes a transient object; a persistent one stays.
    ///
    /// # Errors
    /// [`Error`] from the TPM.
    pub fn flush(&mut self, object: Object) -> Result<(), Error> {
        if object.handle >> 24 == 0x80 { self.flush_handle(object.handle) } else { Ok(()) }
    }

    pub(super) fn flush_handle(&mut self, handle: u32) -> Result<(), Error> {
        self.forget(handle);
        self.plain(codes::FLUSH_CONTEXT, &[], Writer::default().u32(handle)).map(drop)
    }

    /// The TPM has flushed this handle itself.
    pub(super) fn forget(&mut self, handle: u32) {
        self.made.retain(|made| *made != handle);
    }

    /// A session that is used without `continueSession` is flushed by the TPM if the
    /// command succeeded: one command less. Else it is still there.
    pub(super) fn after_last_use<T>(&mut self, session: u32, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => self.forget(session),
            // What went wrong before says more than what goes wrong here.
            Err(_) => drop(self.flush_handle(session)),
        }
        result
    }

    /// Runs a command that a hierarchy authorizes: with an HMAC session if a
    /// password was supplied, so that it never is on the bus.
    fn with_hierarchy(
        &mut self,
        hierarchy: Hierarchy,
        command: codes::Command,
        object: Option<&Object>,
        parameters: Writer,
    ) -> Result<Answer, Error> {
        let mut handles = vec![hierarchy.handle().into()];
        handles.extend(object.map(Entity::from));
        self.authorized_by(hierarchy, command, &handles, parameters)
    }

    /// The same for any list of handles whose first is the hierarchy.
    pub(super) fn authorized_by(
        &mut self,
        hierarchy: Hierarchy,
        command: codes::Command,
        handles: &[Entity],
        parameters: Writer,
    ) -> Result<Answer, Error> {
        let password = self.passwords[hierarchy as usize].clone();
        let result = if password.is_empty() {
            self.run(command, handles, parameters, &mut [Auth::Password])
        } else {
            let mut session = self.start_session(Kind::Hmac, Hash::Sha256, None)?;
            let handle = session.handle;
            let result =
                self.run(command, handles, parameters, &mut [Auth::Session(&mut session, 0, &password)]);
            self.after_last_use(handle, result)
        };
        result.map_err(|error| self.explain_hierarchy(hierarchy, error))
    }
}

/// Whether a public area hashes to this name.
pub(super) fn is_named(public: &[u8], name: &[u8]) -> bool {
    object_name(public).is_some_and(|found| found == name)
}
