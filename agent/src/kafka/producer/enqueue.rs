//! Records on their way to librdkafka.

use sidestream_core::{
    ports::{Refusal, Suspects, TransactionError},
    record::{Changes, NO_TIMESTAMP, Outputs, Timestamp, TopicIndex, TopicPartition},
    task::{Fault, SEEN_HEADER},
};

use super::{
    super::native::{ProducerRecord, Tag},
    Producer,
};

impl Producer {
    /// Hands a record over. Where one of those sent together was refused before, waits for the last
    /// few to be delivered, so that it can be told which.
    pub(super) fn enqueue(
        &mut self,
        topic: TopicIndex,
        record: ProducerRecord<'_>,
    ) -> Result<(), TransactionError> {
        let timeout = self.config.revoke_time_max;
        self.client
            .produce(record, timeout)
            .map_err(|failure| self.not_taken(record.tag, topic, &failure))?;
        self.sent += 1;
        if self.sent < self.together {
            return Ok(());
        }
        self.sent = 0;
        let flushed = self.client.flush(timeout);
        if let Some(failed) = self.client.client().context().failed_delivery() {
            return Err(self.undelivered(&failed));
        }
        flushed.map_err(|failure| self.not_delivered(failure))
    }

    pub(super) fn enqueue_outputs(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        let first = self.rows;
        self.rows += outputs.len();
        let headers = &outputs.headers;
        let mut pairs = headers
            .names
            .iter()
            .zip(&headers.values)
            .map(|(name, value)| (name.unwrap_or_default(), value));
        let mut row_headers = Vec::new();
        let rows = outputs.keys.iter().zip(&outputs.values).enumerate();
        for (row, (key, value)) in rows {
            let count = headers.counts.get(row).map_or(0, |&count| count as usize);
            row_headers.clear();
            row_headers.extend(pairs.by_ref().take(count));
            let topic = outputs.topics[row];
            self.client.open_topic(usize::from(topic.0), self.names.c_name(topic));
            let Some(timestamp) = timestamp(outputs.timestamps[row]) else {
                let time = outputs.timestamps[row];
                let name = self.names.name(topic);
                return Err(TransactionError::Refused(Refusal {
                    suspects: Suspects::Outputs(vec![first + row]),
                    fault: Fault::Time,
                    message: format!("topic {name}: the timestamp {time} is negative"),
                }));
            };
            let record = ProducerRecord {
                topic: usize::from(topic.0),
                partition: outputs.partitions[row],
                timestamp,
                key,
                value,
                headers: &row_headers,
                tag: Tag::Output(first + row),
            };
            self.enqueue(topic, record)?;
        }
        Ok(())
    }

    pub(super) fn enqueue_changes(
        &mut self,
        slot: usize,
        changes: &Changes,
        seen: &str,
    ) -> Result<(), TransactionError> {
        let TopicPartition { topic, partition } = self.changelogs[slot];
        self.client.open_topic(usize::from(topic.0), self.names.c_name(topic));
        let header = [(SEEN_HEADER.as_bytes(), Some(seen.as_bytes()))];
        for (row, (key, value)) in changes.keys.iter().zip(&changes.values).enumerate() {
            let is_told = row + 1 == changes.len() && !seen.is_empty();
            let record = ProducerRecord {
                topic: usize::from(topic.0),
                partition,
                timestamp: 0,
                key,
                value,
                headers: if is_told { &header } else { &[] },
                tag: Tag::Change(slot, row),
            };
            self.enqueue(topic, record)?;
        }
        Ok(())
    }
}

/// As librdkafka takes it, for which 0 means now. The first millisecond of 1970 becomes the
/// second; a record without a time gets the present one; other negative times are refused.
fn timestamp(timestamp: Timestamp) -> Option<Timestamp> {
    match timestamp {
        NO_TIMESTAMP => Some(0),
        0.. => Some(timestamp.max(1)),
        _ => None,
    }
}
