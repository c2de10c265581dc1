//! How wire types are declared.

/// Declares wire types once, for `miniserde` and `serde`.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)* })+) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            #[cfg_attr(feature = "miniserde", derive(miniserde::Serialize, miniserde::Deserialize))]
            #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
            #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
            pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
        )+
    };
}
pub(crate) use wire;
