//! Secret keys and signatures.
//!
//! Nodes and owners hold Ed25519 keys of separate types, so that one cannot be used as the other.
//! Every signature covers a [`Domain`] tag first: bytes signed for one purpose verify for no other.

use std::fmt;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::id::{IdError, NodeId, OwnerId};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// What a signature is for. Its tag is hashed in before the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// A function's revision ([`crate::manifest::Manifest`]).
    Manifest,
    /// A host's receipt for a call (room is kept in trailers).
    Receipt,
    /// A node acting for an owner ([`crate::wire::call::Credential`]).
    Credential,
    /// A super node's record (federation).
    SuperNode,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::Manifest => b"orb/1 manifest\0",
            Self::Receipt => b"orb/1 receipt\0",
            Self::Credential => b"orb/1 credential\0",
            Self::SuperNode => b"orb/1 super node\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.tag(), bytes].concat()
    }
}

/// A signature that does not verify: forged, altered, or made for another key or purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident => $id:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// The key that grows from this secret seed.
            pub fn from_seed(seed: [u8; 32]) -> Self {
                Self(SigningKey::from_bytes(&seed))
            }

            /// The secret seed, to be stored with owner-only permissions.
            pub fn seed(&self) -> [u8; 32] {
                self.0.to_bytes()
            }

            /// The public half.
            pub fn id(&self) -> $id {
                $id::from_bytes(self.0.verifying_key().to_bytes())
            }

            /// Signs `bytes` for one purpose.
            pub fn sign(&self, domain: Domain, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
                self.sign_raw(&domain.message(bytes))
            }

            /// Signs exactly `bytes`: for foreign formats that bring their own framing (TLS, BEP 44).
            pub fn sign_raw(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
                self.0.sign(bytes).to_bytes()
            }

            /// The key as a PKCS #8 document (RFC 8410), as TLS libraries take it.
            pub fn to_pkcs8_der(&self) -> Vec<u8> {
                let document = self.0.to_pkcs8_der().expect("an Ed25519 key always has a PKCS #8 form");
                document.as_bytes().to_vec()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.id().short())
            }
        }

        impl $id {
            /// Checks a signature that this key should have made for `domain`.
            ///
            /// # Errors
            /// [`BadSignature`], whatever the reason.
            pub fn verify(&self, domain: Domain, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
                self.verify_raw(&domain.message(bytes), signature)
            }

            /// Checks a signature over exactly `bytes`.
            ///
            /// # Errors
            /// [`BadSignature`], whatever the reason.
            pub fn verify_raw(&self, bytes: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Result<(), BadSignature> {
                // Strict: no small-order keys and one signature per message, so that all
                // implementations agree on what verifies (RFC 8032, "Taming the many EdDSAs").
                let key = VerifyingKey::from_bytes(self.as_bytes()).map_err(|_| BadSignature)?;
                key.verify_strict(bytes, &Signature::from_bytes(signature)).map_err(|_| BadSignature)
            }

            /// Checks that somebody can hold this key at all.
            ///
            /// # Errors
            /// [`IdError::NotAKey`] for bytes that are no point of the curve, or a weak one.
            pub fn check(&self) -> Result<(), IdError> {
                match VerifyingKey::from_bytes(self.as_bytes()) {
                    Ok(key) if !key.is_weak() => Ok(()),
                    _ => Err(IdError::NotAKey),
                }
            }
        }
    };
}

key! {
    /// A node's secret key.
    NodeKey => NodeId
}
key! {
    /// An owner's secret key.
    OwnerKey => OwnerId
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_own_message_key_and_domain_only() {
        let key = OwnerKey::from_seed([1; 32]);
        let signature = key.sign(Domain::Manifest, b"message");
        key.id().verify(Domain::Manifest, b"message", &signature).unwrap();
        assert!(key.id().verify(Domain::Manifest, b"massage", &signature).is_err());
        assert!(key.id().verify(Domain::Receipt, b"message", &signature).is_err());
        assert!(
            OwnerKey::from_seed([2; 32])
                .id()
                .verify(Domain::Manifest, b"message", &signature)
                .is_err()
        );
    }

    #[test]
    fn weak_keys_are_no_keys() {
        assert_eq!(OwnerId::from_bytes([0; 32]).check(), Err(IdError::NotAKey));
        OwnerKey::from_seed([3; 32]).id().check().unwrap();
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = NodeKey::from_seed([9; 32]);
        assert_eq!(format!("{key:?}"), format!("NodeKey({})", key.id().short()));
    }
}
