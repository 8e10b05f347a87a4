//! A topic that the pipeline reads gets more partitions while it runs. Keys are placed otherwise from
//! then on, so every process must end when it is given one of them, with a remedy, and what it did
//! before stands.

use sidestream_core::record::TopicPartition;

use crate::{
    check,
    cluster::{LogRecord, PartitionLog},
    run::Run,
    world::State,
};

/// How many turns each worker has to find out: all may be in one that is replaced once its session
/// has ended, and so on.
const TURNS: u64 = 1_500;

impl Run {
    /// A topic grows, and the group finds out.
    pub(crate) fn grow(&mut self) {
        self.keep_up();
        self.world.lock().grow();
        let workers = (self.current.len() * self.world.lock().plan.workers) as u64;
        for _ in 0..TURNS * workers {
            if self.world.lock().pods.iter().all(|pod| !pod.alive) {
                break;
            }
            self.end_done();
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
        }
        self.settle();
        let mut state = self.world.lock();
        if let Some(pod) = state.pods.iter().position(|pod| pod.alive) {
            state.violate(format_args!("p{pod} goes on though a topic has more partitions"));
        } else {
            check::everything(&mut state);
        }
    }

    /// Those that were told to stop before have ended, and do not come back.
    fn end_done(&mut self) {
        for identity in 0..self.current.len() {
            let alive = |pod: &usize| self.world.lock().pods[*pod].alive;
            if let Some(pod) = self.current[identity].filter(alive)
                && self.crew.is_done(pod)
            {
                self.end(identity, pod);
            }
        }
    }
}

impl State {
    fn grow(&mut self) {
        let place = self.prng.index(self.cluster.group.topics.len());
        let (topic, partitions) = &mut self.cluster.group.topics[place];
        let new = TopicPartition::new(*topic, *partitions);
        *partitions += 1;
        let name = self.plan.topology.topic(new.topic).name.clone();
        let now = self.now;
        self.trace.line(now, format_args!("`{name}` gets another partition"));
        let mut log = PartitionLog::default();
        for key in [b"k0", b"k1", b"k2"] {
            let (key, value) = (Some(key.to_vec()), Some(b"v".to_vec()));
            log.append(0, LogRecord { timestamp: 0, key, value, headers: Vec::new() });
        }
        self.cluster.partitions.insert(new, log);
        self.cluster.group.start_rebalance(now);
        self.grown = Some(name);
    }

    /// Whether a process may end with an error: it says which topic has grown.
    pub(crate) fn may_end(&self, error: &str) -> bool {
        let told = |name: &String| error.contains(&format!("topic `{name}` had "));
        self.grown.as_ref().is_some_and(told)
    }

    /// Whether the pipeline has ended since a topic grew, before it read a record. What is not
    /// committed is not its work.
    pub(crate) fn is_unread(&self, partition: TopicPartition, offset: i64) -> bool {
        let committed = self.cluster.group.offsets.get(&partition).map_or(0, |at| at.offset);
        self.grown.is_some() && self.plan.config.exactly_once && offset >= committed
    }
}
