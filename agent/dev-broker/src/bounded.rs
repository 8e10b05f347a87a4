//! Decoding that makes no room by a length which the request could not hold.
//!
//! `kafka-protocol` makes room for as many elements as an array claims to have before it reads the
//! first of them (0.18.0, `Array` and `CompactArray` of `protocol/types.rs`). A request of a few bytes
//! can claim two billion, and an allocation that fails ends the process: nothing could catch that.
//!
//! Only the decoder knows which numbers are lengths, but it reads from whatever buffer it is given.
//! So every request is read twice: first from a buffer that never gives a length above what is left,
//! then, once that has succeeded, from the bytes themselves.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::{Decodable, buf::ByteBuf};

/// Reads a request whose lengths are within it; the error says why it can't be read.
pub(super) fn decode<Q: Decodable>(body: &Bytes, version: i16) -> Result<Q, String> {
    let mut doubting = Doubting::new(body.clone());
    if let Err(error) = Q::decode(&mut doubting, version) {
        return Err(match doubting.withheld {
            Some(claimed) => {
                let left = doubting.remaining();
                format!("a length of {claimed} is claimed where {left} bytes are left")
            }
            None => error.to_string().trim_end().to_owned(),
        });
    }
    Q::decode(&mut body.clone(), version).map_err(|error| error.to_string())
}

/// What is given in place of a number that can't be a length: refused as one (null is -1), and
/// without a meaning as anything else, since what is read from here is thrown away.
const NO_LENGTH: i32 = i32::MIN;

/// A length in a varint of more bytes is above the largest request.
const VARINT_BYTES_MAX: u32 = 4;

/// A buffer from which no length above what is left of it can be read.
struct Doubting {
    bytes: Bytes,
    /// A varint so far, and how many bytes it has. The decoder reads them byte by byte. A single byte
    /// that begins none, but looks like it, is taken for a part of the one that follows: which can
    /// only make that one larger.
    varint: u64,
    varint_bytes: u32,
    /// The number withheld last, until something else is read.
    withheld: Option<i32>,
}

impl Doubting {
    const fn new(bytes: Bytes) -> Self {
        Self { bytes, varint: 0, varint_bytes: 0, withheld: None }
    }

    /// Takes a byte of a varint. One that has ended stands for a length that is smaller by one, for a
    /// number of tagged fields, or for a tag: those that there are have numbers so low that they are
    /// never above what is left.
    fn varint(&mut self, byte: u8) -> Result<(), TryGetError> {
        self.varint |= u64::from(byte & 0x7f) << (7 * self.varint_bytes);
        self.varint_bytes += 1;
        let goes_on = byte >= 0x80;
        if goes_on && self.varint_bytes < VARINT_BYTES_MAX {
            return Ok(());
        }
        let requested = usize::try_from(self.varint.saturating_sub(1)).unwrap_or(usize::MAX);
        (self.varint, self.varint_bytes) = (0, 0);
        let available = self.bytes.len();
        match goes_on || requested > available {
            true => Err(TryGetError { requested, available }),
            false => Ok(()),
        }
    }
}

impl Buf for Doubting {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.withheld = None;
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        self.withheld = None;
        let byte = self.bytes.try_get_u8()?;
        self.varint(byte)?;
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.withheld = None;
        let number = self.bytes.try_get_i32()?;
        let is_length = usize::try_from(number).is_ok_and(|number| number <= self.bytes.len());
        if is_length || number < 0 {
            return Ok(number);
        }
        self.withheld = Some(number);
        Ok(NO_LENGTH)
    }
}

impl ByteBuf for Doubting {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.withheld = None;
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::{
        messages::{
            ApiVersionsRequest, DescribeGroupsRequest, FetchRequest, JoinGroupRequest,
            MetadataRequest,
        },
        protocol::{Encodable, StrBytes},
    };

    use super::*;

    fn error<Q: Decodable + std::fmt::Debug>(body: &[u8], version: i16) -> String {
        decode::<Q>(&Bytes::copy_from_slice(body), version).unwrap_err()
    }

    #[test]
    fn arrays_that_claim_more_than_there_is_are_refused() {
        let mut claim = i32::MAX.to_be_bytes().to_vec();
        let claims = "a length of 2147483647 is claimed where 0 bytes are left";
        assert_eq!(error::<MetadataRequest>(&claim, 1), claims);
        claim.push(0);
        let claims = "a length of 2147483647 is claimed where 1 bytes are left";
        assert_eq!(error::<DescribeGroupsRequest>(&claim, 0), claims);
        for claim in [
            &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0x80, 0x80, 0x80, 0x80, 0x0f],
            &[9, 1, 1, 1],
        ] {
            let found = error::<MetadataRequest>(claim, 9);
            assert!(found.contains("Not enough bytes remaining"), "{claim:?}: {found}");
        }
    }

    /// A byte before a varint that looks like the begin of one does not hide what it claims.
    #[test]
    fn nothing_hides_a_claim() {
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
        for length in 0..4 {
            let mut doubting =
                Doubting::new(Bytes::from([&vec![0x80; length][..], &claim].concat()));
            let read = (0..length + claim.len()).map(|_| doubting.try_get_u8());
            assert!(read.collect::<Result<Vec<_>, _>>().is_err(), "{length}");
        }
        let mut doubting = Doubting::new(Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x0f]));
        assert!((0..4).map(|_| doubting.try_get_u8()).any(|byte| byte.is_err()));
    }

    #[test]
    fn what_is_no_length_may_be_as_large_as_it_likes() {
        let version = FetchRequest::default().with_max_bytes(i32::MAX).with_max_wait_ms(i32::MAX);
        let mut body = BytesMut::new();
        version.encode(&mut body, 12).unwrap();
        let read: FetchRequest = decode(&body.freeze(), 12).unwrap();
        assert_eq!((read.max_bytes, read.max_wait_ms), (i32::MAX, i32::MAX));
        let join = JoinGroupRequest::default()
            .with_session_timeout_ms(i32::MAX)
            .with_group_id(StrBytes::from_static_str("g").into());
        for version in [0, 5, 9] {
            let mut body = BytesMut::new();
            join.encode(&mut body, version).unwrap();
            let read: JoinGroupRequest = decode(&body.freeze(), version).unwrap();
            assert_eq!(read.session_timeout_ms, i32::MAX, "{version}");
        }
    }

    #[test]
    fn what_is_whole_is_read_as_before() {
        let name = StrBytes::from_string("x".repeat(300));
        let whole = ApiVersionsRequest::default().with_client_software_name(name);
        let mut body = BytesMut::new();
        whole.encode(&mut body, 3).unwrap();
        body.put_u8(0);
        assert_eq!(decode::<ApiVersionsRequest>(&body.freeze(), 3), Ok(whole));
    }
}
