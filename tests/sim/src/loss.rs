//! A changelog is lost while nobody is there: tasks whose state needs it must stop, and must not
//! go on over the gap.

use sidestream_core::{record::TopicPartition, topology::TopicKind};

use crate::{cluster::LogRecord, plan::Loss, run::Run};

/// How many turns the workers have to find out.
const TURNS: u64 = 600;

impl Run {
    /// Everybody dies, a changelog is lost, and everybody comes back. Each step of a store is
    /// held against what is left (`State::check_apply`).
    pub(crate) fn lose_changelog(&mut self, loss: Loss) {
        let mut state = self.world.lock();
        (0..state.pods.len()).for_each(|pod| state.kill(pod));
        drop(state);
        self.settle();
        let mut state = self.world.lock();
        let plan = state.plan.clone();
        let topics: Vec<_> = plan.topology.topics.iter().zip(0..).collect();
        let changelogs: Vec<_> =
            topics.into_iter().filter(|(topic, _)| topic.kind == TopicKind::Changelog).collect();
        let (topic, index) = changelogs[state.prng.index(changelogs.len())];
        let index = sidestream_core::record::TopicIndex(index);
        state.lost.insert(index);
        let now = state.now;
        state.trace.line(now, format_args!("{} is lost: {loss:?}", topic.name));
        for partition in 0..topic.partitions {
            let log = state.cluster.partition_mut(TopicPartition::new(index, partition));
            match loss {
                Loss::Recreated => {
                    let length = log.entries.len() + 5;
                    log.entries.clear();
                    for _ in 0..length {
                        log.append(0, others_record());
                    }
                }
                Loss::Truncated => log.entries.truncate(log.entries.len() / 2),
                Loss::Expired => log.start = log.end(),
            }
        }
        drop(state);
        for identity in 0..self.current.len() {
            self.start(identity);
        }
        for _ in 0..TURNS {
            self.crew.turn_some(&self.world);
            if self.world.lock().violation.is_some() {
                return;
            }
        }
    }
}

fn others_record() -> LogRecord {
    let (key, value) = (b"other".to_vec(), b"1".to_vec());
    LogRecord { timestamp: 0, key: Some(key), value: Some(value), headers: Vec::new() }
}
