//! Many tasks, several workers, one budget.

use std::{fs, time::Duration};

use sidestream::state::{Config, Stores};
use sidestream_core::{
    record::{Changes, TaskId},
    task::StoreError,
};

use crate::{
    TASK, agent, check_counts, config, count, counting_stores, offset, open, position, stores_named,
};

fn task(partition: i32) -> TaskId {
    TaskId { subtopology: 1, partition }
}

#[test]
fn a_task_is_lent_to_one_worker_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(folder.path());
    let mut first = open(&agent);
    count(&mut *first.store, 0).unwrap();
    assert_eq!(agent.open(TASK, &counting_stores()).unwrap_err(), StoreError::Busy);
    let holder = std::thread::spawn(move || drop(first));
    holder.join().unwrap();
    let second = open(&agent);
    assert_eq!(offset(&*second.store), 1);
    check_counts(&*second.store).unwrap();
}

#[test]
fn what_was_given_back_stays_open_up_to_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { kept_open_max: 3, ..config(folder.path()) };
    let agent = Stores::open_directory(&config).unwrap();
    for partition in 0..5 {
        let opened = agent.open(task(partition), &counting_stores()).unwrap();
        agent.close(opened.store);
        assert!(agent.usage().kept_tasks <= 3);
    }
    assert_eq!((agent.usage().kept_tasks, agent.usage().lent_tasks), (3, 0));
    // One that is closed for good opens again.
    let opened = agent.open(task(0), &counting_stores()).unwrap();
    assert_eq!(agent.usage().lent_tasks, 1);
    drop(opened);
}

#[test]
fn what_was_given_back_is_closed_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { kept_open_time_max: Duration::ZERO, ..config(folder.path()) };
    let agent = Stores::open_directory(&config).unwrap();
    drop(open(&agent));
    assert_eq!(agent.usage().kept_tasks, 0);
    drop(open(&agent));
}

#[test]
fn the_state_of_an_application_stays_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    for application in ["../up", "a/b", ".", "..", "lock", "größe"] {
        let agent = Stores::open_directory(&Config::new(folder.path(), application)).unwrap();
        drop(open(&agent));
    }
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let applications = ["%2E", "%2E.", "%2E.%2Fup", "%lock", "a%2Fb"];
    let others = ["format", "gr%C3%B6%C3%9Fe", "identity", "lock"];
    assert_eq!(names, [&applications[..], &others].concat());
}

#[test]
fn two_hundred_tasks_keep_to_one_budget() {
    const BUDGET: usize = 32 << 20;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { memory_bytes_max: BUDGET, ..config(folder.path()) };
    let agent = Stores::open_directory(&config).unwrap();
    let stores = stores_named(&["counts"]);
    let mut opened: Vec<_> =
        (0..200).map(|partition| agent.open(task(partition), &stores).unwrap()).collect();
    let value = vec![7; 1_000];
    // All tasks write at first, then only a few.
    for round in 0..100i64 {
        let writing = if round < 12 { opened.len() } else { 20 };
        for opened in opened.iter_mut().take(writing) {
            let mut changes = Changes::default();
            for key in 0..10i64 {
                changes.keys.push(Some(&(round * 10 + key).to_be_bytes()));
                changes.values.push(Some(&value));
            }
            opened.store.apply(&[changes], &position(round, 1)).unwrap();
        }
        let usage = agent.usage();
        assert!(usage.memtable_bytes < BUDGET / 3, "{usage:?}");
        assert!(usage.cache_bytes < BUDGET + (BUDGET / 8), "{usage:?}");
    }
    for opened in &opened {
        assert_eq!(opened.store.get(0, &5i64.to_be_bytes()).unwrap().as_deref(), Some(&value[..]));
    }
}
