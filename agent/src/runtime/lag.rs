//! Looks, now and then, where the inputs end, and at what may keep the workers from their work.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use sidestream_core::{record::TopicPartition, topology::Topology};

use super::board::Board;
use crate::kafka::{Admin, PartitionEnd};

/// How often.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long before the first time.
const FIRST: Duration = Duration::from_millis(200);
/// How often to look at the cluster while something is in doubt.
const CLUSTER_INTERVAL: Duration = Duration::from_secs(10);

/// A thread looks until this is dropped. It is not waited for: brokers that are away may keep it for
/// a while.
pub(crate) struct Lag {
    _end: mpsc::Sender<()>,
}

impl Lag {
    pub(crate) fn start(
        board: Arc<Board>,
        topology: Arc<Topology>,
        admin: Admin,
    ) -> std::io::Result<Self> {
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new().name("lag".into()).spawn(move || {
            let mut wait = FIRST;
            let mut looked: Option<Instant> = None;
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                board.tell_of_standstill(&topology);
                board.set_ends(&topology, ends(&board, &topology, &admin));
                if !board.is_in_doubt() {
                    board.set_trouble(None);
                } else if looked.is_none_or(|at| at.elapsed() >= CLUSTER_INTERVAL) {
                    looked = Some(Instant::now());
                    board.set_trouble(trouble(&topology, &admin));
                }
                wait = INTERVAL;
            }
        })?;
        Ok(Self { _end: end })
    }
}

fn ends(
    board: &Board,
    topology: &Topology,
    admin: &Admin,
) -> Result<HashMap<TopicPartition, PartitionEnd>, String> {
    let inputs = board.inputs(topology);
    let named: Vec<(&str, i32)> = inputs
        .iter()
        .map(|input| (topology.topic(input.topic).name.as_str(), input.partition))
        .collect();
    let ends = admin.end_offsets(&named).map_err(|error| error.to_string())?;
    Ok(inputs.iter().copied().zip(ends).filter_map(|(input, end)| Some((input, end?))).collect())
}

/// What is wrong with the cluster, if brokers answer and that can be seen.
fn trouble(topology: &Topology, admin: &Admin) -> Option<String> {
    let names: Vec<&str> = topology.topics.iter().map(|topic| topic.name.as_str()).collect();
    let troubles = admin.troubles(&names).ok()?;
    let told: Vec<String> = troubles.iter().map(ToString::to_string).collect();
    (!told.is_empty()).then(|| told.join("; "))
}
