//! Manifests: one signed revision of a function.
//!
//! A signed manifest is kept and passed on as the exact bytes that its owner signed, so that fields
//! which this version does not know survive the way through it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::id::{ArtifactHash, EngineHash, FunctionId, ManifestHash, OwnerId};
use crate::key::{Domain, OwnerKey, SIGNATURE_LEN};
use crate::name::Name;
use crate::wire::codec::{self, DecodeError};
use crate::wire::extension::Extensions;
use crate::wire::tagged::wire_enum;

/// The longest signed manifest, in bytes: a long visibility list and a long message fit.
pub const MANIFEST_LEN_MAX: usize = 32 * 1024;
/// The longest message of a revision, in bytes.
pub const MESSAGE_LEN_MAX: usize = 1024;
/// The longest visibility list.
pub const VISIBILITY_MAX: usize = 256;
/// The longest list of capabilities.
pub const CAPABILITIES_MAX: usize = 16;
/// The most replicas that a function may ask for.
pub const REPLICAS_MAX: u16 = 64;
/// The highest generation: seq = generation · 2^40 + revision must fit BEP 44's signed 64 bits.
pub const GENERATION_MAX: u64 = (1 << 23) - 1;
/// The highest revision, for the same reason.
pub const REVISION_MAX: u64 = (1 << 40) - 1;

/// Which of two states of a function is newer: generation first, then revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Raised only by publishing again after a decommission.
    pub generation: u64,
    /// Raised by every publish, rollback and decommission.
    pub revision: u64,
}

/// What a guest may use. Each is counted for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Limits {
    /// Fuel, in wasmtime's units.
    pub fuel: u64,
    /// Linear memory, in bytes.
    pub memory_bytes: u64,
    /// The guest's own time, in milliseconds.
    pub time_ms: u64,
    /// The longest input, in bytes.
    pub input_bytes: u64,
    /// The longest answer, in bytes.
    pub output_bytes: u64,
    /// The longest log, in bytes; what is over it is cut.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000_000,
            memory_bytes: 64 << 20,
            time_ms: 10_000,
            input_bytes: 8 << 20,
            output_bytes: 8 << 20,
            log_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// The first limit that is above `ceiling`, by name with both values.
    pub fn above(&self, ceiling: &Self) -> Option<(&'static str, u64, u64)> {
        [
            ("fuel", self.fuel, ceiling.fuel),
            ("memory_bytes", self.memory_bytes, ceiling.memory_bytes),
            ("time_ms", self.time_ms, ceiling.time_ms),
            ("input_bytes", self.input_bytes, ceiling.input_bytes),
            ("output_bytes", self.output_bytes, ceiling.output_bytes),
            ("log_bytes", self.log_bytes, ceiling.log_bytes),
        ]
        .into_iter()
        .find(|(_, wanted, most)| wanted > most)
    }
}

/// What kind of program an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Kind {
    /// A WASI preview 1 command: input on stdin, answer on stdout.
    Command,
    /// JavaScript with a default export: JSON in, JSON out.
    JavyFunction,
    /// JavaScript without one: raw bytes through `Javy.IO`.
    JavyScript,
    /// A kind that this version does not know.
    Unknown(u16),
}

impl From<u16> for Kind {
    fn from(tag: u16) -> Self {
        match tag {
            1 => Self::Command,
            2 => Self::JavyFunction,
            3 => Self::JavyScript,
            other => Self::Unknown(other),
        }
    }
}

impl From<Kind> for u16 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Command => 1,
            Kind::JavyFunction => 2,
            Kind::JavyScript => 3,
            Kind::Unknown(tag) => tag,
        }
    }
}

/// Who may call a function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Visibility {
    /// `None`: anybody. Otherwise these keys and the owner's.
    pub callers: Option<Vec<OwnerId>>,
}

/// The first or a further revision's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The Wasm bytes, by hash.
    pub artifact: ArtifactHash,
    /// Their length.
    pub artifact_bytes: u64,
    /// What kind of program they are.
    pub kind: Kind,
    /// The engine that a javy artifact was compiled for.
    pub engine: Option<EngineHash>,
    /// What one call may use.
    pub limits: Limits,
    /// Capabilities that the guest asks for, by name; none are granted by default.
    pub capabilities: Vec<String>,
    /// Who may call.
    pub visibility: Visibility,
    /// Whether a call may be run again after it may have run once.
    pub idempotent: bool,
    /// How many hosts should hold the function.
    pub replicas: u16,
    /// The answer's media type.
    pub content_type: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// The function's end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Decommission {
    /// For what comes later.
    pub extensions: Extensions,
}

wire_enum! {
    /// What a revision does.
    pub enum Action {
        /// The function is now this.
        1 => Publish(Publish),
        /// The function is no more.
        2 => Decommission(Decommission),
    }
}

/// One revision, as its owner signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose function.
    pub owner: OwnerId,
    /// Which of the owner's functions.
    pub name: Name,
    /// Which life of the function, and which revision in it.
    pub version: Version,
    /// The manifest that this one follows: for history and fork reports only.
    pub parent: Option<ManifestHash>,
    /// What the revision does.
    pub action: Action,
    /// The owner's note.
    pub message: String,
    /// When it was signed by the owner's clock, in milliseconds since the Unix epoch. For display only.
    pub time_ms: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Why a manifest is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MANIFEST_LEN_MAX`].
    #[error("a signed manifest has {0} bytes, and at most {MANIFEST_LEN_MAX} are taken")]
    TooLong(usize),
    /// The bytes are not a manifest's.
    #[error("a signed manifest does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The owner's key is no key.
    #[error("a manifest names an owner that is no key")]
    Owner,
    /// Forged, altered, or signed for something else.
    #[error("a manifest's signature does not verify")]
    Signature,
    /// A field is outside its bounds.
    #[error("a manifest's {field} is out of bounds: {rule}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What holds for it.
        rule: &'static str,
    },
}

impl Manifest {
    /// The function's id.
    pub fn function(&self) -> FunctionId {
        FunctionId::derive(&self.owner, &self.name)
    }

    /// Signs the manifest.
    ///
    /// # Errors
    /// A field out of bounds, or an owner that isn't this key's.
    pub fn sign(&self, key: &OwnerKey) -> Result<SignedManifest, ManifestError> {
        if key.id() != self.owner {
            return Err(ManifestError::Owner);
        }
        self.check()?;
        let bytes = codec::encode(self);
        if bytes.len() > MANIFEST_LEN_MAX {
            return Err(ManifestError::TooLong(bytes.len()));
        }
        let signature = key.sign(Domain::Manifest, &bytes);
        Ok(SignedManifest {
            bytes,
            signature: signature.to_vec(),
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        let rules = [
            (
                self.version.generation <= GENERATION_MAX,
                "generation",
                "at most 2^23 - 1",
            ),
            (
                (1..=REVISION_MAX).contains(&self.version.revision),
                "revision",
                "from 1 to 2^40 - 1",
            ),
            (
                self.message.len() <= MESSAGE_LEN_MAX,
                "message",
                "at most 1,024 bytes",
            ),
        ];
        check_rules(&rules)?;
        self.extensions.check(&[])?;
        match &self.action {
            Action::Publish(publish) => publish.check(),
            Action::Decommission(end) => Ok(end.extensions.check(&[])?),
            Action::Unknown(_) => Ok(()),
        }
    }
}

impl Publish {
    fn check(&self) -> Result<(), ManifestError> {
        let callers = self.visibility.callers.as_ref().map_or(0, Vec::len);
        let capabilities = self.capabilities.len() <= CAPABILITIES_MAX
            && self.capabilities.iter().all(|c| (1..=64).contains(&c.len()));
        let rules = [
            (
                (1..=REPLICAS_MAX).contains(&self.replicas),
                "replicas",
                "from 1 to 64",
            ),
            (callers <= VISIBILITY_MAX, "visibility", "at most 256 callers"),
            (capabilities, "capabilities", "at most 16 of 1 to 64 bytes each"),
            (
                (1..=128).contains(&self.content_type.len()),
                "content_type",
                "from 1 to 128 bytes",
            ),
            (self.artifact_bytes > 0, "artifact_bytes", "more than 0"),
            (
                self.limits.fuel > 0 && self.limits.time_ms > 0,
                "limits",
                "fuel and time_ms more than 0",
            ),
        ];
        check_rules(&rules)?;
        Ok(self.extensions.check(&[])?)
    }
}

fn check_rules(rules: &[(bool, &'static str, &'static str)]) -> Result<(), ManifestError> {
    match rules.iter().find(|(holds, ..)| !holds) {
        Some(&(_, field, rule)) => Err(ManifestError::Field { field, rule }),
        None => Ok(()),
    }
}

/// A manifest's exact bytes and its owner's signature over them; not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedManifest {
    /// The encoded [`Manifest`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// 64 bytes of Ed25519 over the bytes, in the manifest domain.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

impl SignedManifest {
    /// The hash that names this signed manifest.
    pub fn hash(&self) -> ManifestHash {
        let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 manifest hash");
        hasher.update(&self.bytes);
        hasher.update(&self.signature);
        ManifestHash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Checks everything that can be checked without knowing other manifests.
    ///
    /// # Errors
    /// [`ManifestError`] for bytes, fields or signatures that cannot be trusted.
    pub fn verify(self) -> Result<Verified, ManifestError> {
        if self.bytes.len() > MANIFEST_LEN_MAX {
            return Err(ManifestError::TooLong(self.bytes.len()));
        }
        let manifest: Manifest = codec::decode(&self.bytes)?;
        manifest.owner.check().map_err(|_| ManifestError::Owner)?;
        let signature: [u8; SIGNATURE_LEN] = self
            .signature
            .as_slice()
            .try_into()
            .map_err(|_| ManifestError::Signature)?;
        manifest
            .owner
            .verify(Domain::Manifest, &self.bytes, &signature)
            .map_err(|_| ManifestError::Signature)?;
        manifest.check()?;
        let hash = self.hash();
        Ok(Verified {
            function: manifest.function(),
            hash,
            manifest,
            signed: self,
        })
    }
}

/// A manifest whose signature and fields were checked. There is no other way to make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    function: FunctionId,
    hash: ManifestHash,
    manifest: Manifest,
    signed: SignedManifest,
}

impl Verified {
    /// The function that it is a revision of.
    pub fn function(&self) -> FunctionId {
        self.function
    }

    /// Its own name.
    pub fn hash(&self) -> ManifestHash {
        self.hash
    }

    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which state of the function it is.
    pub fn version(&self) -> Version {
        self.manifest.version
    }

    /// The exact bytes, to pass on.
    pub fn signed(&self) -> &SignedManifest {
        &self.signed
    }

    /// What it publishes, if it does.
    pub fn publish(&self) -> Option<&Publish> {
        match &self.manifest.action {
            Action::Publish(publish) => Some(publish),
            _ => None,
        }
    }

    /// Whether it ends the function.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.manifest.action, Action::Decommission(_))
    }

    /// Where it stands in the join: the greater one wins.
    pub fn rank(&self) -> Rank {
        Rank {
            generation: self.version().generation,
            tombstone: self.is_tombstone(),
            revision: self.version().revision,
            hash: self.hash,
        }
    }
}

/// The total order of a function's manifests. A tombstone beats every revision of its generation,
/// seen or not yet seen; the hash decides between two devices that used one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank {
    // The derived order compares in the order of these fields.
    generation: u64,
    tombstone: bool,
    revision: u64,
    hash: ManifestHash,
}

impl Rank {
    /// Which life of the function it belongs to.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl PartialOrd for Verified {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.function == other.function).then(|| self.rank().cmp(&other.rank()))
    }
}
