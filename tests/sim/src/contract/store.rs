//! What every [`StateStore`] must do.
//!
//! The checks panic where a store does something else. A [`Home`] makes the stores under test; each
//! check gets a new one.

#![allow(clippy::unwrap_used, reason = "it is a test, that others call")]

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use sidestream_core::{
    column::Column,
    record::{Changes, TopicId},
    task::{Entries, InputPosition, Position, Scan, StateStore, StorePosition},
};

/// How many stores the task under test has.
pub const STORES: usize = 2;

/// Where the state of one task under test lives.
pub trait Home {
    /// Opens it, with [`STORES`] stores. The last one opened was dropped before.
    fn open(&mut self) -> Box<dyn StateStore>;

    /// Ends the process that had it open, and starts another. It was dropped before.
    fn restart(&mut self);

    /// Whether state outlives the process.
    fn is_persistent(&self) -> bool;
}

/// Runs the whole suite; `home` makes a new, empty place for each check.
pub fn check_all<H: Home>(mut home: impl FnMut() -> H) {
    a_new_store_is_empty(&mut home());
    what_was_applied_is_read(&mut home());
    the_last_change_counts(&mut home());
    stores_are_apart(&mut home());
    positions_are_kept(&mut home());
    scans_keep_to_their_bounds(&mut home());
    scans_keep_to_their_limits(&mut home());
    odd_keys_and_values_are_kept(&mut home());
    it_does_what_a_map_does(&mut home());
    reset_empties_one_store(&mut home());
    reset_outlives_the_process(&mut home());
    a_store_can_be_filled_after_a_reset(&mut home());
    it_is_the_same_after_it_was_given_back(&mut home());
    it_outlives_the_process_or_is_empty(&mut home());
}

fn a_new_store_is_empty(home: &mut impl Home) {
    let store = home.open();
    for index in 0..STORES {
        assert_eq!(store.get(index, b"a").unwrap(), None);
        assert_eq!(store.get_many(index, &keys(&["a", "b"])).unwrap(), values(&[None, None]));
        assert_eq!(store.scan(index, &all()).unwrap(), Entries::default());
    }
    assert_eq!(store.position().unwrap().stores, vec![None; STORES]);
}

fn what_was_applied_is_read(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("1")), ("b", Some("")), ("c", Some("3"))], 1);
    assert_eq!(store.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.get(0, b"b").unwrap().as_deref(), Some(&b""[..]), "empty is not absent");
    let asked = keys(&["c", "x", "b", "c", "a"]);
    let found = values(&[Some("3"), None, Some(""), Some("3"), Some("1")]);
    assert_eq!(
        store.get_many(0, &asked).unwrap(),
        found,
        "in the order of the keys, doubled ones too"
    );
    assert_eq!(store.get_many(0, &Column::default()).unwrap(), Column::default());
    apply(&mut *store, 0, &[("a", None), ("x", None), ("c", Some("4"))], 2);
    assert_eq!(listed(&*store, 0, &all()), [("b", ""), ("c", "4")]);
}

fn the_last_change_counts(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("1")), ("a", None), ("b", None), ("b", Some("2"))], 1);
    assert_eq!(listed(&*store, 0, &all()), [("b", "2")]);
}

fn stores_are_apart(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0"))], 1);
    apply(&mut *store, 1, &[("a", Some("1")), ("b", Some("1"))], 2);
    apply(&mut *store, 0, &[("b", None)], 3);
    assert_eq!(listed(&*store, 0, &all()), [("a", "0")]);
    assert_eq!(listed(&*store, 1, &all()), [("a", "1"), ("b", "1")]);
}

fn positions_are_kept(home: &mut impl Home) {
    let mut store = home.open();
    for offset in [1, 7, 5] {
        let mut position = position(offset);
        position.stores[1] = None;
        store.apply(&vec![Changes::default(); STORES], &position).unwrap();
        assert_eq!(store.position().unwrap(), position);
    }
}

fn scans_keep_to_their_bounds(home: &mut impl Home) {
    use Bound::{Excluded, Included, Unbounded};
    let mut store = home.open();
    let letters = ["", "a", "a\0", "ab", "b", "c"];
    let writes: Vec<_> = letters.iter().map(|&letter| (letter, Some(letter))).collect();
    apply(&mut *store, 0, &writes, 1);
    let bound = |kind: u8, key: &str| match kind {
        0 => Unbounded,
        1 => Included(key.as_bytes().to_vec()),
        _ => Excluded(key.as_bytes().to_vec()),
    };
    for (from_kind, to_kind, reverse) in combinations() {
        for from in letters.iter().chain(&["aa", "z"]) {
            for to in letters.iter().chain(&["aa", "z"]) {
                let scan =
                    Scan { from: bound(from_kind, from), to: bound(to_kind, to), reverse, ..all() };
                let mut expected: Vec<_> = letters
                    .iter()
                    .filter(|key| is_within(key.as_bytes(), &scan))
                    .map(|&key| (key, key))
                    .collect();
                if reverse {
                    expected.reverse();
                }
                assert_eq!(listed(&*store, 0, &scan), expected, "{scan:?}");
            }
        }
    }
}

fn combinations() -> impl Iterator<Item = (u8, u8, bool)> {
    (0..3).flat_map(|from| (0..3).flat_map(move |to| [(from, to, false), (from, to, true)]))
}

fn scans_keep_to_their_limits(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("11")), ("b", Some("22")), ("c", Some("33"))], 1);
    let check = |limit, bytes_max, reverse, expected: &[&str], more| {
        let scan = Scan { limit, bytes_max, reverse, ..all() };
        let entries = store.scan(0, &scan).unwrap();
        let found: Vec<_> = entries.keys.iter().map(Option::unwrap).collect();
        let expected: Vec<_> = expected.iter().map(|key| key.as_bytes()).collect();
        assert_eq!((found, entries.more), (expected, more), "{scan:?}");
        assert_eq!(entries.keys.len(), entries.values.len());
    };
    check(0, 1000, false, &[], true);
    check(2, 1000, false, &["a", "b"], true);
    check(3, 1000, false, &["a", "b", "c"], false);
    check(4, 1000, true, &["c", "b", "a"], false);
    check(2, 1000, true, &["c", "b"], true);
    check(9, 6, false, &["a", "b"], true);
    check(9, 5, false, &["a"], true);
    check(9, 9, false, &["a", "b", "c"], false);
    check(9, 0, false, &["a"], true);
    check(9, 0, true, &["c"], true);
}

fn odd_keys_and_values_are_kept(home: &mut impl Home) {
    let mut store = home.open();
    let large = vec![0xa5; 1 << 20];
    let keys =
        [vec![], vec![0], vec![0, 0], vec![0xff; 3], vec![0x80; 2_000], b"position".to_vec()];
    let mut changes = vec![Changes::default(); STORES];
    for key in &keys {
        changes[0].keys.push(Some(key));
        changes[0].values.push(Some(&large));
    }
    store.apply(&changes, &position(1)).unwrap();
    for key in &keys {
        assert!(store.get(0, key).unwrap().as_deref() == Some(&large), "{} bytes", key.len());
    }
    let mut sorted = keys.to_vec();
    sorted.sort();
    let entries = store.scan(0, &all()).unwrap();
    assert!(entries.keys.iter().map(Option::unwrap).eq(sorted.iter().map(Vec::as_slice)));
    assert_eq!(store.position().unwrap(), position(1));
}

fn it_does_what_a_map_does(home: &mut impl Home) {
    let mut random = Random(42);
    let mut store = home.open();
    let mut model = vec![BTreeMap::new(); STORES];
    for round in 1..200 {
        let mut changes = vec![Changes::default(); STORES];
        for _ in 0..random.below(12) {
            let index = random.below(STORES);
            let key = random.key();
            let value = (random.below(3) > 0).then(|| round.to_string().into_bytes());
            changes[index].keys.push(Some(&key));
            changes[index].values.push(value.as_deref());
            match value {
                Some(value) => model[index].insert(key, value),
                None => model[index].remove(&key),
            };
        }
        store.apply(&changes, &position(round)).unwrap();
        compare(&*store, &model, &mut random);
        if round % 50 == 0 {
            store.flush().unwrap();
            drop(store);
            store = home.open();
            assert_eq!(store.position().unwrap(), position(round));
        }
    }
}

fn compare(store: &dyn StateStore, model: &[BTreeMap<Vec<u8>, Vec<u8>>], random: &mut Random) {
    for (index, model) in model.iter().enumerate() {
        let key = random.key();
        assert_eq!(store.get(index, &key).unwrap().as_ref(), model.get(&key));
        let asked: Vec<_> = (0..5).map(|_| random.key()).collect();
        let column: Column = asked.iter().map(|key| Some(key.as_slice())).collect();
        let expected: Column = asked.iter().map(|key| model.get(key).map(Vec::as_slice)).collect();
        assert_eq!(store.get_many(index, &column).unwrap(), expected);
        let scan = Scan {
            from: Bound::Included(random.key()),
            to: Bound::Excluded(random.key()),
            reverse: random.below(2) == 0,
            limit: random.below(20),
            bytes_max: 1 << 20,
            time_max: Duration::MAX,
        };
        let mut expected: Vec<_> = model.iter().filter(|(key, _)| is_within(key, &scan)).collect();
        if scan.reverse {
            expected.reverse();
        }
        let found = store.scan(index, &scan).unwrap();
        assert_eq!(found.more, expected.len() > scan.limit, "{scan:?}");
        let pairs = expected.into_iter().take(scan.limit);
        let (keys, values): (Vec<_>, Vec<_>) =
            pairs.map(|(k, v)| (Some(k.as_slice()), Some(v.as_slice()))).unzip();
        assert_eq!(found.keys, keys.into_iter().collect::<Column>(), "{scan:?}");
        assert_eq!(found.values, values.into_iter().collect::<Column>(), "{scan:?}");
    }
}

fn reset_empties_one_store(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0"))], 1);
    apply(&mut *store, 1, &[("a", Some("1"))], 2);
    store.reset(0).unwrap();
    assert_eq!(store.get(0, b"a").unwrap(), None);
    assert!(listed(&*store, 0, &all()).is_empty());
    assert_eq!(listed(&*store, 1, &all()), [("a", "1")]);
    let stores = store.position().unwrap().stores;
    assert_eq!((&stores[0], &stores[1]), (&None, &position(2).stores[1]));
    store.reset(0).unwrap();
}

fn reset_outlives_the_process(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0"))], 1);
    store.flush().unwrap();
    store.reset(0).unwrap();
    drop(store);
    home.restart();
    let store = home.open();
    assert_eq!(store.get(0, b"a").unwrap(), None);
    assert_eq!(store.position().unwrap().stores[0], None);
}

fn a_store_can_be_filled_after_a_reset(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0")), ("b", Some("0"))], 1);
    store.reset(0).unwrap();
    apply(&mut *store, 0, &[("b", Some("1"))], 2);
    assert_eq!(listed(&*store, 0, &all()), [("b", "1")]);
    assert_eq!(store.position().unwrap(), position(2));
}

fn it_is_the_same_after_it_was_given_back(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0"))], 1);
    store.flush().unwrap();
    drop(store);
    let store = home.open();
    assert_eq!(listed(&*store, 0, &all()), [("a", "0")]);
    assert_eq!(store.position().unwrap(), position(1));
}

fn it_outlives_the_process_or_is_empty(home: &mut impl Home) {
    let mut store = home.open();
    apply(&mut *store, 0, &[("a", Some("0")), ("b", Some("0"))], 1);
    apply(&mut *store, 1, &[("a", Some("1"))], 2);
    apply(&mut *store, 0, &[("b", None)], 3);
    store.flush().unwrap();
    drop(store);
    home.restart();
    let mut store = home.open();
    if home.is_persistent() {
        assert_eq!(listed(&*store, 0, &all()), [("a", "0")]);
        assert_eq!(listed(&*store, 1, &all()), [("a", "1")]);
        assert_eq!(store.position().unwrap(), position(3));
    } else {
        assert!(listed(&*store, 0, &all()).is_empty());
        assert!(listed(&*store, 1, &all()).is_empty());
        assert_eq!(store.position().unwrap().stores, vec![None; STORES]);
    }
    apply(&mut *store, 0, &[("c", Some("2"))], 4);
    assert_eq!(store.get(0, b"c").unwrap().as_deref(), Some(&b"2"[..]));
}

fn position(offset: i64) -> Position {
    let store = StorePosition { offset, topic_id: TopicId([9; 16]), leader_epoch: 2 };
    Position {
        stores: vec![Some(store); STORES],
        inputs: vec![InputPosition { offset: offset * 10, topic_id: TopicId([5; 16]) }],
        committed_at: offset * 1_000,
    }
}

fn apply(store: &mut dyn StateStore, index: usize, writes: &[(&str, Option<&str>)], offset: i64) {
    let mut changes = vec![Changes::default(); STORES];
    for (key, value) in writes {
        changes[index].keys.push(Some(key.as_bytes()));
        changes[index].values.push(value.map(str::as_bytes));
    }
    store.apply(&changes, &position(offset)).unwrap();
}

fn keys(keys: &[&str]) -> Column {
    keys.iter().map(|key| Some(key.as_bytes())).collect()
}

fn values(values: &[Option<&str>]) -> Column {
    values.iter().map(|value| value.map(str::as_bytes)).collect()
}

fn all() -> Scan {
    Scan {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        reverse: false,
        limit: usize::MAX,
        bytes_max: usize::MAX,
        time_max: Duration::MAX,
    }
}

/// All that a scan finds, as text. It must not be cut short.
fn listed(store: &dyn StateStore, index: usize, scan: &Scan) -> Vec<Pair> {
    let text = |row: Option<&[u8]>| String::from_utf8(row.expect("never null").to_vec()).unwrap();
    let entries = store.scan(index, scan).unwrap();
    assert!(!entries.more);
    entries.keys.iter().zip(&entries.values).map(|(k, v)| Pair(text(k), text(v))).collect()
}

/// A key and its value.
#[derive(Debug)]
struct Pair(String, String);

impl PartialEq<(&str, &str)> for Pair {
    fn eq(&self, &(key, value): &(&str, &str)) -> bool {
        self.0 == key && self.1 == value
    }
}

fn is_within(key: &[u8], scan: &Scan) -> bool {
    let from = match &scan.from {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    };
    from && match &scan.to {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    }
}

/// A small generator of random numbers (splitmix64): the suite does the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound as u64).expect("below a usize")
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{:02}", self.below(40)).into_bytes()
    }
}
