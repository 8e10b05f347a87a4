//! Which partition the key of a record belongs to, by Kafka's usual hash.

/// The partition of a key among `partitions`, as Java's clients and this agent's producers choose it
/// (`murmur2`).
#[must_use]
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    let hash = murmur2(key) & 0x7FFF_FFFF;
    let partitions = u32::try_from(partitions).unwrap_or(0).max(1);
    i32::try_from(hash % partitions).expect("less than an i32")
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5BD1_E995;
    let mix = |word: u32| {
        let word = word.wrapping_mul(M);
        (word ^ word >> 24).wrapping_mul(M)
    };
    // The length of a key fits: no record is larger.
    let mut hash = 0x9747_B28C ^ u32::try_from(key.len()).unwrap_or(u32::MAX);
    let (words, rest) = key.as_chunks();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        for (byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Apache Kafka's own tests expect of `Utils.murmur2`.
    #[test]
    fn keys_are_hashed_as_kafka_does() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn every_key_has_a_partition() {
        for key in [&b""[..], b"a", b"foobar"] {
            assert!((0..3).contains(&partition(key, 3)));
            assert_eq!(partition(key, 1), 0);
        }
    }
}
