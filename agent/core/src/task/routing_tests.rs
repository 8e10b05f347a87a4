use super::{super::fuzz, *};

/// A key's partition may be left to it or be said; what comes last is what stays.
#[test]
fn the_last_record_of_a_key_is_held_back_however_its_partition_is_said() {
    let topology = fuzz::topology(true);
    let own = partitioner::partition(b"k", topology.topics[0].partitions);
    let (mut produced, mut latest) = (Produced::default(), Latest::default());
    let mut destinations = Destinations {
        topology: &topology,
        subtopology: &topology.subtopologies[0],
        inboxes: &mut [],
        roots: &Roots::default(),
        produced: &mut Produced::default(),
        latest: &mut latest,
        stream_time: 0,
    };
    let row = |key, value| Row {
        offset: 0,
        timestamp: 0,
        timestamp_type: 0,
        key: Some(key),
        value: Some(value),
        headers: &[],
    };
    let key: &[u8] = b"k";
    for (partition, value) in [(own, b"1"), (PARTITION_BY_KEY, b"2"), (own, b"3"), (own + 1, b"4")]
    {
        destinations.hold_back(TopicIndex(0), partition, &row(key, value), Doer::letter(0, None));
    }
    append_latest(&latest, &mut produced);
    let values: Vec<_> = produced.outputs.values.iter().flatten().collect();
    assert_eq!(values, [b"3", b"4"]);
    assert_eq!(produced.outputs.partitions, [own, own + 1]);
}

#[test]
fn no_two_records_have_the_same_origin() {
    let roots = Roots {
        inputs: vec![0, 1],
        offsets: vec![7, 7],
        timestamps: vec![1, 1],
        ..Roots::default()
    };
    let record =
        Row { offset: 7, timestamp: 1, timestamp_type: 0, key: None, value: None, headers: &[] };
    let origins = |roots: &Roots, of: &[i32]| -> Vec<Origin> {
        let mut inbox = Inbox::default();
        of.iter().for_each(|&root| inbox.push(0, root, &record));
        inbox.sort();
        (0..of.len()).map(|row| inbox.part(&(row..row + 1), roots).batch.origin).collect()
    };
    let due = |time| DueCall { transform: 2, index: 1, time };
    let mut all = origins(&roots, &[1, 0, 1, 0, 0]);
    all.extend(origins(&Roots::none(5, &due(5)), &[NO_CAUSE; 2]));
    all.extend(origins(&Roots::none(5, &due(6)), &[NO_CAUSE; 2]));
    for (place, origin) in all.iter().enumerate() {
        assert!(!all[..place].contains(origin), "{origin:?}");
    }
    assert_eq!(all[1], Origin { sibling: 1, offset: 7, ..Origin::default() });
}
