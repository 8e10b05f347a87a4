//! Topics by index and by name.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    sync::Arc,
};

use sidestream_core::{
    record::{TopicIndex, TopicPartition},
    topology::Topology,
};

/// The names of a topology's topics, in both directions.
#[derive(Clone)]
pub(super) struct Names(Arc<Table>);

struct Table {
    by_index: Vec<CString>,
    by_name: HashMap<CString, TopicIndex>,
}

impl Names {
    /// The names in `topology`; `Err` with the one that is no name.
    pub(super) fn new(topology: &Topology) -> Result<Self, String> {
        let by_index: Vec<_> = topology
            .topics
            .iter()
            .map(|topic| CString::new(topic.name.as_str()).map_err(|_| topic.name.clone()))
            .collect::<Result<_, _>>()?;
        let by_name = by_index.iter().cloned().zip((0..).map(TopicIndex)).collect();
        Ok(Self(Arc::new(Table { by_index, by_name })))
    }

    /// The name of a topic of the topology.
    pub(super) fn c_name(&self, topic: TopicIndex) -> &CStr {
        &self.0.by_index[usize::from(topic.0)]
    }

    /// The name of a topic of the topology.
    pub(super) fn name(&self, topic: TopicIndex) -> &str {
        self.c_name(topic).to_str().expect("made from a string")
    }

    /// A partition by its topic's name; `None` for a topic of somebody else.
    pub(super) fn partition(&self, topic: &CStr, partition: i32) -> Option<TopicPartition> {
        let &topic = self.0.by_name.get(topic)?;
        Some(TopicPartition::new(topic, partition))
    }

    /// As [`partition`](Self::partition).
    pub(super) fn by_name(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        self.partition(&CString::new(topic).ok()?, partition)
    }
}
