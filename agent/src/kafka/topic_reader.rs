//! Reading a topic once, from offset to offset, as any reader of committed records: for verbs that
//! look at what is there and end.

use std::{
    ffi::CString,
    ops::{ControlFlow, Range},
    time::{Duration, Instant},
};

use sidestream_core::record::{Offset, Records, Timestamp};

use super::{
    Error,
    config::Config,
    error::call_failed,
    native::{Code, ConsumerClient, Failure, Message, MessageBuffer, OffsetAt, PartitionList},
    offsets,
};

/// The most messages that one call takes out of librdkafka's queue.
const BATCH_MESSAGES_MAX: usize = 1_024;
/// How long one call waits for the first message.
const FETCH_TURN: Duration = Duration::from_millis(50);

/// A record as it stands in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRecord {
    /// Where it stands in its partition.
    pub offset: Offset,
    /// Its time; -1 if it has none.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers in order: names and values.
    pub headers: Vec<StoredHeader>,
}

/// A header's name and value.
pub type StoredHeader = (Vec<u8>, Option<Vec<u8>>);

/// Where to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Before the first transaction that is open now.
    Committed,
    /// After everything that is there now: transactions that are open are waited for.
    Settled,
}

/// Reads partitions one after another, and never joins a group.
pub struct TopicReader {
    client: ConsumerClient,
    buffer: MessageBuffer,
    request_timeout: Duration,
    /// How long nothing may come before the reading is given up: a transaction whose producer
    /// died ends within this time.
    silence_max: Duration,
}

impl TopicReader {
    /// Makes the client; it connects in the background.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let client = ConsumerClient::new(config.reader_client()?)
            .map_err(|failure| Error::Fatal(failure.to_string()))?;
        Ok(Self {
            client,
            buffer: MessageBuffer::new(BATCH_MESSAGES_MAX),
            request_timeout: config.request_timeout,
            silence_max: config.transaction_timeout + config.request_timeout,
        })
    }

    /// What there is in each of the first `partitions` partitions of a topic now.
    pub fn bounds(
        &self,
        topic: &str,
        partitions: i32,
        end: End,
    ) -> Result<Vec<Range<Offset>>, Error> {
        if partitions <= 0 {
            return Ok(Vec::new());
        }
        let name = c_name(topic)?;
        let look_up = |at, committed_only| {
            let mut list = PartitionList::new();
            (0..partitions).for_each(|partition| list.add(&name, partition, -1));
            let (client, timeout) = (self.client.client(), self.request_timeout);
            let found = offsets::look_up(client, list, (at, committed_only), timeout)
                .and_then(|found| found.into_iter().collect::<Result<Vec<_>, Failure>>());
            found.map_err(|failure| Error::from(call_failed("looking offsets up", &failure)))
        };
        let starts = look_up(OffsetAt::Earliest, false)?;
        let ends = look_up(OffsetAt::Latest, end == End::Committed)?;
        Ok(starts.into_iter().zip(ends).map(|(start, end)| start..end.max(start)).collect())
    }

    /// Gives the committed records of a range to `visit`, in order, until the range ends or
    /// `visit` breaks off.
    pub fn read(
        &mut self,
        (topic, partition): (&str, i32),
        range: Range<Offset>,
        visit: &mut dyn FnMut(StoredRecord) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let name = c_name(topic)?;
        let mut list = PartitionList::new();
        list.add(&name, partition, range.start);
        let failed = |failure: &Failure| Error::from(call_failed("reading a topic", failure));
        self.client.assign(&list).map_err(|failure| failed(&failure))?;
        let result = self.read_assigned((&name, partition), range, visit);
        self.buffer.clear();
        self.client.unassign().map_err(|failure| failed(&failure))?;
        result
    }

    fn read_assigned(
        &mut self,
        (topic, partition): (&CString, i32),
        range: Range<Offset>,
        visit: &mut dyn FnMut(StoredRecord) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut next = range.start;
        let mut since = Instant::now();
        while next < range.end {
            self.client.fetch(&mut self.buffer, FETCH_TURN);
            let before = next;
            for message in self.buffer.iter() {
                if message.topic() != topic.as_c_str() || message.partition() != partition {
                    continue;
                }
                let Some(record) = record(&message, &mut next)? else { continue };
                if record.offset >= range.end || visit(record).is_break() {
                    return Ok(());
                }
            }
            self.buffer.clear();
            if next > before {
                since = Instant::now();
            } else if since.elapsed() > self.silence_max {
                let topic = topic.to_string_lossy();
                return Err(Error::Unavailable(format!(
                    "partition {partition} of {topic} can't be read on from offset {next}: its \
                     leader is away, or a transaction is open that does not end \
                     (`kafka-transactions.sh find-hanging` tells which)"
                )));
            }
        }
        Ok(())
    }
}

/// The record in a message, if it is one; either way moves `next` behind it.
fn record(message: &Message<'_>, next: &mut Offset) -> Result<Option<StoredRecord>, Error> {
    let refused = |what: &str| {
        let (topic, partition) = (message.topic().to_string_lossy(), message.partition());
        Err(Error::Fatal(format!(
            "partition {partition} of {topic} can't be read: {}; {what}",
            message.error()
        )))
    };
    match message.code() {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR if message.offset() >= *next => {
            *next = message.offset() + 1;
            let mut records = Records::default();
            message.append_to(&mut records, true);
            Ok(stored(&records))
        }
        Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            // Its offset counts: it lies beyond markers and aborted records.
            *next = message.offset().max(*next);
            Ok(None)
        }
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
        | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => {
            refused("records expired under way, so do the same again")
        }
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => refused("let this user read it"),
        _ => Ok(None),
    }
}

/// The only record of some columns.
fn stored(records: &Records) -> Option<StoredRecord> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let headers = records.headers.names.iter().zip(&records.headers.values);
    Some(StoredRecord {
        offset: *records.offsets.first()?,
        timestamp: *records.timestamps.first()?,
        key: owned(records.keys.iter().next()?),
        value: owned(records.values.iter().next()?),
        headers: headers
            .map(|(name, value)| (name.unwrap_or_default().to_vec(), owned(value)))
            .collect(),
    })
}

fn c_name(topic: &str) -> Result<CString, Error> {
    CString::new(topic).map_err(|_| Error::Fatal(format!("{topic:?} is no name for a topic")))
}
