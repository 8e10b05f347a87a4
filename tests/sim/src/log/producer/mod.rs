//! Writing: records wait in the producer until they are sent, and a commit is many requests.

mod commit;

use sidestream_core::{
    partitioner,
    ports::{PortError, Refusal as Refused, Suspects, TransactionError},
    record::{Changes, Headers, Offset, Outputs, PARTITION_BY_KEY, TopicPartition},
    task::{Fault, SEEN_HEADER},
};

use super::SimLog;
use crate::{
    cluster::{LogHeader, LogRecord, Refusal},
    world::State,
};

/// How often a request is repeated while markers of the transaction before are written.
const REPEATS_MAX: u32 = 60;

/// The size of a record that the brokers take.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;

/// A transactional producer.
#[derive(Debug)]
pub(super) struct Producer {
    id: String,
    /// `None` until the transactional id was settled.
    epoch: Option<i16>,
    /// Produced, not sent.
    buffer: Vec<(TopicPartition, LogRecord)>,
    /// Whether anything of the open transaction was sent.
    sent: bool,
    /// Where each output goes that was produced in the open transaction.
    rows: Vec<TopicPartition>,
    /// An output of it that the brokers are going to refuse.
    refused: Option<(usize, Flaw)>,
    /// How many records it sends together, at most: fewer after one of them was refused, until it is
    /// told which.
    together: usize,
}

/// Why a record is refused.
type Flaw = (Fault, &'static str);

impl Producer {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            epoch: None,
            buffer: Vec::new(),
            sent: false,
            rows: Vec::new(),
            refused: None,
            together: usize::MAX,
        }
    }

    /// For how long its transaction is open on the brokers; for ever if they ended it.
    pub(super) fn age(&self, state: &State) -> Option<u64> {
        let epoch = self.epoch.filter(|_| self.sent)?;
        state.cluster.coordinator.age(&self.id, epoch, state.now)
    }

    /// The next transaction has nothing yet.
    fn clear(&mut self) {
        self.buffer.clear();
        self.rows.clear();
        self.refused = None;
    }

    /// The rows that are sent together with one of `rows`, and are refused with it.
    fn sent_with(&mut self, row: usize, rows: impl Iterator<Item = usize>) -> Vec<usize> {
        let batch = row / self.together;
        let found: Vec<usize> = rows.filter(|other| other / self.together == batch).collect();
        if found.len() > 1 {
            self.together = self.together.min(found.len()).div_ceil(2);
        }
        found
    }
}

/// The headers of each record.
pub(crate) fn headers_of(headers: &Headers) -> Vec<Vec<LogHeader>> {
    let mut pairs = headers
        .names
        .iter()
        .zip(&headers.values)
        .map(|(name, value)| (name.unwrap_or_default().to_vec(), value.map(<[u8]>::to_vec)));
    let count = |&count: &u32| usize::try_from(count).expect("few headers");
    headers.counts.iter().map(|n| pairs.by_ref().take(count(n)).collect()).collect()
}

/// Why a partition refuses a record, if it does.
fn flaw(state: &State, partition: TopicPartition, record: &LogRecord) -> Option<Flaw> {
    let size = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    if size(&record.key) + size(&record.value) > RECORD_BYTES_MAX {
        return Some((Fault::Size, "the record is too large"));
    }
    state.plan.refusals.of_partition(partition, (state.now, state.faulty))
}

fn unknown(text: &str) -> TransactionError {
    TransactionError::Unknown(text.to_owned())
}

impl SimLog {
    /// Settles the transactional id if that was not done. Returns whether it is.
    pub(super) fn settle_producer(&mut self) -> bool {
        self.producer.epoch.is_some() || self.renew_producer().is_ok()
    }

    /// A new producer with the same transactional id.
    pub(super) fn renew_producer(&mut self) -> Result<(), PortError> {
        let mut state = self.world.lock();
        self.producer.clear();
        self.producer.sent = false;
        self.producer.epoch = None;
        if !state.plan.config.exactly_once {
            self.producer.epoch = Some(0);
            return Ok(());
        }
        for _ in 0..REPEATS_MAX {
            if let Ok(epoch) = state.cluster.init_producer(&self.producer.id) {
                self.producer.epoch = Some(epoch);
                state.note(self.pod, format_args!("{} has epoch {epoch}", self.producer.id));
                return Ok(());
            }
            state.pass(2);
            if state.faulty && state.prng.one_in(10) {
                break;
            }
        }
        Err(PortError::Unavailable("the old transaction is not settled yet".to_owned()))
    }

    fn epoch(&self) -> Result<i16, TransactionError> {
        self.producer.epoch.ok_or_else(|| unknown("there is no producer"))
    }

    /// Takes records; sends some of what waits at once.
    pub(super) fn produce_early(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        self.epoch()?;
        self.place(outputs)?;
        let early = self.world.lock().prng.coin();
        if early { self.send() } else { Ok(()) }
    }

    /// Takes the records if none is refused; that may be known at once, or when they are sent.
    fn place(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        let first = self.producer.rows.len();
        let (late, plan) = {
            let mut state = self.world.lock();
            (state.checks_workers && state.prng.coin(), state.plan.clone())
        };
        for (row, key) in outputs.keys.iter().enumerate() {
            let topic = outputs.topics[row];
            let partition = match outputs.partitions[row] {
                PARTITION_BY_KEY => {
                    let partitions = plan.topology.topic(topic).partitions;
                    partitioner::partition(key.unwrap_or_default(), partitions)
                }
                partition => partition,
            };
            self.producer.rows.push(TopicPartition::new(topic, partition));
        }
        match self.placed(outputs, first) {
            Ok(records) => {
                self.note_versions(&records);
                self.producer.buffer.extend(records);
                Ok(())
            }
            Err(found) if late => {
                self.producer.refused.get_or_insert(found);
                Ok(())
            }
            Err((row, flaw)) => Err(self.refusal(Suspects::Outputs(vec![row]), flaw)),
        }
    }

    /// A refusal as the brokers of this run put it.
    fn refusal(&self, suspects: Suspects, (fault, message): Flaw) -> TransactionError {
        let suspects = match self.world.lock().plan.refusals.nameless && fault.is_of_record() {
            true => Suspects::Anything,
            false => suspects,
        };
        TransactionError::Refused(Refused { suspects, fault, message: message.to_owned() })
    }

    /// The output that is refused now that all are sent, and those that were sent with it.
    fn check_refused(&mut self) -> Result<(), TransactionError> {
        let Some((row, flaw)) = self.producer.refused.take() else { return Ok(()) };
        let rows = std::mem::take(&mut self.producer.rows);
        let same = (0..rows.len()).filter(|&other| rows[other] == rows[row]);
        let found = self.producer.sent_with(row, same);
        Err(self.refusal(Suspects::Outputs(found), flaw))
    }

    fn note_versions(&self, records: &[(TopicPartition, LogRecord)]) {
        let mut state = self.world.lock();
        if state.swaps.is_empty() {
            return;
        }
        let plan = state.plan.clone();
        let ledger = state.swaps.ledger(self.owner);
        for (partition, record) in records {
            let topic = &plan.topology.topic(partition.topic).name;
            ledger.produced(&plan.topology, topic, record);
        }
    }

    /// Where each output goes; refuses a partition that is not there.
    fn placed(
        &self,
        outputs: &Outputs,
        first: usize,
    ) -> Result<Vec<(TopicPartition, LogRecord)>, (usize, Flaw)> {
        let state = self.world.lock();
        let topology = &state.plan.topology;
        let headers = headers_of(&outputs.headers);
        let rows = outputs.keys.iter().zip(&outputs.values).enumerate();
        rows.map(|(row, (key, value))| {
            let partition = self.producer.rows[first + row];
            let record = LogRecord {
                timestamp: outputs.timestamps[row],
                key: key.map(<[u8]>::to_vec),
                value: value.map(<[u8]>::to_vec),
                headers: headers.get(row).cloned().unwrap_or_default(),
            };
            let topic = topology.topic(partition.topic);
            let flaw = match (0..topic.partitions).contains(&partition.partition) {
                true => flaw(&state, partition, &record),
                false => Some((Fault::Passing, "there is no such partition")),
            };
            match flaw.or_else(|| state.plan.refusals.of_letter(&topic.name, &record)) {
                Some(flaw) => Err((first + row, flaw)),
                None => Ok((partition, record)),
            }
        })
        .collect()
    }

    /// Repeats a request while the transaction before is not settled.
    fn request<T>(
        &self,
        state: &mut State,
        mut request: impl FnMut(&mut State) -> Result<T, Refusal>,
    ) -> Result<T, TransactionError> {
        for _ in 0..REPEATS_MAX {
            match request(state) {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Concurrent) => state.pass(2),
                Err(Refusal::Fenced | Refusal::Invalid) => {
                    state.note(self.pod, format_args!("{} is fenced", self.producer.id));
                    return Err(unknown("the producer is fenced"));
                }
                Err(Refusal::NotMember) => {
                    state.note(self.pod, format_args!("is no member of the generation"));
                    return Err(TransactionError::Aborted(
                        "not a member of this generation".to_owned(),
                    ));
                }
            }
        }
        Err(unknown("the transaction before is not settled"))
    }

    /// Sends what waits.
    fn send(&mut self) -> Result<(), TransactionError> {
        let epoch = self.epoch()?;
        for (partition, record) in std::mem::take(&mut self.producer.buffer) {
            self.producer.sent = true;
            self.append(&mut self.world.lock(), epoch, partition, record)?;
        }
        Ok(())
    }

    /// Appends a record, in the open transaction if there are any. Returns its offset: answers to
    /// what is produced carry no leader epoch.
    fn append(
        &self,
        state: &mut State,
        epoch: i16,
        partition: TopicPartition,
        record: LogRecord,
    ) -> Result<Offset, TransactionError> {
        if state.plan.config.exactly_once {
            let id = &self.producer.id;
            return self.request(state, |state| {
                state.cluster.produce(id, epoch, partition, record.clone())
            });
        }
        let log = state.cluster.partition_mut(partition);
        let at = log.end();
        log.append(0, record);
        Ok(at)
    }

    fn send_changes(
        &mut self,
        partition: TopicPartition,
        changes: &Changes,
        seen: &str,
    ) -> Result<Option<(TopicPartition, Offset)>, TransactionError> {
        let epoch = self.epoch()?;
        let timestamp = self.world_time(&self.world.lock());
        let pairs = changes.keys.iter().zip(&changes.values);
        let mut records: Vec<LogRecord> = pairs
            .map(|(key, value)| {
                let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
                LogRecord { timestamp, key, value, headers: Vec::new() }
            })
            .collect();
        if let Some(last) = records.last_mut().filter(|_| !seen.is_empty()) {
            last.headers.push((SEEN_HEADER.as_bytes().to_vec(), Some(seen.as_bytes().to_vec())));
        }
        self.check_changes(partition, &records)?;
        self.producer.sent |= !changes.is_empty();
        let mut state = self.world.lock();
        let mut last = None;
        for record in records {
            last = Some(self.append(&mut state, epoch, partition, record)?);
        }
        Ok(last.map(|offset| (partition, offset + 1)))
    }

    /// Refuses changes, alone or with those that are sent together with them.
    fn check_changes(
        &mut self,
        partition: TopicPartition,
        records: &[LogRecord],
    ) -> Result<(), TransactionError> {
        let mut state = self.world.lock();
        let found = (0..)
            .zip(records)
            .find_map(|(row, record)| flaw(&state, partition, record).map(|flaw| (row, flaw)));
        let Some((row, flaw)) = found else { return Ok(()) };
        let is_alone = state.prng.coin();
        drop(state);
        let rows = match is_alone {
            true => vec![row],
            false => self.producer.sent_with(row, 0..records.len()),
        };
        Err(self.refusal(Suspects::Changes(partition, rows), flaw))
    }

    fn world_time(&self, state: &State) -> i64 {
        state.clocks(self.pod).wall
    }
}
