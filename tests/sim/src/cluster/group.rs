//! The group coordinator: members, generations, eager rebalances, committed and pending offsets.

use std::collections::BTreeMap;

use sidestream_core::{
    ports::Membership,
    record::{Committed, Offset, TopicPartition},
};

use crate::plan::Timeouts;

/// An offset to commit.
pub(crate) type OffsetEntry = (TopicPartition, Committed);

/// One of an open transaction, with where its partition begins for the member that commits it.
type Pending = (OffsetEntry, Option<Offset>);

/// A member of the group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    instance: Option<String>,
    /// Whether it takes part in the rebalance under way.
    joined: bool,
    /// What it owns in the group's generation.
    pub(crate) assignment: Vec<TopicPartition>,
    /// When it was last heard.
    heard: u64,
}

/// How a member stands to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The group does not know it (any more).
    Unknown,
    /// Another member took its instance id.
    Fenced,
    /// A rebalance is under way and waits for it.
    MustJoin,
    /// A rebalance is under way and it has joined.
    Joined,
    /// It has its part in this generation.
    Stable(i32, Vec<TopicPartition>),
}

/// The group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) generation: i32,
    /// Until when a rebalance waits for members to join; `None` while stable.
    rebalance: Option<u64>,
    members: BTreeMap<String, Member>,
    instances: BTreeMap<String, String>,
    next_member: u64,
    pub(crate) offsets: BTreeMap<TopicPartition, Committed>,
    pending: BTreeMap<u64, Vec<Pending>>,
    /// Where members were told that partitions begin which had no offset.
    told: BTreeMap<(String, TopicPartition), Offset>,
    /// Where the partitions began that got an offset.
    pub(crate) begun: BTreeMap<TopicPartition, Offset>,
    /// What went wrong, for the checks.
    pub(crate) violation: Option<String>,
    /// Offsets may go back: what they stood for is lost.
    pub(crate) may_go_back: bool,
    rebalance_timeout: u64,
    session_timeout: u64,
    /// The topics of the subscription, with their partitions.
    pub(crate) topics: Vec<(sidestream_core::record::TopicIndex, i32)>,
}

impl Group {
    /// A group without members.
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        Self {
            rebalance_timeout: timeouts.rebalance,
            session_timeout: timeouts.session,
            ..Self::default()
        }
    }

    /// Joins with a new member id. A static member that comes back while all is stable takes its
    /// old part without a rebalance, and the old member id is fenced.
    pub(crate) fn join(&mut self, now: u64, instance: Option<&str>) -> String {
        self.next_member += 1;
        let id = format!("{}-m{}", instance.unwrap_or("dynamic"), self.next_member);
        let mut member =
            Member { instance: None, joined: true, assignment: Vec::new(), heard: now };
        let old = instance.and_then(|instance| self.instances.get(instance).cloned());
        let old = old.and_then(|old| self.members.remove(&old));
        if let Some(instance) = instance {
            member.instance = Some(instance.to_owned());
            self.instances.insert(instance.to_owned(), id.clone());
        }
        match (old, self.rebalance) {
            (Some(old), None) => member.assignment = old.assignment,
            (_, Some(_)) => {}
            (None, None) => self.start_rebalance(now),
        }
        self.members.insert(id.clone(), member);
        id
    }

    /// A known member joins the rebalance under way.
    pub(crate) fn rejoin(&mut self, now: u64, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.joined = true;
            member.heard = now;
        }
    }

    /// A member leaves.
    pub(crate) fn leave(&mut self, now: u64, id: &str) {
        if let Some(member) = self.members.remove(id) {
            if let Some(instance) = member.instance {
                self.instances.remove(&instance);
            }
            self.start_rebalance(now);
        }
    }

    /// Asks everybody to join again.
    pub(crate) fn start_rebalance(&mut self, now: u64) {
        if self.rebalance.is_none() {
            self.rebalance = Some(now + self.rebalance_timeout);
            self.members.values_mut().for_each(|member| member.joined = false);
        }
    }

    /// How a member stands to the group.
    pub(crate) fn standing(&self, id: &str, instance: Option<&str>) -> Standing {
        let holder = instance.and_then(|instance| self.instances.get(instance));
        if holder.is_some_and(|holder| holder != id) {
            return Standing::Fenced;
        }
        match (self.members.get(id), self.rebalance) {
            (None, _) => Standing::Unknown,
            (Some(member), Some(_)) if member.joined => Standing::Joined,
            (Some(_), Some(_)) => Standing::MustJoin,
            (Some(member), None) => Standing::Stable(self.generation, member.assignment.clone()),
        }
    }

    /// Whether a transaction of this member may commit offsets. As the real one, it takes
    /// anything from somebody who claims to be in no group.
    pub(crate) fn accepts(&self, membership: &Membership, instance: Option<&str>) -> bool {
        if membership.generation < 0 && membership.member.is_empty() {
            return true;
        }
        let holder = instance.and_then(|instance| self.instances.get(instance));
        let fenced = holder.is_some_and(|holder| *holder != membership.member);
        !fenced
            && self.members.contains_key(&membership.member)
            && membership.generation == self.generation
    }

    /// Removes who was not heard, and ends a rebalance that everybody joined.
    pub(crate) fn advance(&mut self, now: u64, alive: impl Fn(&str) -> bool) {
        for (id, member) in &mut self.members {
            if alive(id) {
                member.heard = now;
            }
        }
        let expired = |member: &Member| now > member.heard + self.session_timeout;
        let gone: Vec<String> =
            self.members.iter().filter(|(_, m)| expired(m)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.leave(now, &id);
        }
        let Some(deadline) = self.rebalance else { return };
        if now > deadline {
            self.members.retain(|_, member| member.joined);
            let members = &self.members;
            self.instances.retain(|_, id| members.contains_key(id));
        }
        if self.members.values().all(|member| member.joined) {
            self.finish_rebalance();
        }
    }

    /// Distributes partitions in ranges, so that co-partitioned ones come to the same member.
    fn finish_rebalance(&mut self) {
        self.rebalance = None;
        self.generation += 1;
        let mut order: Vec<String> = self.members.keys().cloned().collect();
        order.sort_by_key(|id| (self.members[id].instance.clone(), id.clone()));
        for (place, id) in order.iter().enumerate() {
            let mut assignment = Vec::new();
            for &(topic, partitions) in &self.topics {
                let partitions = usize::try_from(partitions).expect("not negative");
                let (each, more) = (partitions / order.len(), partitions % order.len());
                let from = place * each + place.min(more);
                let to = from + each + usize::from(place < more);
                assignment.extend((from..to).map(|partition| {
                    let partition = i32::try_from(partition).expect("a small number");
                    TopicPartition::new(topic, partition)
                }));
            }
            let member = self.members.get_mut(id).expect("a key of this map");
            member.assignment = assignment;
        }
    }

    /// A member is told where a partition begins.
    pub(crate) fn tell_begin(&mut self, member: &str, partition: TopicPartition, offset: Offset) {
        self.told.insert((member.to_owned(), partition), offset);
    }

    fn begin_of(&self, member: &str, partition: TopicPartition) -> Option<Offset> {
        self.told.get(&(member.to_owned(), partition)).copied()
    }

    /// Keeps offsets of a member for when `producer`'s transaction is settled.
    pub(crate) fn add_pending(&mut self, producer: u64, member: &str, offsets: &[OffsetEntry]) {
        let with_begin = |entry: &OffsetEntry| (entry.clone(), self.begin_of(member, entry.0));
        let pending: Vec<Pending> = offsets.iter().map(with_begin).collect();
        self.pending.entry(producer).or_default().extend(pending);
    }

    /// Whether an open transaction may change the offset of `partition`.
    pub(crate) fn is_pending(&self, partition: TopicPartition) -> bool {
        self.pending.values().flatten().any(|((pending, _), _)| *pending == partition)
    }

    /// The pending offsets of a partition, with their producers.
    pub(crate) fn pending_offsets(
        &self,
        partition: TopicPartition,
    ) -> impl Iterator<Item = (u64, Offset)> {
        self.pending.iter().flat_map(move |(&producer, offsets)| {
            let of_partition =
                offsets.iter().filter(move |((pending, _), _)| *pending == partition);
            of_partition.map(move |((_, committed), _)| (producer, committed.offset))
        })
    }

    /// The marker of `producer`'s transaction has come.
    pub(crate) fn settle(&mut self, producer: u64, commit: bool) {
        for (entry, begin) in self.pending.remove(&producer).unwrap_or_default() {
            if commit {
                self.take(entry, begin);
            }
        }
    }

    /// Takes an offset of a member outside of transactions.
    pub(crate) fn commit(&mut self, member: &str, entry: OffsetEntry) {
        let begin = self.begin_of(member, entry.0);
        self.take(entry, begin);
    }

    /// Takes an offset; it must not go back.
    fn take(&mut self, (partition, committed): OffsetEntry, begin: Option<Offset>) {
        if let (None, Some(begin)) = (self.offsets.get(&partition), begin) {
            self.begun.entry(partition).or_insert(begin);
        }
        if let Some(before) = self.offsets.get(&partition)
            && before.offset > committed.offset
            && !self.may_go_back
        {
            self.violation = Some(format!(
                "the committed offset of {partition:?} went back from {} to {}",
                before.offset, committed.offset
            ));
        }
        self.offsets.insert(partition, committed);
    }
}
