//! Assignments: the leader brings them, the others wait for them.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{Answer, Caller, Group, State, Synced, Ticket};

/// A request for an assignment.
#[derive(Clone, Debug)]
pub(crate) struct Sync<'a> {
    pub(crate) ticket: Ticket,
    pub(crate) caller: Caller<'a>,
    pub(crate) protocol_type: Option<&'a str>,
    pub(crate) protocol: Option<&'a str>,
    /// Of each member, from the leader.
    pub(crate) assignments: BTreeMap<String, Bytes>,
}

impl Group {
    /// Takes a request for an assignment; its answer comes with [`Group::take_answers`], perhaps
    /// later.
    pub(crate) fn sync(&mut self, sync: Sync<'_>, now_ms: i64) {
        let ticket = sync.ticket;
        if let Err(code) = self.check_sync(&sync) {
            return self.answers.push((ticket, Answer::Sync(Err(code))));
        }
        let id = sync.caller.member_id;
        if let Some(member) = self.members.get_mut(id) {
            (member.synced, member.heard_ms) = (true, now_ms);
            if self.state == State::Completing
                && let Some(before) = member.syncing.replace(ticket)
            {
                let answer = Answer::Sync(Err(ResponseError::RebalanceInProgress));
                self.answers.push((before, answer));
            }
        }
        if self.state == State::Stable {
            return self.tell_assignment(id, ticket);
        }
        if self.leader.as_deref() == Some(id) {
            self.assign(sync.assignments, now_ms);
        }
    }

    fn check_sync(&self, sync: &Sync<'_>) -> Result<(), ResponseError> {
        self.check_member(&sync.caller)?;
        self.check_generation(&sync.caller)?;
        let differs = |said: Option<&str>, own: &Option<String>| {
            said.is_some_and(|said| own.as_ref().is_some_and(|own| own != said))
        };
        if differs(sync.protocol_type, &self.protocol_type)
            || differs(sync.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing => Err(ResponseError::RebalanceInProgress),
            State::Completing | State::Stable => Ok(()),
        }
    }

    fn assign(&mut self, mut assignments: BTreeMap<String, Bytes>, now_ms: i64) {
        self.state = State::Stable;
        let mut syncing = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            member.heard_ms = member.heard_ms.max(now_ms);
            syncing.extend(member.syncing.take().map(|ticket| (id.clone(), ticket)));
        }
        for (id, ticket) in syncing {
            self.tell_assignment(&id, ticket);
        }
    }

    fn tell_assignment(&mut self, id: &str, ticket: Ticket) {
        let assignment = self.members.get(id).map(|member| member.assignment.clone());
        let synced = Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        };
        self.answers.push((ticket, Answer::Sync(Ok(synced))));
    }

    /// The time to ask for assignments is over: who hasn't is not a member any more.
    pub(super) fn drop_unsynced(&mut self, now_ms: i64) {
        self.deadline_ms = None;
        let unsynced = self.members.iter().filter(|(_, member)| !member.synced);
        let unsynced: Vec<_> = unsynced.map(|(id, _)| id.clone()).collect();
        for id in &unsynced {
            self.remove(id);
        }
        if !unsynced.is_empty() {
            self.rebalance(now_ms);
        }
    }
}
