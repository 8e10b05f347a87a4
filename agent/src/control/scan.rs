//! Scans over several pages, and the tokens that lead from one to the next.

use std::ops::Bound;

use super::{Operator, Range, Refusal, proto};

/// The most entries of a page.
const ENTRIES_MAX: u32 = 1_000;
/// The entries of a page that does not say how many.
const ENTRIES: u32 = 100;
/// The most bytes of a page's keys and values, but for an entry that has more by itself.
const BYTES_MAX: usize = 1 << 20;

/// Where a page begins: in the task of a partition, maybe after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    partition: i32,
    after: Option<Vec<u8>>,
}

impl Token {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.partition.to_be_bytes().to_vec();
        if let Some(key) = &self.after {
            bytes.push(1);
            bytes.extend_from_slice(key);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let wrong = || {
            Refusal::Invalid(
                "the page token is not one of this service: begin again without one".to_owned(),
            )
        };
        let (partition, rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let after = match rest.split_first() {
            None => None,
            Some((1, key)) => Some(key.to_vec()),
            Some(_) => return Err(wrong()),
        };
        Ok(Self { partition: i32::from_be_bytes(*partition), after })
    }
}

/// Reads the page that is asked for.
pub(super) fn page(
    operator: &dyn Operator,
    request: proto::ScanRequest,
) -> Result<proto::ScanResponse, Refusal> {
    let proto::ScanRequest { store, partition, from, to, reverse, entries_max, page_token } =
        request;
    if entries_max > ENTRIES_MAX {
        return Err(Refusal::Invalid(format!("a page has at most {ENTRIES_MAX} entries")));
    }
    if reverse && partition.is_none() {
        return Err(Refusal::Invalid("name the partition to scan in reverse".to_owned()));
    }
    let partitions = match partition {
        Some(partition) => vec![partition],
        None => operator.partitions(&store)?,
    };
    let token = match page_token.is_empty() {
        true => None,
        false => Some(Token::decode(&page_token)?),
    };
    let first = token.as_ref().map_or(i32::MIN, |token| token.partition);
    let mut left = partitions.into_iter().filter(|partition| *partition >= first);
    let Some(partition) = left.next() else {
        return Err(Refusal::NotFound(format!(
            "no task with store `{store}` is here any more: begin again without a page token"
        )));
    };
    let after = token.filter(|token| token.partition == partition).and_then(|token| token.after);
    let mut range = Range {
        from: from.map_or(Bound::Unbounded, Bound::Included),
        to: to.map_or(Bound::Unbounded, Bound::Excluded),
        reverse,
        entries_max: if entries_max == 0 { ENTRIES } else { entries_max } as usize,
        bytes_max: BYTES_MAX,
    };
    match after {
        Some(key) if reverse => range.to = Bound::Excluded(key),
        Some(key) => range.from = Bound::Excluded(key),
        None => {}
    }
    let page = operator.scan(&store, partition, &range)?;
    let next = match (page.more, page.entries.last(), left.next()) {
        (true, Some(last), _) => Some(Token { partition, after: Some(last.key.clone()) }),
        (_, _, Some(partition)) => Some(Token { partition, after: None }),
        (_, _, None) => None,
    };
    Ok(proto::ScanResponse {
        position: Some(page.position),
        entries: page.entries,
        next_page_token: next.map(|token| token.encode()).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went_out() {
        for after in [None, Some(vec![]), Some(vec![0, 1, 255])] {
            let token = Token { partition: 7, after };
            assert_eq!(Token::decode(&token.encode()), Ok(token));
        }
        for wrong in [&[][..], &[0, 0, 0], &[0, 0, 0, 1, 2]] {
            let Err(Refusal::Invalid(message)) = Token::decode(wrong) else {
                panic!("{wrong:?} is no token")
            };
            assert!(message.contains("begin again without one"), "{message}");
        }
    }
}
