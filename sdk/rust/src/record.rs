//! A record as it came.

use crate::{
    codec::{CodecError, Decode},
    column::Rows,
    failure::Failure,
};

/// A record to process. Key, value and headers are where the batch has them; nothing is copied
/// until you ask for a type that owns what it holds.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(crate) input: u32,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) timestamp_type: u8,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// An input of the transform; [`Setup::input`](crate::Setup::input) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Input(pub(crate) u32);

/// Whose clock a timestamp is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
    /// Nobody's: the record has no timestamp.
    None,
}

impl<'a> Record<'a> {
    /// The input it came by.
    #[must_use]
    pub fn input(&self) -> Input {
        Input(self.input)
    }

    /// The partition it came from.
    #[must_use]
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Where it stands in its partition. A record that another transform handed over has the
    /// offset of the record that caused it.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Its time in milliseconds since 1970-01-01 UTC; -1 if it has none.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Whose time that is.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        match self.timestamp_type {
            0 => TimestampType::CreateTime,
            1 => TimestampType::LogAppendTime,
            _ => TimestampType::None,
        }
    }

    /// The bytes of its key; none if the key is null.
    #[must_use]
    pub fn key_bytes(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The bytes of its value; none if the value is null.
    #[must_use]
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// Its key as a `T`. A key that is null or no `T` is a failure that rejects the record.
    pub fn key<T: Decode<'a>>(&self) -> Result<T, Failure> {
        present("key", self.key)
    }

    /// Its value as a `T`. A value that is null or no `T` is a failure that rejects the record.
    pub fn value<T: Decode<'a>>(&self) -> Result<T, Failure> {
        present("value", self.value)
    }

    /// Its key as a `T`, none if it is null.
    pub fn key_or_null<T: Decode<'a>>(&self) -> Result<Option<T>, Failure> {
        self.key.map(|bytes| decode("key", bytes)).transpose()
    }

    /// Its value as a `T`, none if it is null.
    pub fn value_or_null<T: Decode<'a>>(&self) -> Result<Option<T>, Failure> {
        self.value.map(|bytes| decode("value", bytes)).transpose()
    }

    /// Its headers, in order. There are none unless the transform asked for them with
    /// [`Setup::want_headers`](crate::Setup::want_headers).
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The value of its last header of that name; none if there is no such header or its value is
    /// null. See [`Record::headers`].
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let of_that_name = self.headers.filter(|(other, _)| *other == name);
        of_that_name.last().and_then(|(_, value)| value)
    }
}

fn present<'a, T: Decode<'a>>(part: &str, bytes: Option<&'a [u8]>) -> Result<T, Failure> {
    decode(part, bytes.ok_or_else(|| CodecError::new("null").of(part))?)
}

fn decode<'a, T: Decode<'a>>(part: &str, bytes: &'a [u8]) -> Result<T, Failure> {
    Ok(T::decode(bytes).map_err(|error| error.of(part))?)
}

/// The headers of a record: names, and values that may be null. A name that isn't UTF-8, which
/// Kafka doesn't allow, reads as an empty one.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub(crate) left: u32,
    pub(crate) names: Rows<'a>,
    pub(crate) values: Rows<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (name, value) = (self.names.next()?, self.values.next()?);
        let name = name.and_then(|bytes| std::str::from_utf8(bytes).ok());
        Some((name.unwrap_or_default(), value))
    }
}
