//! A desk without workers' threads: what it says is what its board and stores have.

use sidestream_core::{
    record::TopicIndex,
    task::FailureKind,
    topology::{Store, Subtopology, Topology},
};
use tempfile::TempDir;

use super::*;
use crate::{state, telemetry::metrics::Metrics};

/// A running agent with one worker, two tasks of the store `counts` in all, and none of them here.
fn desk(folder: &TempDir) -> Desk {
    let board = Board::new(Arc::new(Metrics::new(1, ["count"])), Arc::default());
    let store = Store { name: "counts".to_owned(), changelog: TopicIndex(0) };
    let subtopology = Subtopology { partitions: 2, stores: vec![store], ..Subtopology::default() };
    let topology = Topology { subtopologies: vec![subtopology], ..Topology::default() };
    let (board, stop) = (Arc::new(board), Stop::default());
    let topology = Arc::new(topology);
    let swapper = Swapper::without_code(folder.path(), &board, &stop, &topology);
    let running = Running { topology, swapper };
    let config = state::Config::new(folder.path(), "application");
    Desk {
        application: "application".to_owned(),
        started_at_ms: 0,
        leave_on_stop: false,
        board,
        stop,
        stores: Stores::open_directory(&config).unwrap(),
        transforms: vec![("count".to_owned(), "count.wasm".into(), vec!["counts".to_owned()])],
        running: OnceLock::from(running),
    }
}

fn check_elsewhere(refusal: &Refusal, parts: &[&str]) {
    let Refusal::NotFound(message) = refusal else { panic!("{refusal:?}") };
    for part in parts.iter().chain(&["of the application", "`sidestream status` tells"]) {
        assert!(message.contains(part), "no `{part}` in: {message}");
    }
}

#[test]
fn state_that_is_elsewhere_is_told_with_whom_to_ask() {
    let folder = TempDir::new().unwrap();
    let desk = desk(&folder);
    let keys = [b"key".to_vec()];
    let task = desk.get("counts", 1, &keys).unwrap_err();
    check_elsewhere(&task, &["task 0_1", "`counts`", "at another agent", "ask that one"]);
    let all = desk.partitions("counts").unwrap_err();
    check_elsewhere(&all, &["no task", "`counts`", "at other agents"]);
    let Err(Refusal::NotFound(message)) = desk.get("absent", 1, &keys) else {
        panic!("there is no such store")
    };
    assert_eq!(message, "there is no store `absent`; there are: counts");
}

#[test]
fn the_status_has_what_each_transform_came_to() {
    let folder = TempDir::new().unwrap();
    let desk = desk(&folder);
    let metrics = desk.board.metrics.transform("count").unwrap();
    let took = Duration::from_millis(1_500);
    (0..2).for_each(|_| metrics.call(40, took, took));
    metrics.failure(FailureKind::Trap);
    metrics.failure(FailureKind::Reject);
    metrics.passed_over(FailureKind::Reject, false, 3);
    metrics.passed_over(FailureKind::Trap, true, 4);
    metrics.passed_over(FailureKind::Reject, true, 1);
    let [of] = desk.status().transforms.try_into().unwrap();
    assert_eq!((of.records, of.failures, of.cpu_ms), (80, 2, 3_000));
    assert_eq!((of.skipped, of.dead_lettered), (3, 5));
}
