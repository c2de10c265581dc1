//! Fields of templates, and which template has which (Documentation/security/IMA-templates.rst).

/// Most fields that a template can have (`IMA_TEMPLATE_NUM_FIELDS_MAX`).
pub const MAX_FIELDS: usize = 15;

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal;)+) => {
        /// A field of a template.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[doc = $doc])+ $name,)+ }

        impl Field {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As it stands in a format: `d-ng`.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// The field with this id.
            pub fn from_id(id: &str) -> Option<Self> {
                match id { $($id => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

fields! {
    /// The file's digest, 20 bytes, of SHA-1 (MD5 has 16).
    D = "d";
    /// The file's name, at most 255 bytes.
    N = "n";
    /// `algorithm:`, a NUL, digest.
    DNg = "d-ng";
    /// `ima:algorithm:` or `verity:algorithm:`, a NUL, digest.
    DNgV2 = "d-ngv2";
    /// The name, of any length.
    NNg = "n-ng";
    /// The extended attribute `security.ima`, if it is a signature; else `security.evm`, if that is a portable one; else empty.
    Sig = "sig";
    /// What was measured, where it is no file.
    Buf = "buf";
    /// The digest of a file without the signature at its end, as `d-ng`.
    DModsig = "d-modsig";
    /// That signature (PKCS #7).
    Modsig = "modsig";
    /// `security.evm`, if it is a portable signature.
    EvmSig = "evmsig";
    /// The owner, 4 bytes.
    InodeUid = "iuid";
    /// The group, 4 bytes.
    InodeGid = "igid";
    /// The mode, 2 bytes.
    InodeMode = "imode";
    /// Names of the extended attributes that EVM protects, with `|` between them.
    XattrNames = "xattrnames";
    /// How long each is, 4 bytes each.
    XattrLengths = "xattrlengths";
    /// They, one after the other.
    XattrValues = "xattrvalues";
}

/// The fields of a template, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    fields: [Field; MAX_FIELDS],
    count: u8,
    fixed: bool,
}

impl Layout {
    /// Of the template with this name, or of the format (`d-ng|n-ng|sig`) that stands in its place; none if the name, or a
    /// field, is not known.
    pub fn of(template: &str) -> Option<Self> {
        use Field::*;
        match template {
            "ima" => Some(Self { fixed: true, ..Self::new(&[D, N])? }),
            "ima-ng" => Self::new(&[DNg, NNg]),
            "ima-sig" => Self::new(&[DNg, NNg, Sig]),
            "ima-ngv2" => Self::new(&[DNgV2, NNg]),
            "ima-sigv2" => Self::new(&[DNgV2, NNg, Sig]),
            "ima-buf" => Self::new(&[DNg, NNg, Buf]),
            "ima-modsig" => Self::new(&[DNg, NNg, Sig, DModsig, Modsig]),
            "evm-sig" => Self::new(&[
                DNg,
                NNg,
                EvmSig,
                XattrNames,
                XattrLengths,
                XattrValues,
                InodeUid,
                InodeGid,
                InodeMode,
            ]),
            format => Self::of_format(format),
        }
    }

    fn new(fields: &[Field]) -> Option<Self> {
        let mut layout = Self { fields: [Field::D; MAX_FIELDS], count: fields.len() as u8, fixed: false };
        layout.fields.get_mut(..fields.len())?.copy_from_slice(fields);
        Some(layout)
    }

    fn of_format(format: &str) -> Option<Self> {
        let mut fields = [Field::D; MAX_FIELDS];
        let mut count = 0;
        for id in format.split('|') {
            *fields.get_mut(count)? = Field::from_id(id)?;
            count += 1;
        }
        Self::new(&fields[..count])
    }

    /// The fields.
    pub fn fields(&self) -> &[Field] {
        &self.fields[..usize::from(self.count)]
    }

    /// Whether it is the first of all templates, `ima`: its digest has no length before it, its name no NUL behind it, and
    /// the data no length at all.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_lists_of_known_fields() {
        let ids = |template: &str| {
            Layout::of(template)
                .map(|layout| layout.fields().iter().map(|field| field.id()).collect::<Vec<_>>())
        };
        assert_eq!(ids("ima-modsig").unwrap().join("|"), "d-ng|n-ng|sig|d-modsig|modsig");
        assert_eq!(ids("ima"), ids("d|n"));
        assert!(Layout::of("ima").unwrap().is_fixed() && !Layout::of("d|n").unwrap().is_fixed());
        let all: Vec<_> = Field::ALL.iter().map(|field| field.id()).collect();
        assert_eq!(ids(&all[..MAX_FIELDS].join("|")).unwrap(), all[..MAX_FIELDS]);
        for unknown in ["", "|", "ima-ng2", "d-ng|", "d-ng|n-ng|x", "d-ng,n-ng", &all.join("|")] {
            assert_eq!(ids(unknown), None, "{unknown}");
        }
    }
}
