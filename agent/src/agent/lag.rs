//! Looks up, now and then, where the inputs end.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use sidestream_core::record::{Offset, TopicPartition};

use super::board::Board;
use crate::kafka::Admin;

/// How often.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long before the first time.
const FIRST: Duration = Duration::from_millis(200);

/// A thread looks the ends up until this is dropped. It is not waited for: brokers that are away
/// may keep it for a while.
pub(super) struct Lag {
    _end: mpsc::Sender<()>,
}

impl Lag {
    pub(super) fn start(board: Arc<Board>, admin: Admin) -> std::io::Result<Self> {
        let (end, ended) = mpsc::channel();
        std::thread::Builder::new().name("lag".into()).spawn(move || {
            let mut wait = FIRST;
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(wait) {
                board.set_ends(ends(&board, &admin));
                wait = INTERVAL;
            }
        })?;
        Ok(Self { _end: end })
    }
}

fn ends(board: &Board, admin: &Admin) -> Result<HashMap<TopicPartition, Offset>, String> {
    let Some(topology) = board.topology.get() else { return Ok(HashMap::new()) };
    let inputs = board.inputs();
    let named: Vec<(&str, i32)> = inputs
        .iter()
        .map(|input| (topology.topic(input.topic).name.as_str(), input.partition))
        .collect();
    let ends = admin.end_offsets(&named).map_err(|error| error.to_string())?;
    Ok(inputs.iter().copied().zip(ends).filter_map(|(input, end)| Some((input, end?))).collect())
}
