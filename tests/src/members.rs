//! Who has which partitions, as the group's coordinator says it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::Consumer;

use crate::topics;

/// Partitions by topic.
pub type Partitions = BTreeMap<String, Vec<i32>>;

/// The members of a group and their partitions, by member id. A static member's id begins with its
/// group instance id.
pub fn assignments(bootstrap: &str, group: &str) -> Result<BTreeMap<String, Partitions>> {
    let groups = topics::reader(bootstrap, group)?
        .fetch_group_list(Some(group), Duration::from_secs(10))
        .context("can't ask for the group")?;
    let members = groups.groups().iter().flat_map(|group| group.members());
    let assigned = members.map(|member| {
        let bytes = member.assignment().unwrap_or_default();
        Ok((member.id().to_owned(), parse(bytes)?))
    });
    assigned.collect()
}

/// Kafka's `ConsumerProtocolAssignment`: a version, then for each topic its name and partitions.
fn parse(mut bytes: &[u8]) -> Result<Partitions> {
    let mut partitions = Partitions::new();
    if bytes.is_empty() {
        // A member that the rebalance has not reached yet.
        return Ok(partitions);
    }
    take(&mut bytes, 2)?;
    for _ in 0..integer(&mut bytes)? {
        let length: [u8; 2] = take(&mut bytes, 2)?.try_into()?;
        let name = take(&mut bytes, usize::try_from(i16::from_be_bytes(length))?)?;
        let name = std::str::from_utf8(name)?.to_owned();
        let count = integer(&mut bytes)?;
        let list: Result<Vec<_>> = (0..count).map(|_| integer(&mut bytes)).collect();
        partitions.insert(name, list?);
    }
    Ok(partitions)
}

fn integer(bytes: &mut &[u8]) -> Result<i32> {
    let four: [u8; 4] = take(bytes, 4)?.try_into()?;
    Ok(i32::from_be_bytes(four))
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
    ensure!(bytes.len() >= count, "an assignment ends early");
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read() {
        let bytes = b"\0\x01\0\0\0\x01\0\x02in\0\0\0\x02\0\0\0\0\0\0\0\x03\xff\xff\xff\xff";
        assert_eq!(parse(bytes).unwrap(), Partitions::from([("in".to_owned(), vec![0, 3])]));
        assert!(parse(&bytes[..12]).is_err());
        assert!(parse(b"").unwrap().is_empty());
    }
}
