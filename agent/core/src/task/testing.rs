//! What tests of tasks stand on.

use crate::{
    record::TopicIndex,
    topology::{
        ErrorPolicy, Input, OnError, OnOutOfRange, Output, Reader, Start, Subtopology, Topic,
        TopicKind, Topology, Transform,
    },
};

/// A transform without stores.
pub(super) fn transform(name: &str, outputs: Vec<Output>, then: OnError) -> Transform {
    Transform {
        name: name.to_owned(),
        inputs: vec!["in".to_owned()],
        outputs,
        stores: Vec::new(),
        on_error: ErrorPolicy { retry: None, then },
    }
}

/// One task, of a topic with one partition, which the first of the transforms reads.
pub(super) fn topology(transforms: Vec<Transform>) -> Topology {
    let input = Input {
        topic: TopicIndex(0),
        start: Start::Earliest,
        on_out_of_range: OnOutOfRange::Fail,
        readers: vec![Reader { transform: 0, input: 0 }],
    };
    Topology {
        topics: vec![Topic { name: "in".to_owned(), partitions: 1, kind: TopicKind::External }],
        subtopologies: vec![Subtopology {
            partitions: 1,
            inputs: vec![input],
            transforms,
            stores: Vec::new(),
        }],
    }
}
