//! The simulated log, store and user code pass the suites that the real ones pass, which keeps
//! the simulator honest.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use sidestream_core::{
    ports::Ports,
    record::{Batch, NO_TIMESTAMP, Outputs, Records, TaskId, TopicPartition},
    task::StateStore,
    topology::{OnOutOfRange, Start, Store, Subtopology, Topology},
    worker::Environment,
};

use crate::{
    cluster::LogRecord,
    contract::{
        log::{End, Harness},
        processor::{self, Subject},
        store::{self, Home, STORES},
    },
    crew::Crew,
    disk::Disk,
    environment::SimEnvironment,
    guest::SimProcessor,
    log::{SimLog, consumer::columns},
    pipeline::{self, Shape},
    plan::Plan,
    poison::Policies,
    prng::Prng,
    swap::Owner,
    world::{Pod, World},
};

const TASK: TaskId = TaskId { subtopology: 0, partition: 0 };

fn calm_world(topology: Topology) -> World {
    let world = World::new(Plan::calm(topology), Prng::new(0));
    // There are no workers, and positions are of no real changelog.
    world.lock().checks_workers = false;
    world
}

fn owner(pod: usize) -> Owner {
    Owner { pod, worker: 0 }
}

/// A new life of a process; earlier ones with its identity are over.
fn live(world: &World, identity: usize) -> usize {
    let mut state = world.lock();
    for pod in 0..state.pods.len() {
        if state.pods[pod].identity == identity {
            state.kill(pod);
        }
    }
    if state.disks.is_empty() {
        state.disks.push(Disk::default());
    }
    let (open, asked) = (BTreeSet::new(), BTreeMap::new());
    let (alive, stopped, kill, skew) = (true, false, None, 0);
    state.pods.push(Pod { identity, disk: 0, alive, stopped, kill, skew, open, asked });
    state.pods.len() - 1
}

struct SimHome {
    world: World,
    pod: usize,
}

impl SimHome {
    fn new() -> Self {
        let changelog = sidestream_core::record::TopicIndex(0);
        let store = |number| Store { name: format!("store-{number}"), changelog };
        let stores = (0..STORES).map(store).collect();
        let subtopology = Subtopology { partitions: 1, stores, ..Subtopology::default() };
        let topic = sidestream_core::topology::Topic {
            name: "changelog".to_owned(),
            partitions: 1,
            kind: sidestream_core::topology::TopicKind::Changelog,
        };
        let topology = Topology { topics: vec![topic], subtopologies: vec![subtopology] };
        let world = calm_world(topology);
        let pod = live(&world, 0);
        Self { world, pod }
    }
}

impl Home for SimHome {
    fn open(&mut self) -> Box<dyn StateStore> {
        self.world.lock().pods[self.pod].open.clear();
        let mut environment = SimEnvironment { world: self.world.clone(), owner: owner(self.pod) };
        environment.open(TASK).unwrap()
    }

    fn restart(&mut self) {
        self.pod = live(&self.world, 0);
    }

    fn is_persistent(&self) -> bool {
        true
    }
}

#[test]
fn the_store_keeps_its_contract() {
    store::check_all(SimHome::new);
}

struct SimSubject {
    world: World,
    pod: usize,
}

impl SimSubject {
    fn rows(values: &[&str]) -> Batch {
        let keys = ["a", "b", "a", "c", "a"];
        let mut records = Records::default();
        for (row, value) in values.iter().enumerate() {
            records.offsets.push(i64::try_from(row).unwrap());
            records.timestamps.push(1_000);
            records.timestamp_types.push(0);
            records.keys.push(Some(keys[row].as_bytes()));
            records.values.push(Some(value.as_bytes()));
        }
        let inputs = vec![0; values.len()];
        Batch { stream_time: NO_TIMESTAMP, wall_clock: 5_000, inputs, records, ..Batch::default() }
    }
}

impl Subject for SimSubject {
    type Processor = SimProcessor;

    fn stores(&self) -> usize {
        2
    }

    fn outputs(&self) -> usize {
        3
    }

    fn processor(&mut self) -> SimProcessor {
        SimProcessor::new(&self.world, owner(self.pod), (TASK, 0), 0).unwrap()
    }

    fn batch(&self) -> Batch {
        Self::rows(&["1", "2", "3", "4", "5"])
    }

    fn failing_batch(&self) -> Option<(Batch, usize)> {
        Some((Self::rows(&["1", "2", "poison", "4"]), 2))
    }
}

#[test]
fn user_code_keeps_its_contract() {
    let shape = Shape {
        inputs: 1,
        partitions: 1,
        second_stage: None,
        chained: false,
        spare: None,
        stream_punctuation: Some(100),
        wall_punctuation: Some(100),
        policies: Policies::default(),
        starts: [Start::Earliest; 2],
        on_out_of_range: OnOutOfRange::Fail,
    };
    let world = calm_world(pipeline::topology(&shape));
    let pod = live(&world, 0);
    processor::check(&mut SimSubject { world, pod });
}

struct SimHarness {
    world: World,
    crew: Rc<Crew>,
    external: usize,
    open: Vec<(String, i16)>,
}

impl SimHarness {
    /// Lets all markers be written.
    fn settle(&self) {
        let mut state = self.world.lock();
        for _ in 0..200 {
            state.pass(1);
        }
    }
}

impl Harness for SimHarness {
    fn start(topology: &Topology) -> Self {
        let world = calm_world(topology.clone());
        Self { world, crew: Rc::default(), external: 0, open: Vec::new() }
    }

    fn ports(&mut self, worker: usize) -> Ports {
        let pod = live(&self.world, worker);
        SimLog::ports(&self.world, &self.crew, pod, 0)
    }

    fn fence(&mut self, worker: usize) {
        let id = format!("i{worker}-0");
        for _ in 0..200 {
            let mut state = self.world.lock();
            if state.cluster.init_producer(&id).is_ok() {
                return;
            }
            state.pass(1);
        }
        panic!("the transaction of {id} is not settled");
    }

    fn write(&mut self, outputs: &Outputs, end: End) {
        self.external += 1;
        let id = format!("external-{}", self.external);
        let mut state = self.world.lock();
        let epoch = state.cluster.init_producer(&id).unwrap();
        let bytes = |row: Option<&[u8]>| row.map(<[u8]>::to_vec);
        let headers = crate::log::headers_of(&outputs.headers);
        for (row, (key, value)) in outputs.keys.iter().zip(&outputs.values).enumerate() {
            let partition = TopicPartition::new(outputs.topics[row], outputs.partitions[row]);
            let record = LogRecord {
                timestamp: outputs.timestamps[row],
                key: bytes(key),
                value: bytes(value),
                headers: headers.get(row).cloned().unwrap_or_default(),
            };
            state.cluster.produce(&id, epoch, partition, record).unwrap();
        }
        match end {
            End::Committed => state.cluster.end(&id, epoch, true).unwrap(),
            End::Aborted => state.cluster.end(&id, epoch, false).unwrap(),
            End::Open => self.open.push((id, epoch)),
        }
        drop(state);
        self.settle();
    }

    fn commit_open(&mut self) {
        for (id, epoch) in std::mem::take(&mut self.open) {
            self.world.lock().cluster.end(&id, epoch, true).unwrap();
        }
        self.settle();
    }

    fn read(&mut self, partition: TopicPartition) -> Records {
        self.settle();
        columns(self.world.lock().cluster.partition(partition).read(0, usize::MAX))
    }
}

mod the_log {
    crate::log_contract!(super::SimHarness);
}
