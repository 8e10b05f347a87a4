//! A worker's membership in the group: what is assigned, fetched, and from where.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    time::{Duration, Instant},
};

use sidestream_core::{
    record::{Offset, TopicPartition},
    worker::{Event, FetchEpoch, FetchPosition, Fetched, LogError, Membership},
};

use super::{
    error::{call_failed, fatal_client},
    names::Names,
    native::{Code, ConsumerClient, Message, MessageBuffer, PartitionList, Rebalance},
};

/// The most messages that one call takes out of librdkafka's queue.
const BATCH_MESSAGES_MAX: usize = 4_096;
/// How often brokers that are away are looked for.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long such a look may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a leave may take before it is left to the session's timeout.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The group member of a worker.
pub(super) struct Consumer {
    client: ConsumerClient,
    buffer: MessageBuffer,
    names: Names,
    read_headers: bool,
    timeout: Duration,
    assigned: HashMap<TopicPartition, Assigned>,
    membership: Membership,
    /// A rebalance that the worker was told of and has to answer.
    pending: Option<Rebalance>,
    leaving: Leaving,
    health: Health,
}

/// Whether the brokers can be reached.
#[derive(Default)]
struct Health {
    /// What was told to be waited for.
    waiting: Option<String>,
    /// A sign that brokers may be away, not checked yet.
    suspicion: Option<String>,
    /// When that was last checked.
    probed: Option<Instant>,
    /// How many connections were closed by then.
    connections: u64,
}

impl Health {
    fn wait_for(&mut self, why: String, events: &mut Vec<Event>) {
        if self.waiting.is_none() {
            self.waiting = Some(why.clone());
            events.push(Event::Waiting(why));
        }
    }
}

/// A partition that is read.
struct Assigned {
    epoch: FetchEpoch,
    next: Offset,
    paused: bool,
    /// The place that was in doubt last.
    doubted: Option<Offset>,
}

/// How far the leave is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// The member stays.
    No,
    /// It has unsubscribed; the worker is yet to be told of the last revocation.
    Asked,
    /// The worker was told.
    Told,
    /// It is out.
    Left,
}

impl Consumer {
    /// Joins the group for these topics.
    pub(super) fn subscribe(
        client: ConsumerClient,
        names: Names,
        topics: impl IntoIterator<Item = CString>,
        read_headers: bool,
        timeout: Duration,
    ) -> Result<Self, LogError> {
        let mut list = PartitionList::new();
        topics.into_iter().for_each(|topic| list.add(&topic, -1, -1));
        client.subscribe(&list).map_err(|failure| call_failed("subscribing", &failure))?;
        Ok(Self {
            client,
            buffer: MessageBuffer::new(BATCH_MESSAGES_MAX),
            names,
            read_headers,
            timeout,
            assigned: HashMap::new(),
            membership: nobody(),
            pending: None,
            leaving: Leaving::No,
            health: Health::default(),
        })
    }

    /// The client, for requests that any client can make.
    pub(super) fn client(&self) -> &ConsumerClient {
        &self.client
    }

    /// See [`Log::poll`](sidestream_core::worker::Log::poll).
    pub(super) fn poll(&mut self, wait: Duration, events: &mut Vec<Event>) -> Result<(), LogError> {
        if self.leaving == Leaving::Left {
            return Ok(());
        }
        self.client.fetch(&mut self.buffer, wait);
        let result = self.collect_records(events);
        self.buffer.clear();
        if result? && self.pending.is_none() {
            self.assign_all()?;
        }
        self.report_rebalance(events);
        self.report_health(events);
        match self.client.client().fatal_error() {
            Some(failure) => Err(fatal_client(&failure)),
            None => Ok(()),
        }
    }

    /// Copies the fetched messages into columns, a batch for each partition. Says whether a place
    /// is in doubt, so that all partitions have to be assigned again.
    fn collect_records(&mut self, events: &mut Vec<Event>) -> Result<bool, LogError> {
        let mut in_doubt = false;
        let first = events.len();
        let mut places: HashMap<(usize, i32), Option<usize>> = HashMap::new();
        let mut last = None;
        for message in self.buffer.iter() {
            if message.code() == Code::RD_KAFKA_RESP_ERR__PARTITION_EOF {
                events.extend(self.end_of(&message));
                // What may follow of this partition comes after its end.
                places.remove(&message.partition_key());
                last = None;
                continue;
            }
            if is_lost_place(message.code())
                && let Some(partition) = self.names.partition(message.topic(), message.partition())
                && let Some(assigned) = self.assigned.get_mut(&partition)
                && assigned.doubted != Some(assigned.next)
            {
                // librdkafka compares its place with the leader epoch that it had before a broker
                // came back, and finds that epoch's end before it. Assigned without an epoch it
                // reads on; what is truly gone is found to be so a second time.
                assigned.doubted = Some(assigned.next);
                in_doubt = true;
                continue;
            }
            if message.code() != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                note_error(&message, &mut self.health, events)?;
                continue;
            }
            let key = message.partition_key();
            let place = match last {
                Some((same, place)) if same == key => place,
                _ => *places.entry(key).or_insert_with(|| {
                    let partition = self.names.partition(message.topic(), message.partition())?;
                    let assigned = self.assigned.get(&partition)?;
                    events.push(Event::Records(Fetched {
                        partition: Some(partition),
                        epoch: assigned.epoch,
                        next: assigned.next,
                        leader_epoch: -1,
                        ..Fetched::default()
                    }));
                    Some(events.len() - 1)
                }),
            };
            last = Some((key, place));
            if let Some(Event::Records(fetched)) = place.and_then(|place| events.get_mut(place))
                && message.offset() >= fetched.next
            {
                message.append_to(&mut fetched.records, self.read_headers);
                fetched.next = message.offset() + 1;
                fetched.leader_epoch = message.leader_epoch();
            }
        }
        for event in &events[first..] {
            if let Event::Records(Fetched { partition: Some(partition), next, .. }) = event
                && let Some(assigned) = self.assigned.get_mut(partition)
            {
                assigned.next = assigned.next.max(*next);
            }
        }
        Ok(in_doubt)
    }

    /// The end of a partition as an event without records: everything before it has come.
    fn end_of(&self, message: &Message<'_>) -> Option<Event> {
        let partition = self.names.partition(message.topic(), message.partition())?;
        let epoch = self.assigned.get(&partition)?.epoch;
        Some(Event::Records(Fetched {
            partition: Some(partition),
            epoch,
            next: message.offset(),
            leader_epoch: -1,
            ..Fetched::default()
        }))
    }

    fn report_rebalance(&mut self, events: &mut Vec<Event>) {
        let Some(rebalance) = self.client.client().context().take_rebalance() else { return };
        events.push(match &rebalance {
            Rebalance::Assign(partitions) => Event::Assigned(
                partitions
                    .iter()
                    .filter_map(|(topic, partition)| self.names.by_name(topic, *partition))
                    .collect(),
            ),
            Rebalance::Revoke => Event::Revoked,
            Rebalance::Lost => Event::Lost,
        });
        if self.leaving == Leaving::Asked && rebalance != Rebalance::Lost {
            self.leaving = Leaving::Told;
        }
        self.pending = Some(rebalance);
    }

    /// Tells once that the brokers are away, and once that they are back. A lost connection or an
    /// error is only a sign: librdkafka often has another way, so it is tried before it is told.
    fn report_health(&mut self, events: &mut Vec<Event>) {
        let context = self.client.client().context();
        if let Some((_, why)) = context.take_errors().pop() {
            self.health.suspicion = Some(why);
        }
        let connections = context.closed_connections();
        if connections != std::mem::replace(&mut self.health.connections, connections) {
            let why = || "a connection was lost".to_owned();
            self.health.suspicion.get_or_insert_with(why);
        }
        let away = self.health.waiting.is_some();
        let due = self.health.probed.is_none_or(|probed| probed.elapsed() >= PROBE_INTERVAL);
        if !due || (!away && self.health.suspicion.is_none()) {
            return;
        }
        let reached = self.client.client().reaches_broker(PROBE_TIMEOUT);
        self.health.probed = Some(Instant::now());
        match (reached, self.health.suspicion.take(), away) {
            (true, _, true) => {
                self.health.waiting = None;
                events.push(Event::Recovered);
            }
            (false, Some(why), false) => self.health.wait_for(why, events),
            (true, _, false) | (false, _, true) | (false, None, false) => {}
        }
    }

    /// See [`Log::assign`](sidestream_core::worker::Log::assign).
    pub(super) fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, LogError> {
        self.assigned = positions
            .iter()
            .map(|&FetchPosition { partition, offset, epoch }| {
                (partition, Assigned { epoch, next: offset, paused: true, doubted: None })
            })
            .collect();
        if let Some(Rebalance::Revoke | Rebalance::Lost) = self.pending {
            // The assignment that this answers is gone again: there is nothing to read.
            self.assigned.clear();
            return Ok(nobody());
        }
        self.assign_all()?;
        self.pending = None;
        self.membership = self.client.membership();
        Ok(self.membership.clone())
    }

    /// Reads every assigned partition from where it is expected next.
    fn assign_all(&self) -> Result<(), LogError> {
        let (mut all, mut paused) = (PartitionList::new(), PartitionList::new());
        for (&partition, assigned) in &self.assigned {
            let topic = self.names.c_name(partition.topic);
            all.add(topic, partition.partition, assigned.next);
            if assigned.paused {
                paused.add(topic, partition.partition, -1);
            }
        }
        self.client.assign(&all).map_err(|failure| call_failed("assigning", &failure))?;
        match paused.len() {
            0 => Ok(()),
            _ => self.client.pause(&paused).map_err(|failure| call_failed("pausing", &failure)),
        }
    }

    /// See [`Log::unassign`](sidestream_core::worker::Log::unassign).
    pub(super) fn unassign(&mut self) -> Result<(), LogError> {
        self.assigned.clear();
        self.membership = nobody();
        let answer = match self.pending.take() {
            // An assignment is waited for: owning nothing is the answer that ends the wait.
            Some(Rebalance::Assign(_)) => self.client.assign(&PartitionList::new()),
            Some(Rebalance::Revoke | Rebalance::Lost) | None => self.client.unassign(),
        };
        answer.map_err(|failure| call_failed("unassigning", &failure))?;
        if self.leaving == Leaving::Told {
            self.finish_leave();
        }
        Ok(())
    }

    /// See [`Log::seek`](sidestream_core::worker::Log::seek).
    pub(super) fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), LogError> {
        let mut list = PartitionList::new();
        for &FetchPosition { partition, offset, epoch } in positions {
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            (assigned.next, assigned.epoch) = (offset, epoch);
            list.add(self.names.c_name(partition.topic), partition.partition, offset);
        }
        if list.len() == 0 || self.pending.is_some() {
            // All partitions are about to go; nothing more is read of them.
            return Ok(());
        }
        match self.client.seek(&list, self.timeout) {
            Ok(()) => Ok(()),
            Err(failure) => {
                tracing::debug!(%failure, "a seek was refused; assigning again");
                self.assign_all()
            }
        }
    }

    /// See [`Log::pause`](sidestream_core::worker::Log::pause).
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let list = self.set_paused(partitions, true);
        match list.len() == 0 || self.pending.is_some() {
            true => Ok(()),
            false => self.client.pause(&list).map_err(|failure| call_failed("pausing", &failure)),
        }
    }

    /// See [`Log::resume`](sidestream_core::worker::Log::resume).
    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let list = self.set_paused(partitions, false);
        match list.len() == 0 || self.pending.is_some() {
            true => Ok(()),
            false => self.client.resume(&list).map_err(|failure| call_failed("resuming", &failure)),
        }
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) -> PartitionList {
        let mut list = PartitionList::new();
        for partition in partitions {
            if let Some(assigned) = self.assigned.get_mut(partition)
                && assigned.paused != paused
            {
                assigned.paused = paused;
                list.add(self.names.c_name(partition.topic), partition.partition, -1);
            }
        }
        list
    }

    /// See [`Log::leave`](sidestream_core::worker::Log::leave).
    pub(super) fn leave(&mut self, events: &mut Vec<Event>) -> Result<(), LogError> {
        if self.leaving != Leaving::No {
            return Ok(());
        }
        self.leaving = Leaving::Asked;
        match self.pending.take_if(|pending| matches!(pending, Rebalance::Assign(_))) {
            Some(_) => {
                let nothing = PartitionList::new();
                self.client.assign(&nothing).map_err(|failure| call_failed("leaving", &failure))?;
            }
            None if self.membership.generation < 0 && self.pending.is_none() => {
                // Nothing was ever assigned, so librdkafka has no revocation to tell of.
                self.client.client().context().close();
                self.leaving = Leaving::Told;
                self.pending = Some(Rebalance::Revoke);
                events.push(Event::Revoked);
            }
            None => {}
        }
        self.client.unsubscribe().map_err(|failure| call_failed("leaving", &failure))
    }

    /// Waits for the leave to be on its way, then for its answer. Bounded; after that the session
    /// times out by itself.
    fn finish_leave(&mut self) {
        self.client.client().context().close();
        let since = Instant::now();
        while !self.client.membership().member.is_empty() && since.elapsed() < LEAVE_TIMEOUT {
            self.client.fetch(&mut self.buffer, Duration::from_millis(2));
            self.buffer.clear();
        }
        self.client.close();
        self.leaving = Leaving::Left;
    }

    /// Why the membership of a transaction can't commit, if it can't.
    /// A generation of before is refused by the broker in a transaction, and here outside of one.
    pub(super) fn refuse(&self, membership: &Membership, transactional: bool) -> Option<String> {
        if membership.generation < 0 || membership.member.is_empty() {
            return Some("the worker is not a member of the group".to_owned());
        }
        if !transactional && *membership != self.membership {
            return Some("the group has had a rebalance since".to_owned());
        }
        if self.client.assignment_lost() || self.pending == Some(Rebalance::Lost) {
            return Some("the worker's partitions are lost to other members".to_owned());
        }
        None
    }
}

/// Whether a partition can't be read on from where it is.
fn is_lost_place(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
            | Code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION
    )
}

fn nobody() -> Membership {
    Membership { generation: -1, member: String::new() }
}

/// An error that came instead of a record: fatal, or something to wait for.
fn note_error(
    message: &Message<'_>,
    health: &mut Health,
    events: &mut Vec<Event>,
) -> Result<(), LogError> {
    let place = |topic: &CStr| format!("{} [{}]", topic.to_string_lossy(), message.partition());
    match message.code() {
        Code::RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED | Code::RD_KAFKA_RESP_ERR__FATAL => Ok(()),
        code if is_lost_place(code) => Err(LogError::Fatal(format!(
            "input {}: {}; records were deleted or truncated before they were read: reset the \
             group's offsets of this topic, or set auto.offset.reset of the consumer to earliest \
             to go on after the gap",
            place(message.topic()),
            message.error(),
        ))),
        Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Err(LogError::Fatal(format!(
            "{}: {}; let the agent's user read the topics and the group",
            place(message.topic()),
            message.error()
        ))),
        _ => {
            health.wait_for(message.error(), events);
            Ok(())
        }
    }
}
