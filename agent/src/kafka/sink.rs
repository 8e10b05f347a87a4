//! What a worker writes to, as the core's [`Sink`]: its transactional producer.

use std::sync::Arc;

use sidestream_core::{
    ports::{PortError, Receipt, Sink, Transaction, TransactionError},
    record::{Offset, Outputs, TopicPartition},
};

use super::{Error, admin::Purger, config::Config, names::Names, producer::Producer};
use crate::doing::{Call, Doing};

/// One worker's producer.
pub(super) struct KafkaSink {
    config: Arc<Config>,
    names: Names,
    producer: Producer,
    purger: Option<Purger>,
    doing: Arc<Doing>,
}

impl KafkaSink {
    /// Takes over the transactional id of worker number `worker`, which settles what its last owner
    /// left open.
    pub(super) fn start(
        config: &Arc<Config>,
        (names, worker): (&Names, usize),
        doing: &Arc<Doing>,
    ) -> Result<Self, Error> {
        let mut producer = Producer::new(config, names.clone(), worker)?;
        producer.start()?;
        let (config, names) = (Arc::clone(config), names.clone());
        Ok(Self { config, names, producer, purger: None, doing: Arc::clone(doing) })
    }
}

impl Sink for KafkaSink {
    fn produce(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        let _during = self.doing.begin(Call::Produce);
        self.producer.produce(outputs)
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        let _during = self.doing.begin(Call::Commit);
        self.producer.commit(transaction)
    }

    fn deliver(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        let _during = self.doing.begin(Call::Commit);
        self.producer.deliver(transaction)
    }

    fn abort(&mut self) -> Result<(), TransactionError> {
        let _during = self.doing.begin(Call::Abort);
        self.producer.abort()
    }

    fn recover(&mut self) -> Result<(), PortError> {
        let _during = self.doing.begin(Call::Recover);
        self.producer.recover()
    }

    fn purge(&mut self, below: &[(TopicPartition, Offset)]) {
        if self.purger.is_none() {
            match Purger::start(&self.config, self.names.clone()) {
                Ok(purger) => self.purger = Some(purger),
                Err(error) => tracing::warn!(%error, "purging is not possible"),
            }
        }
        if let Some(purger) = &self.purger {
            purger.purge(below);
        }
    }

    fn serve(&mut self) {
        self.producer.serve();
    }
}
