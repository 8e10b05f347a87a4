//! What is known of the versions of each transform, and how it is written down.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::guest::Digest;

/// The version of the index's format. The first one had no `tries`.
pub(super) const INDEX_VERSION: u32 = 2;

/// The versions of all transforms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Index(BTreeMap<String, Transform>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transform {
    /// The content of its module file that was dealt with last.
    handled: Option<Hexadecimal>,
    /// The content of its module file that a swap was begun with, which has not ended.
    tried: Option<Hexadecimal>,
    /// How often it was begun; left out if it is not known, as by the first format.
    #[serde(default, skip_serializing_if = "is_zero")]
    tries: u32,
    /// Newest first, each module once; the first one runs.
    versions: Vec<Kept>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(tries: &u32) -> bool {
    *tries == 0
}

/// A version of a transform that is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    digest: Hexadecimal,
    /// How large its module is.
    pub(super) bytes: u64,
    /// What messages call it.
    pub(crate) name: String,
    /// Since when it ran, in milliseconds since 1970.
    pub(crate) since_ms: i64,
}

impl Kept {
    pub(super) fn new(digest: Digest, bytes: u64, name: String, since_ms: i64) -> Self {
        Self { digest: Hexadecimal(digest), bytes, name, since_ms }
    }

    /// Which code it is.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.0
    }
}

/// A digest that is written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Hexadecimal(Digest);

impl From<Hexadecimal> for String {
    fn from(digest: Hexadecimal) -> Self {
        digest.0.to_string()
    }
}

impl TryFrom<String> for Hexadecimal {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        digest(&text).map(Self).ok_or("a digest does not have 64 hexadecimal digits")
    }
}

/// The digest that is written so, in small letters.
pub(super) fn digest(text: &str) -> Option<Digest> {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(2 * index..2 * index + 2)?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    let digest = Digest(bytes);
    (digest.to_string() == text).then_some(digest)
}

/// Why an index can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It has the format of this version.
    Newer(u32),
    /// It is not what was written, because of this.
    Unreadable(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    /// The sha256 of the transforms as JSON without spaces: finds damage that is JSON still.
    checksum: String,
    transforms: Index,
}

#[derive(Deserialize)]
struct WrittenBy {
    version: u32,
}

impl Index {
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        let unreadable = |error: serde_json::Error| Damage::Unreadable(error.to_string());
        let WrittenBy { version } = serde_json::from_slice(bytes).map_err(unreadable)?;
        if version > INDEX_VERSION {
            return Err(Damage::Newer(version));
        }
        let written: Written = serde_json::from_slice(bytes).map_err(unreadable)?;
        match written.checksum == written.transforms.checksum() {
            _ if version == 0 => Err(Damage::Unreadable("there is no format 0".to_owned())),
            true => Ok(written.transforms),
            false => Err(Damage::Unreadable("its checksum is another one".to_owned())),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (checksum, transforms) = (self.checksum(), self.clone());
        let written = Written { version: INDEX_VERSION, checksum, transforms };
        let mut bytes = serde_json::to_vec_pretty(&written).expect("its keys are strings");
        bytes.push(b'\n');
        bytes
    }

    fn checksum(&self) -> String {
        Digest::of(&serde_json::to_vec(self).expect("its keys are strings")).to_string()
    }

    pub(super) fn versions(&self, transform: &str) -> &[Kept] {
        self.0.get(transform).map_or(&[], |transform| &transform.versions)
    }

    pub(super) fn handled(&self, transform: &str) -> Option<Digest> {
        Some(self.0.get(transform)?.handled?.0)
    }

    pub(super) fn set_handled(&mut self, transform: &str, file: Digest) {
        let of = self.of(transform);
        (of.handled, of.tried, of.tries) = (Some(Hexadecimal(file)), None, 0);
    }

    pub(super) fn tried(&self, transform: &str) -> Option<Digest> {
        Some(self.0.get(transform)?.tried?.0)
    }

    /// How often a swap was begun with this content of a transform's module file, and not ended.
    pub(super) fn tries(&self, transform: &str, file: Digest) -> u32 {
        let of = self.0.get(transform).filter(|of| of.tried == Some(Hexadecimal(file)));
        of.map_or(0, |of| of.tries)
    }

    pub(super) fn set_tries(&mut self, transform: &str, file: Digest, tries: u32) {
        let of = self.of(transform);
        (of.tried, of.tries) = (Some(Hexadecimal(file)), tries);
    }

    /// Puts a version at the front of its transform's; the oldest above `versions_max` leave.
    pub(super) fn run(&mut self, transform: &str, version: Kept, versions_max: usize) {
        let versions = &mut self.of(transform).versions;
        versions.retain(|other| other.digest != version.digest);
        versions.insert(0, version);
        versions.truncate(versions_max);
    }

    /// Forgets the transforms that have none of these names.
    pub(super) fn retain(&mut self, names: &[&str]) {
        self.0.retain(|name, _| names.contains(&name.as_str()));
    }

    /// Forgets the oldest versions of each transform above `versions_max`.
    pub(super) fn shorten(&mut self, versions_max: usize) {
        self.0.values_mut().for_each(|transform| transform.versions.truncate(versions_max));
    }

    /// Forgets the versions that are not among `files`, and returns them. Where the running one is
    /// among them, what was handled is forgotten too.
    pub(super) fn give_up_missing(&mut self, files: &BTreeSet<Digest>) -> Vec<(String, Kept)> {
        let mut missing = Vec::new();
        for (name, transform) in &mut self.0 {
            let is_there = |kept: &Kept| files.contains(&kept.digest());
            if transform.versions.first().is_some_and(|running| !is_there(running)) {
                transform.handled = None;
            }
            let gone = transform.versions.extract_if(.., |kept| !is_there(kept));
            missing.extend(gone.map(|kept| (name.clone(), kept)));
        }
        missing
    }

    /// The modules of all versions.
    pub(super) fn digests(&self) -> BTreeSet<Digest> {
        let versions = self.0.values().flat_map(|transform| &transform.versions);
        versions.map(Kept::digest).collect()
    }

    fn of(&mut self, transform: &str) -> &mut Transform {
        self.0.entry(transform.to_owned()).or_default()
    }
}
