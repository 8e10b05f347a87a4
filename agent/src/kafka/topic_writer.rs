//! Writing records in transactions of their own, outside of any group: for verbs that put
//! something into topics and end.

use std::{collections::BTreeMap, ffi::CString, time::Instant};

use sidestream_core::record::Timestamp;

use super::{
    Error,
    config::Config,
    error::call_failed,
    native::{Failure, ProducerClient, ProducerRecord, Tag},
    topic_reader::StoredHeader,
};
use crate::crash_point::CrashPoint;

/// A record to write.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Its topic, which is there.
    pub topic: &'a str,
    /// Its partition; the one that its key decides if `None`.
    pub partition: Option<i32>,
    /// Its time; now if `None`.
    pub timestamp: Option<Timestamp>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers in order.
    pub headers: &'a [StoredHeader],
}

/// A transactional producer under a name. Whoever takes the same name later fences it.
pub struct TopicWriter {
    config: Config,
    transactional_id: String,
    client: ProducerClient,
    topics: BTreeMap<String, usize>,
    is_open: bool,
}

impl TopicWriter {
    /// Takes over the transactional id: once it returns, what its last owner left open has ended,
    /// and the last owner can't commit any more.
    pub fn new(config: &Config, transactional_id: &str) -> Result<Self, Error> {
        let config = Config { exactly_once: true, ..config.clone() };
        let transactional_id = transactional_id.to_owned();
        let client = start(&config, &transactional_id)?;
        Ok(Self { config, transactional_id, client, topics: BTreeMap::new(), is_open: false })
    }

    /// Makes a record part of the transaction, which begins with its first one.
    pub fn write(&mut self, record: &NewRecord<'_>) -> Result<(), Error> {
        if !self.is_open {
            self.client.begin_transaction().map_err(|failure| self.dropped(&failure.message))?;
            self.client.client().context().take_failed_delivery();
            self.is_open = true;
        }
        let topic = self.topic(record.topic)?;
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect();
        let record = ProducerRecord {
            topic,
            partition: record.partition.unwrap_or(-1),
            // librdkafka takes 0 for now; the first millisecond of 1970 becomes the second.
            timestamp: record.timestamp.filter(|time| *time >= 0).map_or(0, |time| time.max(1)),
            key: record.key,
            value: record.value,
            headers: &headers,
            tag: Tag::Output(0),
        };
        let handed_over = self.client.produce(record, self.config.revoke_time_max);
        handed_over.map_err(|failure| self.dropped(&failure.message))
    }

    /// Ends the transaction. After an error it is either dropped or its outcome is not known; the
    /// message says which, and the writer must not be used any more.
    pub fn commit(&mut self) -> Result<(), Error> {
        if !self.is_open {
            return Ok(());
        }
        let began = Instant::now();
        let connections = self.client.client().context().closed_connections();
        CrashPoint::AfterProduce.pass();
        let timeout = self.config.revoke_time_max;
        let flushed = self.client.flush(timeout);
        if let Some(failed) = self.client.client().context().failed_delivery() {
            let failure = Failure::check(failed.code).err();
            let why = failure.map_or_else(String::new, |failure| failure.message);
            return Err(self.dropped(&format!("topic {}: {why}", failed.topic)));
        }
        flushed.map_err(|failure| self.dropped(&failure.message))?;
        CrashPoint::BeforeEnd.pass();
        let left = timeout.saturating_sub(began.elapsed());
        self.client.commit_transaction(left).map_err(|failure| {
            Error::Fatal(format!(
                "whether the last transaction was committed is not known: {failure}; do the same \
                 again, which finds out"
            ))
        })?;
        CrashPoint::AfterEnd.pass();
        self.is_open = false;
        let closed = self.client.client().context().closed_connections();
        if closed != connections || began.elapsed() > timeout {
            // librdkafka may have repeated the end of the transaction; the first one must not end
            // the next transaction half-way, so that belongs to a new producer.
            self.client = start(&self.config, &self.transactional_id)?;
            self.topics.clear();
        }
        Ok(())
    }

    fn topic(&mut self, name: &str) -> Result<usize, Error> {
        if let Some(&topic) = self.topics.get(name) {
            return Ok(topic);
        }
        let c_name = CString::new(name)
            .map_err(|_| Error::Fatal(format!("{name:?} is no name for a topic")))?;
        let topic = self.topics.len();
        self.client.open_topic(topic, &c_name);
        self.topics.insert(name.to_owned(), topic);
        Ok(topic)
    }

    /// Aborts; if that fails, the broker does it when the transaction's time is over.
    fn dropped(&self, why: &str) -> Error {
        if let Err(failure) = self.client.abort_transaction(self.config.revoke_time_max) {
            tracing::debug!(%failure, "a transaction was not aborted");
        }
        Error::Fatal(format!("the last transaction was dropped: {why}"))
    }
}

fn start(config: &Config, transactional_id: &str) -> Result<ProducerClient, Error> {
    let client = ProducerClient::new(config.producer_with_id(transactional_id)?);
    client
        .init_transactions(config.request_timeout)
        .map_err(|failure| call_failed("taking the transactional id over", &failure))?;
    Ok(client)
}
