//! From when until when a certificate is valid: what the TLS library checks, and does not tell.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Tags of DER.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Validity {
    /// Reads it from a certificate in DER; nothing if that is not one.
    pub(super) fn of(mut certificate: &[u8]) -> Option<Self> {
        let (_, mut signed) = next(&mut certificate)?;
        let (_, mut fields) = next(&mut signed)?;
        // The version, which the oldest ones don't have, and the serial number.
        if next(&mut fields)?.0 == VERSION {
            next(&mut fields)?;
        }
        let (_algorithm, _issuer) = (next(&mut fields)?, next(&mut fields)?);
        let (_, mut times) = next(&mut fields)?;
        Some(Self { from: time(next(&mut times)?)?, until: time(next(&mut times)?)? })
    }
}

/// Takes the next value, with its tag, from a list of values.
fn next<'a>(values: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length], rest) = values.split_first_chunk()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Beyond these a certificate is larger than any file of one may be.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *values = rest;
    Some((tag, value))
}

fn time((tag, value): (u8, &[u8])) -> Option<Timestamp> {
    let digits = str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let century = match tag {
        // Years from 1950 to 2049.
        UTC_TIME if digits < "50" => "20",
        UTC_TIME => "19",
        GENERALIZED_TIME => "",
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%S", format!("{century}{digits}")).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate that signs itself, valid from one day until another, in PEM, with its key, and
    /// in DER.
    pub(in super::super) fn certificate(
        from: (i32, u8, u8),
        until: (i32, u8, u8),
    ) -> ([String; 2], Vec<u8>) {
        let mut of = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (of.not_before, of.not_after) =
            (date_time_ymd(from.0, from.1, from.2), date_time_ymd(until.0, until.1, until.2));
        let key = KeyPair::generate().unwrap();
        let signed = of.self_signed(&key).unwrap();
        ([signed.pem(), key.serialize_pem()], signed.der().to_vec())
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        for (from, until, told) in [
            ((1999, 1, 2), (2031, 12, 3), ["1999-01-02T00:00:00Z", "2031-12-03T00:00:00Z"]),
            ((2049, 12, 31), (2050, 1, 1), ["2049-12-31T00:00:00Z", "2050-01-01T00:00:00Z"]),
        ] {
            let (_, der) = certificate(from, until);
            let Validity { from, until } = Validity::of(&der).unwrap();
            assert_eq!([from, until].map(|time| time.to_string()), told);
            for length in 0..der.len() {
                assert_eq!(Validity::of(&der[..length]), None, "a part of it is none");
            }
        }
    }
}
