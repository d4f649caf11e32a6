//! Enums on the wire: a tag and a length-prefixed payload, so that a peer can step over a variant
//! that it does not know.

use serde::{Deserialize, Serialize};

/// What every wire enum is encoded as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagged {
    /// Which variant.
    pub tag: u16,
    /// The variant's message, encoded.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// Defines an enum whose variants each hold one message and have a fixed tag. A tag that this
/// version does not know decodes to `Unknown`, and encodes again to the same bytes.
macro_rules! wire_enum {
    (
        $(#[$doc:meta])*
        pub enum $name:ident {
            $( $(#[$vdoc:meta])* $tag:literal => $variant:ident($payload:ty) ),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$vdoc])* $variant($payload), )+
            /// A variant that this version does not know.
            Unknown($crate::wire::tagged::Tagged),
        }

        $(
            impl From<$payload> for $name {
                fn from(payload: $payload) -> Self {
                    Self::$variant(payload)
                }
            }
        )+

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $( Self::$variant(payload) => $crate::wire::tagged::Tagged {
                        tag: $tag,
                        payload: $crate::wire::codec::encode(payload),
                    }.serialize(serializer), )+
                    Self::Unknown(tagged) => tagged.serialize(serializer),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let tagged = <$crate::wire::tagged::Tagged as serde::Deserialize>::deserialize(deserializer)?;
                match tagged.tag {
                    $( $tag => $crate::wire::codec::decode(&tagged.payload)
                        .map(Self::$variant)
                        .map_err(serde::de::Error::custom), )+
                    _ => Ok(Self::Unknown(tagged)),
                }
            }
        }
    };
}

pub(crate) use wire_enum;
