//! A worker's connection to the simulated brokers: a member of the group, a reader, and a
//! transactional producer, with the habits of librdkafka that matter.

mod checks;
pub(crate) mod consumer;
mod ports;
mod producer;

pub(crate) use self::producer::RECORD_BYTES_MAX;
#[cfg(test)]
pub(crate) use self::producer::headers_of;

use std::{
    collections::{BTreeMap, VecDeque},
    rc::{Rc, Weak},
    time::Duration,
};

use sidestream_core::{
    ports::{
        Bounds, ChangelogEvent, FetchPosition, Fetched, Membership, PortError, Ports, Receipt,
        SourceEvent, Transaction, TransactionError, Unreadable,
    },
    record::{Committed, Offset, Outputs, TopicId, TopicIndex, TopicPartition},
    topology::Start,
};

use self::producer::Producer;
use crate::{cluster::Standing, crew::Crew, swap::Owner, world::World};

/// What a process is told when another one has taken its identity.
pub(crate) const FENCED: &str = "another process has this identity";

/// How long a look-up may take if nobody is in a hurry, in milliseconds.
const LOOK_UP_MAX: u64 = 500;

/// What is read of an assigned partition.
#[derive(Clone, Copy, Debug)]
struct Fetch {
    offset: Offset,
    epoch: u64,
    paused: bool,
    /// Whether the end was told since the last record.
    end_told: bool,
    /// It can't be read on from here.
    lost: bool,
}

/// Where the member is in a rebalance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It owns nothing.
    Nothing,
    /// It was told what it owns in this generation.
    Owns(i32),
    /// It was told that it is about to lose everything, and has not answered.
    Losing,
}

/// All that one worker has of the brokers.
pub(crate) struct SimLog {
    world: World,
    /// Which has this log, so that it must not keep it.
    crew: Weak<Crew>,
    pod: usize,
    owner: Owner,
    instance: Option<String>,
    member: Option<String>,
    part: Part,
    left: bool,
    fetches: BTreeMap<TopicPartition, Fetch>,
    /// Fetched and not delivered; also what was fetched before a seek.
    fetched: VecDeque<Fetched>,
    restores: BTreeMap<TopicPartition, Offset>,
    /// The ids of topics as they were told last.
    known: BTreeMap<TopicIndex, TopicId>,
    producer: Producer,
    waiting_told: bool,
    /// Whether work was dropped, or a task began anew, since the last assignment.
    failed_since_assigned: bool,
    /// How many polls in a row waited for nothing and found nothing, and what had happened by then.
    spins: (u32, u64),
}

impl SimLog {
    fn crew(&self) -> Rc<Crew> {
        self.crew.upgrade().expect("a worker's log is used by its crew")
    }

    /// The ports of worker `worker` of a process.
    pub(crate) fn ports(world: &World, crew: &Rc<Crew>, pod: usize, worker: usize) -> Ports {
        ports::of(Self::new(world, crew, pod, worker))
    }

    fn new(world: &World, crew: &Rc<Crew>, pod: usize, worker: usize) -> Self {
        let state = world.lock();
        let name = format!("i{}-{worker}", state.pods[pod].identity);
        Self {
            world: world.clone(),
            crew: Rc::downgrade(crew),
            pod,
            owner: Owner { pod, worker },
            instance: state.plan.static_members.then(|| name.clone()),
            member: None,
            part: Part::Nothing,
            left: false,
            fetches: BTreeMap::new(),
            fetched: VecDeque::new(),
            restores: BTreeMap::new(),
            known: BTreeMap::new(),
            producer: Producer::new(name),
            waiting_told: false,
            failed_since_assigned: false,
            spins: (0, 0),
        }
    }

    /// A point at which the process may die, and others may work while this one stands still.
    fn point(&self, point: &'static str) {
        self.world.point(self.pod, point);
        let mut state = self.world.lock();
        let rate = state.faults().pause;
        if state.prng.one_in(rate) {
            let stopped = state.prng.coin();
            let turns = state.prng.between(1, 40);
            state.note(self.pod, format_args!("stands still in {point}, stopped: {stopped}"));
            let before = std::mem::replace(&mut state.pods[self.pod].stopped, stopped);
            let began = state.now;
            drop(state);
            self.crew().run_others(&self.world, turns);
            let mut state = self.world.lock();
            state.pods[self.pod].stopped = before;
            let milliseconds = state.now - began;
            let now = state.now;
            state.time_sheet(self.owner).stood_still(milliseconds, now);
            drop(state);
            self.world.survive(self.pod);
        }
    }

    /// A point at which the brokers may be away.
    fn reach(&self, point: &'static str) -> Result<(), PortError> {
        self.reach_within(point, u64::MAX)
    }

    /// The same, for a look-up that may take up to `look_up_max` milliseconds.
    fn reach_within(&self, point: &'static str, look_up_max: u64) -> Result<(), PortError> {
        self.point(point);
        let mut state = self.world.lock();
        state.dawdle(|slow| match point {
            "log.poll" | "log.changelogs" => 0,
            "log.committed" | "log.bounds" => slow.look_up.min(look_up_max),
            _ => slow.log,
        });
        let rate = state.faults().unavailable;
        if state.prng.one_in(rate) {
            state.note(self.pod, format_args!("{point}: brokers are away"));
            return Err(PortError::Unavailable("no broker answers".to_owned()));
        }
        Ok(())
    }

    fn assigned(&self, partition: TopicPartition) {
        if !self.fetches.contains_key(&partition) {
            self.world.violate(format_args!("{partition:?} is not assigned"));
        }
    }

    /// Who the member is in the generation that it was told of.
    fn membership(&self) -> Membership {
        match (self.part, &self.member) {
            (Part::Owns(generation), Some(member)) => {
                Membership { generation, member: member.clone() }
            }
            (Part::Owns(_) | Part::Nothing | Part::Losing, _) => Membership::none(),
        }
    }

    /// Takes part in the group. Returns what is to be told of it.
    fn serve_group(&mut self) -> Result<Option<SourceEvent>, PortError> {
        let mut state = self.world.lock();
        let now = state.now;
        if self.left {
            if self.part == Part::Nothing
                && let Some(member) = self.member.take()
            {
                state.members.remove(&member);
                state.cluster.group.leave(now, &member);
            }
            let told = matches!(self.part, Part::Owns(_));
            self.part = if told { Part::Losing } else { self.part };
            return Ok(told.then_some(SourceEvent::Revoked));
        }
        let Some(member) = self.member.clone() else {
            let member = state.cluster.group.join(now, self.instance.as_deref());
            state.members.insert(member.clone(), self.pod);
            state.note(self.pod, format_args!("joins as {member}"));
            self.member = Some(member);
            return Ok(None);
        };
        let standing = state.cluster.group.standing(&member, self.instance.as_deref());
        match (standing, self.part) {
            (Standing::Fenced, _) => Err(PortError::Fatal(FENCED.to_owned())),
            (Standing::Unknown, Part::Owns(_)) => {
                self.part = Part::Losing;
                Ok(Some(SourceEvent::Lost))
            }
            (Standing::Unknown, Part::Nothing) => {
                self.member = None;
                Ok(None)
            }
            (Standing::MustJoin, Part::Owns(_)) => {
                self.part = Part::Losing;
                Ok(Some(SourceEvent::Revoked))
            }
            (Standing::MustJoin, Part::Nothing) => {
                state.cluster.group.rejoin(now, &member);
                Ok(None)
            }
            (Standing::Stable(generation, partitions), Part::Nothing) => {
                if state.prng.one_in(3) {
                    return Ok(None); // The assignment is still on its way.
                }
                self.part = Part::Owns(generation);
                Ok(Some(SourceEvent::Assigned(partitions)))
            }
            (Standing::Stable(generation, _), Part::Owns(known)) if generation != known => {
                // A rebalance went by without this member.
                self.part = Part::Losing;
                self.member = None;
                Ok(Some(SourceEvent::Lost))
            }
            (_, Part::Losing) => {
                state.violate(format_args!("p{} polls before it let go", self.pod));
                drop(state);
                self.world.survive(self.pod);
                Ok(None)
            }
            (Standing::Joined | Standing::Stable(..), _) => Ok(None),
        }
    }
}

/// What a worker calls: see the traits in [`ports`].
impl SimLog {
    fn poll(&mut self, wait: Duration, events: &mut Vec<SourceEvent>) -> Result<(), PortError> {
        self.world.lock().time_sheet(self.owner).polled();
        if let Err(error) = self.reach("log.poll") {
            if !self.waiting_told {
                self.waiting_told = true;
                events.push(SourceEvent::Waiting("no broker answers".to_owned()));
            }
            drop(error);
            return Ok(());
        }
        if std::mem::take(&mut self.waiting_told) {
            events.push(SourceEvent::Recovered);
        }
        if !self.left && self.part == Part::Nothing && !self.settle_producer() {
            return Ok(());
        }
        let told = events.len();
        if let Some(event) = self.serve_group()? {
            self.world.lock().note(self.pod, format_args!("is told {event:?}"));
            events.push(event);
            return Ok(());
        }
        self.fetch(events);
        self.give(events);
        self.note_delivered(events);
        // While it restores, it waits for changelogs.
        if events.len() == told && self.restores.is_empty() {
            self.wait(wait);
        }
        Ok(())
    }

    fn poll_changelogs(&mut self, wait: Duration, events: &mut Vec<ChangelogEvent>) {
        if self.restores.is_empty() || self.reach("log.changelogs").is_err() {
            return;
        }
        self.deliver_changelogs(events);
        if events.is_empty() {
            self.wait(wait);
        }
    }

    fn wait(&mut self, wait: Duration) {
        self.check_wait(wait);
        let mut state = self.world.lock();
        let most = u64::try_from(wait.as_millis()).unwrap_or(0).min(50);
        let milliseconds = state.prng.between(0, most);
        state.pass(milliseconds);
    }

    fn assign(&mut self, positions: &[FetchPosition]) -> Result<Membership, PortError> {
        self.reach("log.assign")?;
        self.failed_since_assigned = false;
        self.fetches.clear();
        self.world.lock().time_sheet(self.owner).forget_waiting();
        self.drop_some_fetched();
        for position in positions {
            let FetchPosition { partition, offset, epoch } = *position;
            let fetch = Fetch { offset, epoch, paused: true, end_told: false, lost: false };
            self.fetches.insert(partition, fetch);
        }
        let membership = self.membership();
        self.world.lock().note(self.pod, format_args!("assigns {positions:?} as {membership:?}"));
        self.point("log.assigned");
        Ok(membership)
    }

    fn unassign(&mut self) -> Result<(), PortError> {
        self.point("log.unassign");
        self.fetches.clear();
        self.world.lock().time_sheet(self.owner).forget_waiting();
        self.drop_some_fetched();
        if self.part == Part::Losing {
            self.part = Part::Nothing;
        }
        Ok(())
    }

    fn seek(&mut self, positions: &[FetchPosition]) -> Result<(), PortError> {
        self.reach("log.seek")?;
        self.world.lock().time_sheet(self.owner).forget_waiting();
        self.drop_some_fetched();
        for position in positions {
            self.assigned(position.partition);
            self.world.lock().note(self.pod, format_args!("seeks {position:?}"));
            let fetch = self.fetches.get_mut(&position.partition).expect("checked");
            fetch.offset = position.offset;
            fetch.epoch = position.epoch;
            (fetch.end_told, fetch.lost) = (false, false);
        }
        Ok(())
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Option<Committed>>, PortError> {
        let look_up_max = self.look_up_max("log.committed", time_max);
        self.note_starting(partitions);
        self.reach_within("log.committed", look_up_max)?;
        for _ in 0..5 {
            let mut state = self.world.lock();
            let group = &state.cluster.group;
            if !partitions.iter().any(|&partition| group.is_pending(partition)) {
                let offsets = &group.offsets;
                let found: Vec<_> = partitions.iter().map(|p| offsets.get(p).cloned()).collect();
                for (&partition, found) in partitions.iter().zip(&found) {
                    state.places.found((self.owner, partition), found.as_ref());
                }
                state.note(self.pod, format_args!("committed: {found:?}"));
                return Ok(found);
            }
            state.note(self.pod, format_args!("committed: pending"));
            state.pass(2);
            let turns = state.prng.between(0, 6);
            drop(state);
            self.crew().run_others(&self.world, turns);
            self.world.survive(self.pod);
        }
        Err(PortError::Unavailable("offsets are pending".to_owned()))
    }

    fn start_offset(
        &mut self,
        partition: TopicPartition,
        start: Start,
        time_max: Duration,
    ) -> Result<Offset, PortError> {
        let look_up_max = self.look_up_max("log.bounds", time_max);
        self.reach_within("log.bounds", look_up_max)?;
        let mut state = self.world.lock();
        if !state.plan.may_start(partition, start) {
            state.violate(format_args!("{partition:?} is to start with {start:?}"));
        }
        let offset = state.cluster.partition(partition).start_of(start);
        state.note(self.pod, format_args!("{partition:?} starts ({start:?}) at {offset}"));
        state.places.begins(self.owner, partition, offset);
        if let Some(member) = &self.member {
            state.cluster.group.tell_begin(member, partition, offset);
        }
        Ok(offset)
    }

    fn bounds(
        &mut self,
        partitions: &[TopicPartition],
        time_max: Duration,
    ) -> Result<Vec<Result<Bounds, Unreadable>>, PortError> {
        let look_up_max = self.look_up_max("log.bounds", time_max);
        self.world.lock().asks(self.pod, partitions);
        self.reach_within("log.bounds", look_up_max)?;
        let mut state = self.world.lock();
        let rate = 8 * state.faults().unavailable;
        let bounds = partitions
            .iter()
            .map(|&partition| {
                if state.prng.one_in(rate) {
                    return Err(Unreadable::ForNow("a topic is not there".to_owned()));
                }
                let topic_id = state.topic_id(partition.topic);
                let before = self.known.insert(partition.topic, topic_id);
                // Tasks that read the one before start again.
                self.failed_since_assigned |= before.is_some_and(|id| id != topic_id);
                let log = state.cluster.partition(partition);
                Ok(Bounds { start: log.start, end: log.end(), topic_id })
            })
            .collect();
        state.note(self.pod, format_args!("bounds: {bounds:?}"));
        Ok(bounds)
    }

    fn read(&mut self, partition: TopicPartition, offset: Offset) -> Result<(), PortError> {
        self.reach("log.restore")?;
        let mut state = self.world.lock();
        state.note(self.pod, format_args!("restores {partition:?} from {offset}"));
        state.restores(self.pod, partition);
        drop(state);
        self.restores.insert(partition, offset);
        Ok(())
    }

    fn produce(&mut self, outputs: &Outputs) -> Result<(), TransactionError> {
        let reached = self.reach("log.produce").map_err(TransactionError::from);
        let result = reached.and_then(|()| self.produce_early(outputs));
        self.note_failure(result.as_ref().err());
        result
    }

    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        self.check_age();
        let reached = self.reach("commit.begin").map_err(TransactionError::from);
        let result = reached.and_then(|()| self.commit_transaction(transaction));
        self.note_commit(result.as_ref().err());
        result
    }

    fn deliver(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError> {
        let reached = self.reach("commit.begin").map_err(TransactionError::from);
        let result = reached.and_then(|()| self.deliver_all(transaction));
        self.note_failure(result.as_ref().err());
        result
    }

    fn commit_offsets(
        &mut self,
        offsets: &[(TopicPartition, Committed)],
        membership: &Membership,
    ) -> Result<(), TransactionError> {
        let result = self.commit_delivered(offsets, membership);
        self.note_commit(result.as_ref().err());
        result
    }

    fn abort(&mut self) -> Result<(), TransactionError> {
        self.point("log.abort");
        self.failed_since_assigned = true;
        self.note_dropped();
        self.abort_transaction()
    }

    fn recover(&mut self) -> Result<(), PortError> {
        self.world.lock().time_sheet(self.owner).forget_others();
        let result = self.reach("log.recover").and_then(|()| self.renew_producer());
        if result.is_err() {
            let mut state = self.world.lock();
            let now = state.now;
            state.swaps.ledger(self.owner).waits(now);
        }
        result
    }

    fn purge(&mut self, below: &[(TopicPartition, Offset)]) {
        let mut state = self.world.lock();
        for &(partition, offset) in below {
            let committed = state.cluster.decided_offset(partition);
            if offset > committed.max(state.cluster.partition(partition).start) {
                state.violate(format_args!(
                    "{partition:?} was purged below {offset}, but {committed} is committed"
                ));
            }
            let log = state.cluster.partition_mut(partition);
            log.start = log.start.max(offset.min(log.stable_end()));
        }
        drop(state);
        self.world.survive(self.pod);
    }
}
