//! What a worker restores state from, as the core's [`Changelogs`]: a client that is made when it
//! is needed first.

use std::{sync::Arc, time::Duration};

use sidestream_core::{
    ports::{Bounds, ChangelogEvent, Changelogs, PortError, Unreadable},
    record::{Offset, TopicPartition},
};

use super::{
    changelog_reader::ChangelogReader, config::Config, names::Names, native::ConsumerClient,
    offsets,
};
use crate::doing::{Call, Doing};

/// One worker's reader of changelogs.
pub(super) struct KafkaChangelogs {
    config: Arc<Config>,
    names: Names,
    reader: Option<ChangelogReader>,
    doing: Arc<Doing>,
}

impl KafkaChangelogs {
    /// A reader of nothing yet.
    pub(super) fn new(config: &Arc<Config>, names: &Names, doing: &Arc<Doing>) -> Self {
        let (config, names) = (Arc::clone(config), names.clone());
        Self { config, names, reader: None, doing: Arc::clone(doing) }
    }

    fn reader(&mut self) -> Result<&mut ChangelogReader, PortError> {
        if self.reader.is_none() {
            let client = ConsumerClient::new(self.config.reader_client()?)
                .map_err(|failure| PortError::Fatal(failure.to_string()))?;
            self.reader = Some(ChangelogReader::new(client, self.names.clone()));
        }
        Ok(self.reader.as_mut().expect("made above"))
    }
}

impl Changelogs for KafkaChangelogs {
    fn poll(&mut self, wait: Duration, events: &mut Vec<ChangelogEvent>) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Poll);
        match self.reader.as_mut().filter(|reader| !reader.is_idle()) {
            Some(reader) => reader.poll(wait, events),
            None => Ok(()),
        }
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
        let doing = Arc::clone(&self.doing);
        let _during = doing.begin(Call::Offsets);
        let (names, timeout) = (self.names.clone(), self.config.request_timeout.min(time_max));
        offsets::bounds(self.reader()?.client(), &names, partitions, timeout)
    }

    fn read(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        leader_epoch: i32,
    ) -> Result<(), PortError> {
        let doing = Arc::clone(&self.doing);
        let _during = doing.begin(Call::Assign);
        self.reader()?.start(partition, offset, leader_epoch)
    }

    fn stop(&mut self, partition: TopicPartition) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Assign);
        match &mut self.reader {
            Some(reader) => reader.stop(partition),
            None => Ok(()),
        }
    }
}
