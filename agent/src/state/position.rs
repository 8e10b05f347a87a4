//! How a task's position is written into its RocksDB.
//!
//! Stores and inputs are written with their names: indices change when the pipeline does. All
//! numbers are big-endian.
//!
//! ```text
//! version        u8, 2
//! committed_at   i64
//! inputs         u16, then for each: name (u16 and bytes), offset i64, topic id 16 bytes
//! stores         u16, then for each: name (u16 and bytes), offset i64, topic id 16 bytes, epoch i32
//! ```
//!
//! In version 1 inputs have no topic id.

use sidestream_core::{
    record::{Timestamp, TopicId},
    task::{InputPosition, Position, StorePosition},
};

/// The version written; a code is never used again for another layout.
const VERSION: u8 = 2;

/// The one before, which is read as well.
const WITHOUT_IDS: u8 = 1;

/// A position as it is written, with names. Only stores that have a position are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredPosition {
    pub(super) stores: Vec<(String, StorePosition)>,
    pub(super) inputs: Vec<(String, InputPosition)>,
    pub(super) committed_at: Timestamp,
}

/// Bytes that are not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PositionError {
    #[error("the position has the version {0}, not {VERSION}")]
    Version(u8),
    #[error("the position ends too early")]
    Truncated,
    #[error("the position has {0} bytes too many")]
    TooLong(usize),
    #[error("a name in the position is not UTF-8")]
    Name,
}

/// Writes `position`, whose stores and inputs have these names. A store whose element in `kept` is
/// false is left out, as is one without a position.
pub(super) fn encode<'a>(
    position: &Position,
    stores: impl Iterator<Item = (&'a str, bool)>,
    inputs: &[String],
) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(position.committed_at.to_be_bytes());
    put_count(&mut bytes, position.inputs.len().min(inputs.len()));
    for (name, input) in inputs.iter().zip(&position.inputs) {
        put_name(&mut bytes, name);
        bytes.extend(input.offset.to_be_bytes());
        bytes.extend(input.topic_id.0);
    }
    let stores: Vec<_> = stores
        .zip(&position.stores)
        .filter_map(|((name, kept), store)| Some((name, store.as_ref().filter(|_| kept)?)))
        .collect();
    put_count(&mut bytes, stores.len());
    for (name, store) in stores {
        put_name(&mut bytes, name);
        bytes.extend(store.offset.to_be_bytes());
        bytes.extend(store.topic_id.0);
        bytes.extend(store.leader_epoch.to_be_bytes());
    }
    bytes
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<StoredPosition, PositionError> {
    let mut reader = Reader(bytes);
    let [version] = reader.take()?;
    if version != VERSION && version != WITHOUT_IDS {
        return Err(PositionError::Version(version));
    }
    let committed_at = i64::from_be_bytes(reader.take()?);
    let inputs = reader.many(|reader| {
        let name = reader.name()?;
        let mut input = InputPosition::from(i64::from_be_bytes(reader.take()?));
        if version == VERSION {
            input.topic_id = TopicId(reader.take()?);
        }
        Ok((name, input))
    })?;
    let stores = reader.many(|reader| {
        let name = reader.name()?;
        let offset = i64::from_be_bytes(reader.take()?);
        let topic_id = TopicId(reader.take()?);
        let leader_epoch = i32::from_be_bytes(reader.take()?);
        Ok((name, StorePosition { offset, topic_id, leader_epoch }))
    })?;
    match reader.0.len() {
        0 => Ok(StoredPosition { stores, inputs, committed_at }),
        more => Err(PositionError::TooLong(more)),
    }
}

impl StoredPosition {
    /// The position of these stores and inputs. Of an input that is new, nothing was seen.
    pub(super) fn of(&self, stores: &[&str], inputs: &[String]) -> Position {
        let find = |name: &&str| {
            self.stores.iter().find(|(n, _)| n == name).map(|(_, position)| position.clone())
        };
        let input = |name: &String| {
            let of_input = self.inputs.iter().find(|(n, _)| n == name);
            of_input.map(|&(_, input)| input).unwrap_or_default()
        };
        Position {
            stores: stores.iter().map(find).collect(),
            inputs: match self.inputs.is_empty() {
                true => Vec::new(),
                false => inputs.iter().map(input).collect(),
            },
            committed_at: self.committed_at,
        }
    }
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    let count = u16::try_from(count).expect("a sub-topology has fewer than 65,536 parts");
    bytes.extend(count.to_be_bytes());
}

fn put_name(bytes: &mut Vec<u8>, name: &str) {
    put_count(bytes, name.len());
    bytes.extend(name.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], PositionError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(PositionError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn name(&mut self) -> Result<String, PositionError> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (name, rest) = self.0.split_at_checked(length).ok_or(PositionError::Truncated)?;
        self.0 = rest;
        String::from_utf8(name.to_vec()).map_err(|_| PositionError::Name)
    }

    fn many<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, PositionError>,
    ) -> Result<Vec<T>, PositionError> {
        let count = u16::from_be_bytes(self.take()?);
        (0..count).map(|_| one(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> Position {
        let store = |offset| StorePosition { offset, topic_id: TopicId([7; 16]), leader_epoch: 3 };
        Position {
            stores: vec![Some(store(5)), None, Some(store(i64::MAX))],
            inputs: vec![InputPosition { offset: 42, topic_id: TopicId([9; 16]) }, 7.into()],
            committed_at: 1_700_000_000_123,
        }
    }

    fn names() -> (Vec<&'static str>, Vec<String>) {
        (vec!["counts", "größe", ""], vec!["lines".into(), "words".into()])
    }

    fn bytes(position: &Position) -> Vec<u8> {
        let (stores, inputs) = names();
        encode(position, stores.into_iter().map(|name| (name, true)), &inputs)
    }

    #[test]
    fn a_position_comes_back_as_it_went_in() {
        let (stores, inputs) = names();
        for position in [position(), Position { stores: vec![None; 3], ..Position::default() }] {
            let stored = decode(&bytes(&position)).unwrap();
            let inputs = if position.inputs.is_empty() { &[] } else { inputs.as_slice() };
            assert_eq!(stored.of(&stores, inputs), position);
        }
    }

    #[test]
    fn names_are_followed_when_the_pipeline_has_changed() {
        let stored = decode(&bytes(&position())).unwrap();
        let changed = stored.of(&["new", "counts"], &["words".into(), "lines".into()]);
        assert_eq!(changed.stores, [None, position().stores[0].clone()]);
        let InputPosition { offset, topic_id } = position().inputs[0];
        assert_eq!(changed.inputs, [7.into(), InputPosition { offset, topic_id }]);
        let added = stored.of(&[], &["new".into(), "words".into()]);
        assert_eq!(added.inputs, [0.into(), 7.into()]);
    }

    #[test]
    fn a_position_of_the_version_before_is_read() {
        let (stores, inputs) = names();
        let mut before = bytes(&position());
        before[0] = WITHOUT_IDS;
        let ids = [11 + 7 + 8, 11 + 7 + 8 + 7 + 8];
        ids.iter().for_each(|&at| drop(before.drain(at..at + 16)));
        let mut expected = position();
        expected.inputs = vec![42.into(), 7.into()];
        assert_eq!(decode(&before).unwrap().of(&stores, &inputs), expected);
    }

    #[test]
    fn a_store_that_is_not_kept_is_left_out() {
        let (stores, inputs) = names();
        let written = encode(&position(), stores.iter().map(|&name| (name, false)), &inputs);
        assert_eq!(decode(&written).unwrap().stores, []);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = bytes(&position());
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), Err(PositionError::Truncated), "{length}");
        }
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        let mut long = bytes(&position());
        long.push(0);
        assert_eq!(decode(&long), Err(PositionError::TooLong(1)));
        let mut newer = bytes(&position());
        newer[0] = 3;
        assert_eq!(decode(&newer), Err(PositionError::Version(3)));
        let mut name = bytes(&position());
        name[13] = 0xff;
        assert_eq!(decode(&name), Err(PositionError::Name));
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 1u64;
        for round in 0..10_000 {
            let mut garbage: Vec<u8> = (0..round % 200)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if let Some(version) = garbage.first_mut() {
                *version = VERSION;
            }
            let _decoded = decode(&garbage);
        }
    }
}
