//! How keys and values become bytes, and bytes keys and values.
//!
//! Strings are UTF-8, byte strings themselves, numbers big-endian as Kafka's own serializers write
//! them, `()` is empty. [`Json`] is a JSON document, [`Decimal`] a number in digits. A type of your
//! own implements [`Encode`] and [`Decode`], and is a [`Codec`] by that.

use std::{fmt, ops::Deref, str::FromStr};

use serde::{Serialize, de::Deserialize};

/// A type that can be written as bytes.
pub trait Encode {
    /// Appends the bytes of `self` to `bytes`; what is there already stays as it is.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// A type that can be read from bytes, and may borrow from them.
pub trait Decode<'a>: Sized {
    /// Reads a value from all of `bytes`.
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError>;
}

/// A type that can be written and read whole: the key or value of a [`Store`](crate::Store) or an
/// [`Output`](crate::Output). Every type that implements [`Encode`] and [`Decode`] is one.
pub trait Codec: Encode + for<'a> Decode<'a> {}

impl<T: Encode + for<'a> Decode<'a>> Codec for T {}

/// Why bytes are not a value, or a value has no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError {
    message: String,
}

impl CodecError {
    /// An error that says `message`.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }

    /// The same with what it was about in front.
    #[must_use]
    pub fn of(self, subject: impl fmt::Display) -> Self {
        Self { message: format!("{subject}: {}", self.message) }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CodecError {}

impl<T: Encode + ?Sized> Encode for &T {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        (**self).encode(bytes)
    }
}

impl Encode for [u8] {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.extend_from_slice(self);
        Ok(())
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_slice().encode(bytes)
    }
}

impl<'a, const N: usize> Decode<'a> for [u8; N] {
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        bytes
            .try_into()
            .map_err(|_| CodecError::new(format_args!("expected {N} bytes, found {}", bytes.len())))
    }
}

impl Encode for Vec<u8> {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_slice().encode(bytes)
    }
}

impl Decode<'_> for Vec<u8> {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl<'a> Decode<'a> for &'a [u8] {
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        Ok(bytes)
    }
}

impl Encode for str {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_bytes().encode(bytes)
    }
}

impl<'a> Decode<'a> for &'a str {
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        std::str::from_utf8(bytes).map_err(|error| {
            CodecError::new(format_args!("not UTF-8 at byte {}", error.valid_up_to()))
        })
    }
}

impl Encode for String {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.as_str().encode(bytes)
    }
}

impl Decode<'_> for String {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        <&str>::decode(bytes).map(str::to_owned)
    }
}

impl Encode for () {
    fn encode(&self, _bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }
}

impl Decode<'_> for () {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        <[u8; 0]>::decode(bytes).map(|_| ())
    }
}

macro_rules! big_endian {
    ($($number:ty),*) => {$(
        impl Encode for $number {
            fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
                self.to_be_bytes().encode(bytes)
            }
        }

        impl Decode<'_> for $number {
            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                let bytes = Decode::decode(bytes);
                bytes.map(<$number>::from_be_bytes).map_err(|error| error.of(stringify!($number)))
            }
        }
    )*};
}

big_endian!(u8, u16, u32, u64, i8, i16, i32, i64, f32, f64);

/// A number as its decimal digits, readable with every console consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<T>(pub T);

impl<T: itoa::Integer + Copy> Encode for Decimal<T> {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        itoa::Buffer::new().format(self.0).encode(bytes)
    }
}

impl<T: FromStr<Err: fmt::Display>> Decode<'_> for Decimal<T> {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let digits = <&str>::decode(bytes)?;
        digits.parse().map(Self).map_err(CodecError::new)
    }
}

/// A JSON document of anything that serde can write and read. It derefs to what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Serialize> Encode for Json<T> {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(bytes, &self.0).map_err(|error| not_json(&error))
    }
}

impl<'a, T: Deserialize<'a>> Decode<'a> for Json<T> {
    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        serde_json::from_slice(bytes).map(Self).map_err(|error| not_json(&error))
    }
}

fn not_json(error: &serde_json::Error) -> CodecError {
    CodecError::new(format_args!("JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Codec + PartialEq + fmt::Debug>(value: T, bytes: &[u8]) {
        let mut written = b"before".to_vec();
        value.encode(&mut written).unwrap();
        assert_eq!(written.strip_prefix(b"before"), Some(bytes));
        assert_eq!(T::decode(bytes), Ok(value));
    }

    #[test]
    fn values_are_written_as_kafka_writes_them_and_read_back() {
        check(String::from("né"), "né".as_bytes());
        check(vec![0u8, 255], &[0, 255]);
        check([1u8, 2], &[1, 2]);
        check((), b"");
        check(1u32, &[0, 0, 0, 1]);
        check(-2i64, &[255, 255, 255, 255, 255, 255, 255, 254]);
        check(1.5f64, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        check(Decimal(-120i64), b"-120");
        check(Decimal(u64::MAX), b"18446744073709551615");
        check(Json(vec![Some(1), None]), b"[1,null]");
    }

    fn check_error<T: for<'a> Decode<'a> + fmt::Debug>(bytes: &[u8], message: &str) {
        assert_eq!(T::decode(bytes).unwrap_err().to_string(), message);
    }

    #[test]
    fn errors_say_what_was_found() {
        check_error::<String>(b"ab\xff", "not UTF-8 at byte 2");
        check_error::<u64>(b"abc", "u64: expected 8 bytes, found 3");
        check_error::<()>(b"abc", "expected 0 bytes, found 3");
        check_error::<Decimal<u64>>(b"-1", "invalid digit found in string");
        check_error::<Json<u64>>(b"{}", "JSON: invalid type: map, expected u64 at line 1 column 0");
    }
}
