//! Emitted records on their way into columns.

use crate::{
    bindings::sidestream::transform::types::{BytesColumn, Emits, Headers},
    codec::{CodecError, Encode},
    output::Parts,
    record::Record,
};

/// Stands for the time of the cause.
const TIMESTAMP_OF_CAUSE: i64 = i64::MIN;
/// Stands for the headers of the cause.
const HEADERS_OF_CAUSE: u32 = u32::MAX;
/// Stands for the partition that the key decides.
const PARTITION_BY_KEY: i32 = -1;

impl Emits {
    /// None yet, with room for as many as `last` had: batches are alike.
    pub(crate) fn with_room(room: Room) -> Self {
        Self {
            causes: Vec::with_capacity(room.rows),
            outputs: Vec::with_capacity(room.rows),
            keys: BytesColumn::with_room(room.rows, room.key_bytes),
            values: BytesColumn::with_room(room.rows, room.value_bytes),
            headers: None,
            timestamps: Vec::with_capacity(room.rows),
            partitions: Vec::with_capacity(room.rows),
        }
    }

    /// Emits a key and a value, and the rest as the cause has it.
    pub(crate) fn push<K, V>(
        &mut self,
        cause: i32,
        output: u32,
        key: &K,
        value: &V,
    ) -> Result<(), CodecError>
    where
        K: Encode + ?Sized,
        V: Encode + ?Sized,
    {
        self.keys.push_encoded(key).map_err(|error| error.of("key"))?;
        if let Err(error) = self.values.push_encoded(value) {
            self.keys.pop();
            return Err(error.of("value"));
        }
        self.push_rest(cause, output, None, None);
        Ok(())
    }

    /// Passes a record on with another value.
    pub(crate) fn push_with<V: Encode + ?Sized>(
        &mut self,
        cause: i32,
        output: u32,
        record: &Record<'_>,
        value: &V,
    ) -> Result<(), CodecError> {
        self.values.push_encoded(value).map_err(|error| error.of("value"))?;
        self.keys.push(record.key);
        self.push_rest(cause, output, None, None);
        Ok(())
    }

    /// Passes a record on.
    pub(crate) fn push_record(&mut self, cause: i32, output: u32, record: &Record<'_>) {
        self.keys.push(record.key);
        self.values.push(record.value);
        self.push_rest(cause, output, None, None);
    }

    /// Emits a record of which every part may have been said.
    pub(crate) fn push_parts(&mut self, cause: i32, output: u32, parts: &Parts) {
        self.keys.push(parts.key.as_deref());
        self.values.push(parts.value.as_deref());
        if let Some(own) = &parts.headers {
            let before = self.outputs.len();
            let headers = self.headers.get_or_insert_with(|| Headers::of_causes(before));
            headers.counts.push(u32::try_from(own.len()).unwrap_or(HEADERS_OF_CAUSE));
            for (name, value) in own {
                headers.names.push(Some(name.as_bytes()));
                headers.values.push(value.as_deref());
            }
            self.push_place(cause, output, parts.timestamp, parts.partition);
        } else {
            self.push_rest(cause, output, parts.timestamp, parts.partition);
        }
    }

    fn push_rest(
        &mut self,
        cause: i32,
        output: u32,
        timestamp: Option<i64>,
        partition: Option<i32>,
    ) {
        if let Some(headers) = &mut self.headers {
            headers.counts.push(HEADERS_OF_CAUSE);
        }
        self.push_place(cause, output, timestamp, partition);
    }

    fn push_place(
        &mut self,
        cause: i32,
        output: u32,
        timestamp: Option<i64>,
        partition: Option<i32>,
    ) {
        self.causes.push(cause);
        self.outputs.push(output);
        self.timestamps.push(timestamp.unwrap_or(TIMESTAMP_OF_CAUSE));
        self.partitions.push(partition.unwrap_or(PARTITION_BY_KEY));
    }

    pub(crate) fn room(&self) -> Room {
        Room {
            rows: self.outputs.len(),
            key_bytes: self.keys.data.len(),
            value_bytes: self.values.data.len(),
        }
    }
}

impl Headers {
    fn of_causes(rows: usize) -> Self {
        Self {
            counts: vec![HEADERS_OF_CAUSE; rows],
            names: BytesColumn::new(),
            values: BytesColumn::new(),
        }
    }
}

/// How much memory emits take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    rows: usize,
    key_bytes: usize,
    value_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_causes_are_filled_in_around_own_ones() {
        let own = |value: &[u8]| Parts {
            headers: Some(vec![("h".to_owned(), Some(value.to_vec()))]),
            ..Parts::default()
        };
        let mut emits = Emits::with_room(Room::default());
        emits.push(0, 0, "k", "v").unwrap();
        assert!(emits.headers.is_none());
        emits.push_parts(1, 0, &own(b"x"));
        emits.push(2, 0, "k", "v").unwrap();
        emits.push_parts(2, 0, &Parts { headers: Some(vec![]), ..Parts::default() });
        let headers = emits.headers.unwrap();
        assert_eq!(headers.counts, [HEADERS_OF_CAUSE, 1, HEADERS_OF_CAUSE, 0]);
        assert_eq!((headers.names.data, headers.values.data), (b"h".to_vec(), b"x".to_vec()));
    }

    #[test]
    fn an_emit_whose_value_has_no_bytes_leaves_nothing_behind() {
        struct Never;
        impl Encode for Never {
            fn encode(&self, _: &mut Vec<u8>) -> Result<(), CodecError> {
                Err(CodecError::new("never"))
            }
        }
        let mut emits = Emits::with_room(Room::default());
        let error = emits.push(0, 0, "k", &Never).unwrap_err();
        assert_eq!(error.to_string(), "value: never");
        emits.push(0, 0, "key", "value").unwrap();
        assert!(emits.keys.is_sound(1) && emits.values.is_sound(1));
        assert_eq!(emits.keys.data, b"key");
    }
}
