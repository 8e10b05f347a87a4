//! A worker's ports, which are all of one client: what is fetched, restored and produced share what
//! befalls their process.

use std::{
    cell::{RefCell, RefMut},
    rc::Rc,
    time::Duration,
};

use sidestream_core::{
    ports::{
        Bounds, ChangelogEvent, Changelogs, FetchPosition, Membership, PortError, Ports, Receipt,
        Sink, Source, SourceEvent, Transaction, TransactionError, Unreadable,
    },
    record::{Committed, Offset, Outputs, TopicPartition},
    topology::Start,
};

use super::SimLog;

/// One of the three.
struct Port(Rc<RefCell<SimLog>>);

/// The ports of a client.
pub(super) fn of(log: SimLog) -> Ports {
    let log = Rc::new(RefCell::new(log));
    let port = || Box::new(Port(Rc::clone(&log)));
    Ports { source: port(), changelogs: port(), sink: port() }
}

impl Port {
    fn log(&self) -> RefMut<'_, SimLog> {
        self.0.borrow_mut()
    }
}

impl Source for Port {
    fn poll(&mut self, wait: Duration, events: &mut Vec<SourceEvent>) -> Result<(), PortError> {
        self.log().poll(wait, events)
    }

    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, PortError> {
        self.log().assign(positions)
    }

    fn unassign(&mut self) -> Result<(), PortError> {
        self.log().unassign()
    }

    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), PortError> {
        self.log().seek(positions)
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        self.log().set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        self.log().set_paused(partitions, false)
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Option<Committed>>, PortError> {
        self.log().committed(partitions, time_max)
    }

    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
        time_max: Duration,
    ) -> Result<Offset, PortError> {
        self.log().start_offset(partition, start, time_max)
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
        self.log().bounds(partitions, time_max)
    }

    // Only the brokers know.
    fn lost(&self, _membership: &Membership) -> Option<String> {
        None
    }

    fn commit(
        &mut self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError> {
        self.log().commit_offsets(offsets, membership)
    }

    fn leave(&mut self) -> Result<(), PortError> {
        self.log().left = true;
        Ok(())
    }
}

impl Changelogs for Port {
    fn poll(&mut self, wait: Duration, events: &mut Vec<ChangelogEvent>) -> Result<(), PortError> {
        self.log().poll_changelogs(wait, events);
        Ok(())
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
        self.log().bounds(partitions, time_max)
    }

    fn read(
        &mut self,
        partition: TopicPartition,
        offset: Offset,
        _leader_epoch: i32,
    ) -> Result<(), PortError> {
        self.log().read(partition, offset)
    }

    fn stop(&mut self, partition: TopicPartition) -> Result<(), PortError> {
        self.log().restores.remove(&partition);
        Ok(())
    }
}

impl Sink for Port {
    fn produce(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        self.log().produce(outputs)
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        self.log().commit(transaction)
    }

    fn deliver(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        self.log().deliver(transaction)
    }

    fn abort(&mut self) -> Result<(), TransactionError> {
        self.log().abort()
    }

    fn recover(&mut self) -> Result<(), PortError> {
        self.log().recover()
    }

    fn purge(&mut self, below: &[(TopicPartition, Offset)]) {
        self.log().purge(below);
    }

    fn serve(&mut self) {}
}
