//! What a fuzzer asks of a task's vocabulary; the test of the corpus asks the same of what was found.

use std::time::Duration;

use crate::{
    record::{
        Batch, Emits, Headers, NO_TIMESTAMP, Records, TIMESTAMP_MAX, Timestamp, TopicId, TopicIndex,
    },
    task::{
        Clock, Mark, Produced, Schedule, read_seen,
        routing::{self, Destinations, Inbox, Latest, Roots},
        time::TaskTime,
    },
    topology::{
        ErrorPolicy, Input, OnOutOfRange, Output, Reader, Route, Start, Subtopology, Topic,
        TopicKind, Topology, Transform,
    },
};

/// How many inputs a task has here.
const INPUTS: usize = 2;

/// How many transforms it has.
const TRANSFORMS: usize = 3;

/// Takes `data` for what stands beside the committed offsets of a task's inputs, one in a line, where
/// anybody may have committed anything.
///
/// Panics if a task could not go on from there: if its times are not written as they were read, if a
/// punctuation comes before it is due or without end, or none any more.
pub fn metadata(data: &[u8]) {
    check_seen(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    lines.clone().for_each(check_mark);
    let mut time = TaskTime::new(INPUTS);
    for input in 0..INPUTS {
        time.decode(input, TRANSFORMS, lines.next().unwrap_or_default());
    }
    assert!((NO_TIMESTAMP..=TIMESTAMP_MAX).contains(&time.stream_time()));
    check_written(&time);
    for now in [0, 1_700_000_000_000, time.stream_time(), Timestamp::MAX - 1] {
        for clock in [Clock::StreamTime, Clock::WallClock] {
            check_due(time.clone(), clock, now);
        }
        check_schedules(time.clone(), now);
    }
}

/// What a changelog says of inputs is written again as it was read.
fn check_seen(data: &[u8]) {
    for (name, position) in read_seen(data) {
        let id = u128::from_be_bytes(position.topic_id.0);
        let written = format!("1;{name},{},{id:032x}", position.offset);
        assert_eq!(read_seen(written.as_bytes()), [(name, position)]);
    }
}

/// A mark says the same wherever it stands, and nothing against topics of which no id is known.
fn check_mark(text: &str) {
    let mark = Mark::read(text);
    assert!(!mark.is_of_another("store", TopicId::default()), "{text}");
    let mark_alone = text.split(';').find(|field| field.split(',').next() == Some("of1"));
    assert_eq!(Mark::read(mark_alone.unwrap_or_default()), mark);
}

fn check_written(time: &TaskTime) {
    let mut again = TaskTime::new(INPUTS);
    for input in 0..INPUTS {
        let text = time.encode(input);
        assert!(text.is_ascii() && text.len() <= time.encoded_bytes_max(), "{text}");
        again.decode(input, TRANSFORMS, &text);
    }
    assert_eq!(&again, time);
}

/// Each schedule comes once at most for a moment.
fn check_due(mut time: TaskTime, clock: Clock, now: Timestamp) {
    let schedules = time.encode(0).matches(';').count();
    for _ in 0..schedules {
        let Some(due) = time.take_due(clock, now) else { break };
        assert!(due.time <= now && due.transform < TRANSFORMS, "{due:?} at {now}");
        check_written(&time);
    }
    assert_eq!(time.take_due(clock, now), None, "at {now}");
    // While there is no time, nothing is due.
    let is_later = time.next(clock).is_none_or(|next| next > now);
    assert!(is_later || now == NO_TIMESTAMP, "{time:?} at {now}");
}

/// Whatever was committed, what a module asks for comes within its interval.
fn check_schedules(mut time: TaskTime, now: Timestamp) {
    let every = |clock, ms| Schedule { clock, interval: Duration::from_millis(ms) };
    let asked = [every(Clock::WallClock, 100), every(Clock::StreamTime, 1_000)];
    time.schedule(1, &asked, now);
    let (wall, stream) = (time.next(Clock::WallClock), time.next(Clock::StreamTime));
    assert!(wall.is_some_and(|next| next <= now.saturating_add(100)) || now > TIMESTAMP_MAX);
    assert!(stream.is_some_and(|next| next <= time.stream_time().max(0) + 1_000));
    check_written(&time);
}

/// How many partitions the topic has that [`routed`] sends to.
const PARTITIONS: i32 = 4;

/// Routes what a guest emitted for records, once it is seen to be sound: by its first output, which
/// stays in the task, and its second one, which goes to a topic of four partitions.
///
/// Panics if a record is lost, or a column left behind.
pub fn routed(records: &Records, emits: &Emits) {
    for hands_over in [false, true] {
        let topology = topology(hands_over);
        let subtopology = &topology.subtopologies[0];
        let checked = routing::check_partitions(&topology, &subtopology.transforms[0], emits);
        assert_eq!(checked.map_err(|failure| failure.message), Ok(()));
        let batch =
            Batch { inputs: vec![0; records.len()], records: records.clone(), ..Batch::default() };
        let roots = Roots::of_batch(&batch);
        let mut inboxes = [Inbox::default(), Inbox::default()];
        routing::distribute(subtopology, batch, &mut inboxes);
        let mut cause = std::mem::take(&mut inboxes[0]);
        cause.sort();
        let (mut produced, mut latest) = (Produced::default(), Latest::default());
        Destinations {
            topology: &topology,
            subtopology,
            inboxes: &mut inboxes,
            roots: &roots,
            produced: &mut produced,
            latest: &mut latest,
            stream_time: NO_TIMESTAMP,
        }
        .route(0, &cause, emits.clone());
        routing::append_latest(&latest, &mut produced);
        let handed_over = inboxes[1].len();
        inboxes[1].sort();
        check_produced(&produced);
        let sum = produced.outputs.len() + handed_over;
        assert!(if hands_over { sum <= emits.len() } else { sum == emits.len() }, "{sum} records");
    }
}

fn check_produced(produced: &Produced) {
    let Produced { outputs, origins } = produced;
    let columns = [outputs.keys.len(), outputs.values.len(), origins.len()];
    let lists = [outputs.partitions.len(), outputs.timestamps.len()];
    assert!(columns.iter().chain(&lists).all(|rows| *rows == outputs.len()), "{produced:?}");
    let Headers { counts, names, values } = &outputs.headers;
    assert!(counts.is_empty() || counts.len() == outputs.len(), "{counts:?}");
    let sum = counts.iter().map(|count| *count as usize).sum::<usize>();
    assert_eq!((names.len(), values.len()), (sum, sum));
}

/// A transform with two outputs, the second one to a topic; the first one to it too, or to another
/// transform, while the topic then gets the last record for each key alone.
pub(super) fn topology(hands_over: bool) -> Topology {
    let topic = TopicIndex(0);
    let to =
        |name: &str, route, latest_per_key| Output { name: name.into(), route, latest_per_key };
    let first = match hands_over {
        true => Route::Transforms(vec![Reader { transform: 1, input: 0 }]),
        false => Route::Topic(topic),
    };
    let transform = |name: &str, outputs| Transform {
        name: name.into(),
        inputs: vec!["input".into()],
        outputs,
        stores: Vec::new(),
        on_error: ErrorPolicy::default(),
    };
    let outputs = vec![to("first", first, false), to("second", Route::Topic(topic), hands_over)];
    let readers = vec![Reader { transform: 0, input: 0 }];
    Topology {
        topics: vec![Topic {
            name: "topic".into(),
            partitions: PARTITIONS,
            kind: TopicKind::External,
        }],
        subtopologies: vec![Subtopology {
            partitions: PARTITIONS,
            inputs: vec![Input {
                topic,
                start: Start::Earliest,
                on_out_of_range: OnOutOfRange::Fail,
                readers,
            }],
            transforms: vec![transform("from", outputs), transform("to", Vec::new())],
            stores: Vec::new(),
        }],
    }
}
