//! A swapper for the tests of those who only ask it.

use std::{path::Path, sync::Arc};

use sidestream_core::topology::Topology;

use super::Swapper;
use crate::{
    config::pipeline::Swap,
    guest::{self, Engine},
    modules::{code::Codes, versions::Versions},
    runtime::{board::Board, thread::Stop},
};

impl Swapper {
    /// One that has no transform's code; its versions are kept in `folder`.
    pub(crate) fn without_code(
        folder: &Path,
        board: &Arc<Board>,
        stop: &Stop,
        topology: &Arc<Topology>,
    ) -> Arc<Self> {
        let codes = Arc::new(Codes {
            application: "application".to_owned(),
            topology: Arc::clone(topology),
            engine: Engine::new(&guest::Config::default()).unwrap(),
            codes: Vec::new(),
            doings: Vec::new(),
        });
        let versions = Versions::open(&folder.join("versions"), 1, None).unwrap();
        Self::new(codes, Arc::clone(board), stop.clone(), versions, Swap::default())
    }
}
