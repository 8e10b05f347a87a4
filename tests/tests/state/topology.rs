//! Stores that come and go with the pipeline.

use sidestream::state::{StoreKind, TaskStores};
use sidestream_core::{record::Changes, task::StateStore};

use crate::{TASK, agent, position, stores_named};

fn put(store: &mut dyn StateStore, values: &[&str], offset: i64) {
    let changes: Vec<_> = values
        .iter()
        .map(|value| Changes {
            keys: [Some(&b"key"[..])].into_iter().collect(),
            values: [Some(value.as_bytes())].into_iter().collect(),
        })
        .collect();
    store.apply(&changes, &position(offset, values.len())).unwrap();
}

fn get(store: &dyn StateStore, index: usize) -> Option<String> {
    store.get(index, b"key").unwrap().map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn stores_are_known_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    put(
        &mut *agent(folder.path()).open(TASK, &stores_named(&["a", "b"])).unwrap().store,
        &["1", "2"],
        5,
    );
    let store = agent(folder.path()).open(TASK, &stores_named(&["b", "new", "a"])).unwrap().store;
    let values: Vec<_> = (0..3).map(|index| get(&*store, index)).collect();
    assert_eq!(values, [Some("2".to_owned()), None, Some("1".to_owned())]);
    let stores = store.position().unwrap().stores;
    assert_eq!(stores, [position(5, 1).stores[0].clone(), None, position(5, 1).stores[0].clone()]);
}

#[test]
fn a_store_that_was_away_while_others_went_on_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    put(
        &mut *agent(folder.path()).open(TASK, &stores_named(&["a", "b"])).unwrap().store,
        &["1", "2"],
        5,
    );
    put(&mut *agent(folder.path()).open(TASK, &stores_named(&["a"])).unwrap().store, &["3"], 6);
    let store = agent(folder.path()).open(TASK, &stores_named(&["a", "b"])).unwrap().store;
    assert_eq!(get(&*store, 0).as_deref(), Some("3"));
    assert_eq!(get(&*store, 1), None);
    assert_eq!(store.position().unwrap().stores[1], None);
}

#[test]
fn nothing_is_seen_of_an_input_that_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let stores = stores_named(&["a"]);
    put(&mut *agent(folder.path()).open(TASK, &stores).unwrap().store, &["1"], 5);
    let others = TaskStores { inputs: vec!["other".to_owned()], ..stores.clone() };
    let inputs =
        |stores| agent(folder.path()).open(TASK, stores).unwrap().store.position().unwrap().inputs;
    assert_eq!(inputs(&others), [0.into()]);
    assert_eq!(inputs(&stores), [5.into()]);
}

#[test]
fn stores_in_memory_end_with_the_process_beside_others_that_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = stores_named(&["a", "b"]);
    stores.stores[1].kind = StoreKind::Memory;
    let first = agent(folder.path());
    put(&mut *first.open(TASK, &stores).unwrap().store, &["1", "2"], 5);
    let again = first.open(TASK, &stores).unwrap().store;
    assert_eq!(get(&*again, 1).as_deref(), Some("2"), "the next worker has it still");
    assert_eq!(again.position().unwrap(), position(5, 2));
    drop((again, first));
    let store = agent(folder.path()).open(TASK, &stores).unwrap().store;
    assert_eq!((get(&*store, 0).as_deref(), get(&*store, 1)), (Some("1"), None));
    let position = store.position().unwrap();
    assert!(position.stores[0].is_some() && position.stores[1].is_none());
    assert_eq!(position.inputs, [5.into()]);
}

#[test]
fn a_store_may_have_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let stores = stores_named(&["default", "a/b", "ü"]);
    put(&mut *agent(folder.path()).open(TASK, &stores).unwrap().store, &["1", "2", "3"], 1);
    let store = agent(folder.path()).open(TASK, &stores).unwrap().store;
    assert_eq!(get(&*store, 2).as_deref(), Some("3"));
}
