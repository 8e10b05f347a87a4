use crate::codec::{Decode, Encode};

/// A record to pipe into a transform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestRecord {
    pub(super) input: Option<String>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(super) timestamp: i64,
    pub(super) offset: Option<i64>,
}

impl TestRecord {
    /// A record with a key and a value, at time 0, for the first input, behind the one before it.
    /// Panics if they can't be encoded.
    pub fn new<K: Encode + ?Sized, V: Encode + ?Sized>(key: &K, value: &V) -> Self {
        Self { key: Some(encode(key)), value: Some(encode(value)), ..Self::default() }
    }

    /// The same without a key.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// The same without a value.
    #[must_use]
    pub fn without_value(mut self) -> Self {
        self.value = None;
        self
    }

    /// The same for another input.
    #[must_use]
    pub fn input(mut self, name: &str) -> Self {
        self.input = Some(name.to_owned());
        self
    }

    /// The same with one header more.
    #[must_use]
    pub fn header<H: Encode + ?Sized>(mut self, name: &str, value: &H) -> Self {
        self.headers.push((name.to_owned(), Some(encode(value))));
        self
    }

    /// The same at a time in milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// The same at an offset.
    #[must_use]
    pub fn offset(mut self, offset: i64) -> Self {
        self.offset = Some(offset);
        self
    }
}

/// A record that a transform emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutput {
    /// The name of the output it goes to.
    pub output: String,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its time in milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// Its partition, if the transform decided it; otherwise the key does.
    pub partition: Option<i32>,
}

impl TestOutput {
    /// Its key as a `T`. Panics if it is null or no `T`.
    #[must_use]
    #[track_caller]
    pub fn key<'a, T: Decode<'a>>(&'a self) -> T {
        decode("key", self.key.as_deref())
    }

    /// Its value as a `T`. Panics if it is null or no `T`.
    #[must_use]
    #[track_caller]
    pub fn value<'a, T: Decode<'a>>(&'a self) -> T {
        decode("value", self.value.as_deref())
    }

    /// The value of its last header of that name as a `T`. Panics if there is none, or it is null
    /// or no `T`.
    #[must_use]
    #[track_caller]
    pub fn header<'a, T: Decode<'a>>(&'a self, name: &str) -> T {
        let last = self.headers.iter().rfind(|(other, _)| other == name);
        decode(name, last.and_then(|(_, value)| value.as_deref()))
    }
}

#[track_caller]
pub(super) fn encode<T: Encode + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes).expect("a test's key or value can be encoded");
    bytes
}

#[track_caller]
fn decode<'a, T: Decode<'a>>(part: &str, bytes: Option<&'a [u8]>) -> T {
    let bytes = bytes.unwrap_or_else(|| bad(part, "null"));
    T::decode(bytes).unwrap_or_else(|error| bad(part, &error.to_string()))
}

#[track_caller]
#[expect(clippy::panic, reason = "a failed expectation of a test")]
fn bad(part: &str, why: &str) -> ! {
    panic!("{part}: {why}")
}
