//! A worker's membership in the group: what is assigned, fetched, and from where.

use std::{
    collections::HashMap,
    ffi::CString,
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    ports::{FetchPosition, Fetched, Membership, PortError, SourceEvent, TransactionError},
    record::{Committed, FetchEpoch, Offset, Records, TopicPartition},
};

use super::{
    config::Config,
    error::{call_failed, fatal_client, remedy},
    health::Health,
    names::Names,
    native::{Code, ConsumerClient, Failure, Message, MessageBuffer, PartitionList, Rebalance},
    offsets::committed_list,
    place::{Assigned, note_error},
};

/// The most messages that one call takes out of librdkafka's queue.
const BATCH_MESSAGES_MAX: usize = 4_096;
/// How long a leave may take before it is left to the session's timeout.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often in a row a member joins anew: two processes with one identity must not take turns for
/// ever.
const REJOINS_MAX: u32 = 5;

/// The group member of a worker.
pub(super) struct Consumer {
    config: Arc<Config>,
    worker: usize,
    topics: Vec<CString>,
    client: ConsumerClient,
    buffer: MessageBuffer,
    names: Names,
    assigned: HashMap<TopicPartition, Assigned>,
    membership: Membership,
    /// A rebalance that the worker was told of and has to answer.
    pending: Option<Rebalance>,
    leaving: Leaving,
    /// The member was fenced by itself, and joins anew once this was answered.
    rejoining: bool,
    /// When it joined anew last, and how often it has since it was last in peace.
    rejoined: Option<(Instant, u32)>,
    /// How many connections were closed when the last assignment was taken.
    connections_at_assignment: u64,
    /// The client has taken an assignment, as a member that the group had given an id.
    was_assigned: bool,
    /// All partitions have to be assigned again: places are in doubt.
    in_doubt: bool,
    health: Health,
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
    /// Joins the group for these topics, as the member of worker number `worker`.
    pub(super) fn join(
        config: &Arc<Config>,
        worker: usize,
        names: Names,
        topics: Vec<CString>,
    ) -> Result<Self, PortError> {
        Ok(Self {
            client: subscribed(config, worker, &topics)?,
            config: Arc::clone(config),
            worker,
            topics,
            buffer: MessageBuffer::new(BATCH_MESSAGES_MAX),
            names,
            assigned: HashMap::new(),
            membership: Membership::none(),
            pending: None,
            leaving: Leaving::No,
            rejoining: false,
            rejoined: None,
            connections_at_assignment: 0,
            was_assigned: false,
            in_doubt: false,
            health: Health::default(),
        })
    }

    /// The client, for requests that any client can make.
    pub(super) fn client(&self) -> &ConsumerClient {
        &self.client
    }

    /// The partitions that are assigned.
    pub(super) fn assigned(&self) -> impl Iterator<Item = TopicPartition> + Clone {
        self.assigned.keys().copied()
    }

    /// See [`Source::poll`](sidestream_core::ports::Source::poll).
    pub(super) fn poll(
        &mut self,
        wait: Duration,
        events: &mut Vec<SourceEvent>,
    ) -> Result<(), PortError> {
        if self.leaving == Leaving::Left {
            return Ok(());
        }
        self.client.fetch(&mut self.buffer, wait);
        self.collect_records(events);
        self.buffer.clear();
        if self.in_doubt && self.pending.is_none() {
            self.assign_all()?;
            self.in_doubt = false;
        }
        self.report_rebalance(events);
        self.health.report(self.client.client(), events);
        match self.client.client().fatal_error() {
            Some(failure) if self.is_fenced_by_itself(&failure) => self.rejoin(&failure, events),
            Some(failure) => Err(fatal_client(&failure)),
            None => Ok(()),
        }
    }

    /// Whether the member that took this one's place is likely itself.
    ///
    /// - A client whose session has timed out forgets its member id, and goes on with heartbeats until
    ///   the worker has given up what it had. The broker takes one without an id for a process that
    ///   another one has replaced. Only itself can be fenced so: whom another process replaces has its
    ///   id still.
    /// - After a lost connection a client repeats its join, and the broker takes the repetition for
    ///   another process with the same instance id.
    ///
    /// If it is another process after all, that one is fenced now, and has lost neither: it ends with
    /// the remedy.
    fn is_fenced_by_itself(&self, failure: &Failure) -> bool {
        if failure.code != Code::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID || self.leaving != Leaving::No
        {
            return false;
        }
        let has_lost_its_session = self.was_assigned && self.client.membership().member.is_empty();
        let context = self.client.client().context();
        // Brokers close what is idle for some minutes; that has nothing to do with a join.
        let has_lost_a_connection = context.closed_connections() != self.connections_at_assignment
            && context.last_closed().is_some_and(|since| since < self.config.rejoin_time_max);
        // Brokers that were away may read what the client before this one had asked them for only
        // after this one has joined.
        let by_the_one_before = self.rejoined.is_some_and(|(at, times)| {
            at.elapsed() < self.config.rejoin_time_max && times < REJOINS_MAX
        });
        has_lost_its_session || has_lost_a_connection || by_the_one_before
    }

    /// Gives up what the fenced member had; a new one joins once that was answered.
    fn rejoin(
        &mut self,
        failure: &Failure,
        events: &mut Vec<SourceEvent>,
    ) -> Result<(), PortError> {
        if std::mem::replace(&mut self.rejoining, true) {
            // It was answered, but there was no new client.
            return self.join_anew();
        }
        tracing::warn!(%failure, "joining the group anew, after a session or a connection was lost");
        if !matches!(self.pending, Some(Rebalance::Revoke | Rebalance::Lost)) {
            self.pending = Some(Rebalance::Lost);
            events.push(SourceEvent::Lost);
        }
        Ok(())
    }

    fn join_anew(&mut self) -> Result<(), PortError> {
        self.client = subscribed(&self.config, self.worker, &self.topics)?;
        (self.rejoining, self.pending) = (false, None);
        let time_max = self.config.rejoin_time_max;
        let before = self.rejoined.filter(|(at, _)| at.elapsed() < time_max);
        self.rejoined = Some((Instant::now(), before.map_or(0, |(_, times)| times) + 1));
        self.connections_at_assignment = 0;
        self.was_assigned = false;
        self.health.forget_connections();
        Ok(())
    }

    /// Copies the fetched messages into columns, a batch for each partition.
    fn collect_records(&mut self, events: &mut Vec<SourceEvent>) {
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
            if message.code() != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                self.in_doubt |= note_error(
                    &message,
                    (&self.names, &mut self.assigned),
                    &mut self.health,
                    events,
                );
                continue;
            }
            let key = message.partition_key();
            let place = match last {
                Some((same, place)) if same == key => place,
                _ => *places.entry(key).or_insert_with(|| {
                    let partition = self.names.partition(message.topic(), message.partition())?;
                    let assigned = self.assigned.get(&partition)?;
                    let Assigned { epoch, next, .. } = *assigned;
                    events.push(SourceEvent::Records(nothing_of(partition, epoch, next)));
                    Some(events.len() - 1)
                }),
            };
            last = Some((key, place));
            if let Some(SourceEvent::Records(fetched)) =
                place.and_then(|place| events.get_mut(place))
                && message.offset() >= fetched.next
            {
                message.append_to(&mut fetched.records, self.config.read_headers);
                fetched.next = message.offset() + 1;
            }
        }
        for event in &events[first..] {
            if let SourceEvent::Records(Fetched { partition, next, records, .. }) = event
                && let Some(assigned) = self.assigned.get_mut(partition)
            {
                assigned.next = assigned.next.max(*next);
                assigned.ended = records.offsets.is_empty();
                assigned.doubted = None; // It is there.
            }
        }
    }

    /// The end of a partition as an event without records: everything before it has come.
    fn end_of(&self, message: &Message<'_>) -> Option<SourceEvent> {
        let partition = self.names.partition(message.topic(), message.partition())?;
        let epoch = self.assigned.get(&partition)?.epoch;
        Some(SourceEvent::Records(nothing_of(partition, epoch, message.offset())))
    }

    fn report_rebalance(&mut self, events: &mut Vec<SourceEvent>) {
        let Some(rebalance) = self.client.client().context().take_rebalance() else { return };
        events.push(match &rebalance {
            Rebalance::Assign(partitions) => SourceEvent::Assigned(
                partitions
                    .iter()
                    .filter_map(|(topic, partition)| self.names.by_name(topic, *partition))
                    .collect(),
            ),
            Rebalance::Revoke => SourceEvent::Revoked,
            Rebalance::Lost => SourceEvent::Lost,
        });
        if self.leaving == Leaving::Asked && rebalance != Rebalance::Lost {
            self.leaving = Leaving::Told;
        }
        self.pending = Some(rebalance);
    }

    /// See [`Source::assign`](sidestream_core::ports::Source::assign).
    pub(super) fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, PortError> {
        self.assigned = positions
            .iter()
            .map(|&FetchPosition { partition, offset, epoch }| {
                (partition, Assigned::new(epoch, offset))
            })
            .collect();
        if let Some(Rebalance::Revoke | Rebalance::Lost) = self.pending {
            // The assignment that this answers is gone again: there is nothing to read.
            self.assigned.clear();
            return Ok(Membership::none());
        }
        self.assign_all()?;
        self.pending = None;
        self.membership = self.client.membership();
        self.connections_at_assignment = self.client.client().context().closed_connections();
        self.was_assigned = true;
        Ok(self.membership.clone())
    }

    /// Reads every assigned partition from where it is expected next.
    fn assign_all(&self) -> Result<(), PortError> {
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

    /// See [`Source::unassign`](sidestream_core::ports::Source::unassign).
    pub(super) fn unassign(&mut self) -> Result<(), PortError> {
        self.assigned.clear();
        self.membership = Membership::none();
        if self.rejoining {
            return self.join_anew();
        }
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

    /// See [`Source::seek`](sidestream_core::ports::Source::seek).
    pub(super) fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), PortError> {
        let mut list = PartitionList::new();
        let mut was_lost = false;
        for &FetchPosition { partition, offset, epoch } in positions {
            let Some(assigned) = self.assigned.get_mut(&partition) else { continue };
            was_lost |= assigned.lost;
            *assigned = Assigned { paused: assigned.paused, ..Assigned::new(epoch, offset) };
            list.add(self.names.c_name(partition.topic), partition.partition, offset);
        }
        if list.len() == 0 || self.pending.is_some() {
            // All partitions are about to go; nothing more is read of them.
            return Ok(());
        }
        if was_lost {
            // librdkafka seeks in nothing that it has given up.
            self.in_doubt = true;
            return Ok(());
        }
        match self.client.seek(&list, self.config.request_timeout) {
            Ok(()) => Ok(()),
            Err(failure) => {
                tracing::debug!(%failure, "a seek was refused; assigning again");
                self.assign_all()
            }
        }
    }

    /// See [`Source::pause`](sidestream_core::ports::Source::pause).
    pub(super) fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        let list = self.set_paused(partitions, true);
        match list.len() == 0 || self.pending.is_some() {
            true => Ok(()),
            false => self.client.pause(&list).map_err(|failure| call_failed("pausing", &failure)),
        }
    }

    /// See [`Source::resume`](sidestream_core::ports::Source::resume).
    pub(super) fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), PortError> {
        let ended = partitions.iter().filter_map(|partition| {
            let assigned = self.assigned.get(partition).filter(|at| at.paused && at.ended)?;
            let (offset, epoch) = (assigned.next, assigned.epoch);
            Some(FetchPosition { partition: *partition, offset, epoch })
        });
        // librdkafka takes the message that tells an end for a record: a partition that is paused
        // after it goes on one offset too far.
        let ended: Vec<_> = ended.collect();
        self.seek(&ended)?;
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

    /// See [`Source::leave`](sidestream_core::ports::Source::leave).
    pub(super) fn leave(&mut self, events: &mut Vec<SourceEvent>) -> Result<(), PortError> {
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
                events.push(SourceEvent::Revoked);
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

    /// See [`Source::lost`](sidestream_core::ports::Source::lost).
    /// A generation of before is refused by the broker in a transaction, and here outside of one.
    pub(super) fn lost(&self, membership: &Membership) -> Option<String> {
        if !self.config.exactly_once && *membership != self.membership {
            return Some("the group has had a rebalance since".to_owned());
        }
        let is_lost = self.client.assignment_lost() || self.pending == Some(Rebalance::Lost);
        is_lost.then(|| "the worker's partitions are lost to other members".to_owned())
    }

    /// See [`Source::commit`](sidestream_core::ports::Source::commit).
    pub(super) fn commit(
        &self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError> {
        if let Some(why) = self.lost(membership) {
            return Err(TransactionError::Aborted(why));
        }
        let list = committed_list(&self.names, offsets);
        self.client.commit(&list, self.config.revoke_time_max).map_err(|failure| {
            let advice = remedy(failure.code).map_or_else(String::new, |text| format!("; {text}"));
            TransactionError::Aborted(format!("{failure}{advice}"))
        })
    }
}

/// A new member that asks for these topics.
pub(super) fn subscribed(
    config: &Config,
    worker: usize,
    topics: &[CString],
) -> Result<ConsumerClient, PortError> {
    let client = ConsumerClient::new(config.member_client(worker)?)
        .map_err(|failure| PortError::Fatal(failure.to_string()))?;
    let mut list = PartitionList::new();
    topics.iter().for_each(|topic| list.add(topic, -1, -1));
    client.subscribe(&list).map_err(|failure| call_failed("subscribing", &failure))?;
    Ok(client)
}

/// What was read of a partition before there is any record.
fn nothing_of(partition: TopicPartition, epoch: FetchEpoch, next: Offset) -> Fetched {
    Fetched { partition, epoch, records: Records::default(), next }
}
