//! What a fuzzer asks of this room; the test of the corpus asks the same of what was found.

use std::collections::BTreeSet;

use super::position::{StoredPosition, decode, encode};

/// Takes `data` for a position as a task's database has it.
///
/// Panics if one that can be read is not written as it was, and if a refusal has no reason.
pub fn position(data: &[u8]) {
    let stored = match decode(data) {
        Ok(stored) => stored,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal has a reason");
            return;
        }
    };
    let stores: Vec<_> = stored.stores.iter().map(|(name, _)| name.as_str()).collect();
    let inputs: Vec<_> = stored.inputs.iter().map(|(name, _)| name.clone()).collect();
    let position = stored.of(&stores, &inputs);
    assert_eq!((position.stores.len(), position.inputs.len()), (stores.len(), inputs.len()));
    let written = encode(&position, stores.iter().map(|name| (*name, true)), &inputs);
    // Of stores or inputs with the same name, which nobody writes, the first one counts. What an older
    // agent wrote, which its first byte tells, is written anew.
    let is_current = data.first() == written.first();
    let are_distinct = stores.iter().collect::<BTreeSet<_>>().len() == stores.len()
        && inputs.iter().collect::<BTreeSet<_>>().len() == inputs.len();
    if is_current && are_distinct {
        assert_eq!(written, data, "a position is written in one way");
    }
    let again = decode(&written).expect("what was written can be read");
    assert_eq!(again.of(&stores, &inputs), position);
    check_others(&stored, &stores, &inputs);
}

/// What another pipeline takes of it.
fn check_others(stored: &StoredPosition, stores: &[&str], inputs: &[String]) {
    let more: Vec<_> = stores.iter().copied().chain(["another"]).rev().collect();
    let other = stored.of(&more, &inputs[..inputs.len().saturating_sub(1)]);
    assert_eq!(other.stores.len(), more.len());
    assert!(other.inputs.len() < inputs.len() || inputs.is_empty());
    let kept = encode(&other, more.iter().map(|name| (*name, false)), &[]);
    let kept = decode(&kept).expect("what was written can be read");
    assert_eq!(kept, StoredPosition { committed_at: stored.committed_at, ..Default::default() });
}
