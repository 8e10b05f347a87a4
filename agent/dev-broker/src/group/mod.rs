//! A consumer group under the classic protocol, static members included.
//!
//! ```text
//!             a member joins             all have joined, or time is up
//!   Empty ───────────────▶ Preparing ───────────────────────────────────▶ Completing
//!     ▲                      ▲    ▲                                           │ the leader
//!     │ the last one is gone │    └── a member joins, leaves, goes silent ─────┤ assigns
//!     └──────────────────────┴─────────────────────── Stable ◀────────────────┘
//! ```
//!
//! Everything here is pure: the time and new ids come in; what waiting requests are told is
//! collected, see [`Group::take_answers`].

mod answer;
mod join;
mod member;
mod offsets;
mod sync;

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

pub(super) use self::{
    answer::{Answer, JoinRefused, Joined, Peer, Synced, Ticket},
    join::Join,
    member::{Member, Protocols},
    offsets::{Committed, Offsets},
    sync::Sync,
};

/// How many members a group may have.
const MEMBERS_MAX: usize = 1_000;

/// Where a group is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Empty,
    Preparing,
    Completing,
    Stable,
}

impl State {
    /// Its name, as Kafka's tools show it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// Who asks: a member as it calls itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) member_id: &'a str,
    pub(super) instance: Option<&'a str>,
    pub(super) generation: i32,
}

/// A group: its members and its offsets.
#[derive(Debug, Default)]
pub(super) struct Group {
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// The member of each `group.instance.id`.
    instances: BTreeMap<String, String>,
    /// Ids that were given out, and until when they can be used.
    pending: BTreeMap<String, i64>,
    /// Until when the members have to join, or to ask for their assignments.
    deadline_ms: Option<i64>,
    answers: Vec<(Ticket, Answer)>,
    pub(super) offsets: Offsets,
}

impl Group {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    pub(super) fn protocol(&self) -> &str {
        self.protocol.as_deref().unwrap_or_default()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(id, member)| (id.as_str(), member))
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty() && self.offsets.is_empty()
    }

    /// What requests that waited are told now.
    pub(super) fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Whether a caller is who it says it is.
    fn check_member(&self, caller: &Caller<'_>) -> Result<(), ResponseError> {
        if let Some(instance) = caller.instance {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(id) if id != caller.member_id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        let known = self.members.contains_key(caller.member_id);
        if known { Ok(()) } else { Err(ResponseError::UnknownMemberId) }
    }

    fn check_generation(&self, caller: &Caller<'_>) -> Result<(), ResponseError> {
        let same = caller.generation == self.generation;
        if same { Ok(()) } else { Err(ResponseError::IllegalGeneration) }
    }

    /// A sign of life. It tells the member when it has to join again.
    pub(super) fn heartbeat(
        &mut self,
        caller: &Caller<'_>,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        self.check_member(caller)?;
        self.check_generation(caller)?;
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.heard_ms = now_ms;
        }
        match self.state {
            State::Preparing => Err(ResponseError::RebalanceInProgress),
            State::Empty | State::Completing | State::Stable => Ok(()),
        }
    }

    /// A member goes for good. A static one may be named by its instance id alone.
    pub(super) fn leave(&mut self, caller: &Caller<'_>, now_ms: i64) -> Result<(), ResponseError> {
        let by_instance = caller.instance.filter(|_| caller.member_id.is_empty());
        let member_id = match by_instance {
            Some(instance) => self.instances.get(instance).cloned(),
            None => {
                if self.pending.remove(caller.member_id).is_some() {
                    self.complete_if_joined(now_ms);
                    return Ok(());
                }
                self.check_member(caller)?;
                Some(caller.member_id.to_owned())
            }
        };
        let member_id = member_id.ok_or(ResponseError::UnknownMemberId)?;
        self.remove(&member_id);
        self.rebalance(now_ms);
        Ok(())
    }

    /// Whether offsets of a member, or of somebody outside while there are no members, are taken.
    pub(super) fn check_commit(
        &mut self,
        caller: &Caller<'_>,
        transactional: bool,
        now_ms: i64,
    ) -> Result<(), ResponseError> {
        if caller.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let anonymous = caller.member_id.is_empty() && caller.instance.is_none();
        if caller.generation >= 0 || !anonymous {
            self.check_member(caller)?;
            self.check_generation(caller)?;
        } else if !transactional && self.state != State::Empty {
            return Err(ResponseError::UnknownMemberId);
        }
        if !transactional && self.state == State::Completing {
            return Err(ResponseError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.heard_ms = now_ms;
        }
        Ok(())
    }

    /// Lets time pass: who is silent for too long goes, a rebalance does not wait for ever.
    pub(super) fn tick(&mut self, now_ms: i64) {
        let pending = self.pending.len();
        self.pending.retain(|_, until_ms| *until_ms >= now_ms);
        let silent = self.members.iter().filter(|(_, member)| member.is_expired(now_ms));
        let silent: Vec<_> = silent.map(|(id, _)| id.clone()).collect();
        for id in &silent {
            self.remove(id);
        }
        if !silent.is_empty() {
            self.rebalance(now_ms);
        } else if self.pending.len() < pending {
            self.complete_if_joined(now_ms);
        }
        if self.deadline_ms.is_some_and(|deadline| deadline < now_ms) {
            match self.state {
                State::Preparing => self.complete(now_ms),
                State::Completing | State::Stable => self.drop_unsynced(now_ms),
                State::Empty => self.deadline_ms = None,
            }
        }
    }

    /// Takes a member out, and tells what it waits for that it is not a member any more.
    fn remove(&mut self, member_id: &str) {
        let Some(member) = self.members.remove(member_id) else { return };
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|id| id == member_id)
        {
            self.instances.remove(instance);
        }
        self.refuse(member_id, &member, ResponseError::UnknownMemberId);
        if self.leader.as_deref() == Some(member_id) {
            self.leader = None;
        }
    }

    /// Tells a member that what it waits for is refused.
    fn refuse(&mut self, member_id: &str, member: &Member, code: ResponseError) {
        if let Some(ticket) = member.joining {
            let refused = JoinRefused { code, member_id: member_id.to_owned() };
            self.answers.push((ticket, Answer::Join(Err(refused))));
        }
        if let Some(ticket) = member.syncing {
            self.answers.push((ticket, Answer::Sync(Err(code))));
        }
    }
}

#[cfg(test)]
mod tests;
