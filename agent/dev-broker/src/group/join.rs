//! Joining: from the first member's request to a new generation.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::{
    Answer, Caller, Group, JoinRefused, Joined, MEMBERS_MAX, Member, Protocols, State, Ticket,
    answer::Peer,
};

/// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<i32> = 6_000..=1_800_000;

/// A request to join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) ticket: Ticket,
    /// Empty for a new member.
    pub(crate) member_id: String,
    /// What a new member would be called.
    pub(crate) new_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Protocols,
    /// Whether a new member is given its id first, and joins with its second request.
    pub(crate) id_first: bool,
    /// Whether a leader can be told to leave the assignment as it is.
    pub(crate) can_skip_assignment: bool,
}

impl Group {
    /// Takes a request to join; its answer comes with [`Group::take_answers`], perhaps later.
    pub(crate) fn join(&mut self, join: Join, now_ms: i64) {
        let ticket = join.ticket;
        let refused = |code, member_id: &str| {
            Answer::Join(Err(JoinRefused { code, member_id: member_id.to_owned() }))
        };
        let answer = match self.check_join(&join) {
            Err(code) => refused(code, &join.member_id),
            Ok(()) if !join.member_id.is_empty() => match self.join_known(join, now_ms) {
                Ok(()) => return,
                Err((code, member_id)) => refused(code, &member_id),
            },
            Ok(()) => {
                let known = join.instance.as_ref().and_then(|own| self.instances.get(own).cloned());
                match known {
                    Some(old_id) => return self.replace(&old_id, join, now_ms),
                    None if join.instance.is_none() && join.id_first => {
                        let until_ms = now_ms + i64::from(join.session_timeout_ms);
                        self.pending.insert(join.new_id.clone(), until_ms);
                        refused(ResponseError::MemberIdRequired, &join.new_id)
                    }
                    None => {
                        let id = join.new_id.clone();
                        return self.add(&id, join, now_ms);
                    }
                }
            }
        };
        self.answers.push((ticket, answer));
    }

    fn check_join(&self, join: &Join) -> Result<(), ResponseError> {
        if !SESSION_TIMEOUT_MS.contains(&join.session_timeout_ms) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let known = self.members.contains_key(&join.member_id);
        if !known && self.members.len() + self.pending.len() >= MEMBERS_MAX {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let others = || self.members.iter().filter(|(id, _)| **id != join.member_id);
        let common = |name: &str| others().all(|(_, member)| member.supports(name));
        let same_type = self.protocol_type.as_ref().is_none_or(|own| *own == join.protocol_type);
        let fits = same_type && join.protocols.iter().any(|(name, _)| common(name));
        if self.members.is_empty() || fits {
            Ok(())
        } else {
            Err(ResponseError::InconsistentGroupProtocol)
        }
    }

    fn join_known(&mut self, join: Join, now_ms: i64) -> Result<(), (ResponseError, String)> {
        let id = join.member_id.clone();
        if self.pending.remove(&id).is_some() {
            self.add(&id, join, now_ms);
            return Ok(());
        }
        let caller = Caller { member_id: &id, instance: join.instance.as_deref(), generation: -1 };
        self.check_member(&caller).map_err(|code| (code, id.clone()))?;
        let member = &self.members[&id];
        let unchanged = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(&id);
        match self.state {
            // Its answer was lost.
            State::Completing if unchanged => self.tell_generation(&id, join.ticket),
            // A leader that joins again asks for a rebalance.
            State::Stable if unchanged && !is_leader => self.tell_generation(&id, join.ticket),
            State::Empty => return Err((ResponseError::UnknownMemberId, id)),
            State::Preparing | State::Completing | State::Stable => {
                self.update(&id, join, now_ms);
                self.rebalance(now_ms);
            }
        }
        Ok(())
    }

    fn tell_generation(&mut self, id: &str, ticket: Ticket) {
        if let Some(member) = self.members.get_mut(id) {
            member.synced = false;
        }
        let joined = self.joined(id);
        self.answers.push((ticket, Answer::Join(Ok(joined))));
    }

    fn add(&mut self, id: &str, join: Join, now_ms: i64) {
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let member = Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            synced: false,
            heard_ms: now_ms,
        };
        self.members.insert(id.to_owned(), member);
        self.update(id, join, now_ms);
        self.rebalance(now_ms);
    }

    fn update(&mut self, id: &str, join: Join, now_ms: i64) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        member.protocols = join.protocols;
        member.heard_ms = now_ms;
        if let Some(before) = member.joining.replace(join.ticket) {
            // It asks a second time; whoever may still wait for the first answer asks again.
            let code = ResponseError::RebalanceInProgress;
            let refused = JoinRefused { code, member_id: id.to_owned() };
            self.answers.push((before, Answer::Join(Err(refused))));
        }
    }

    /// A static member is back under a new id: it takes the place of the old one, which is shut
    /// out. As long as nobody else is concerned there is no rebalance.
    fn replace(&mut self, old_id: &str, join: Join, now_ms: i64) {
        let Some(mut member) = self.members.remove(old_id) else { return };
        self.refuse(old_id, &member, ResponseError::FencedInstanceId);
        (member.joining, member.syncing, member.synced) = (None, None, false);
        let id = join.new_id.clone();
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let was_leader = self.leader.as_deref() == Some(old_id);
        if was_leader {
            self.leader = Some(id.clone());
        }
        member.client_id.clone_from(&join.client_id);
        member.client_host.clone_from(&join.client_host);
        self.members.insert(id.clone(), member);
        let (ticket, can_skip) = (join.ticket, join.can_skip_assignment);
        self.update(&id, join, now_ms);
        if self.state != State::Stable || self.select_protocol() != self.protocol {
            return self.rebalance(now_ms);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = None;
        }
        let mut joined = self.joined(&id);
        if was_leader && can_skip {
            joined.skip_assignment = true;
        } else if was_leader {
            // It must not assign anew: it is told that the old one leads.
            (joined.leader, joined.peers) = (old_id.to_owned(), Vec::new());
        }
        self.answers.push((ticket, Answer::Join(Ok(joined))));
    }

    /// Begins a rebalance if none is in preparation, and ends it if all members have joined.
    pub(super) fn rebalance(&mut self, now_ms: i64) {
        let before = self.state;
        if before == State::Preparing {
            return self.complete_if_joined(now_ms);
        }
        if before == State::Completing {
            let members: Vec<_> = self.members.values_mut().map(|m| m.syncing.take()).collect();
            for ticket in members.into_iter().flatten() {
                let answer = Answer::Sync(Err(ResponseError::RebalanceInProgress));
                self.answers.push((ticket, answer));
            }
        }
        self.state = State::Preparing;
        self.deadline_ms = Some(now_ms + i64::from(self.rebalance_timeout_ms()));
        if before == State::Empty { self.complete(now_ms) } else { self.complete_if_joined(now_ms) }
    }

    fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn complete_if_joined(&mut self, now_ms: i64) {
        let all = self.members.values().all(|member| member.joining.is_some());
        if self.state == State::Preparing && all && self.pending.is_empty() {
            self.complete(now_ms);
        }
    }

    /// Begins the next generation with who has joined. A static member that hasn't stays one.
    pub(super) fn complete(&mut self, now_ms: i64) {
        let gone = |member: &Member| member.joining.is_none() && member.instance.is_none();
        let gone: Vec<_> =
            self.members.iter().filter(|(_, m)| gone(m)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(&id);
        }
        if self.members.is_empty() {
            self.generation += 1;
            (self.state, self.deadline_ms) = (State::Empty, None);
            (self.leader, self.protocol) = (None, None);
            return;
        }
        let has_joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let Some(leader) = self.members.keys().find(|id| has_joined(id)).cloned() else {
                // Only static members are left, and none has come: their sessions decide.
                self.deadline_ms = Some(now_ms + i64::from(self.rebalance_timeout_ms()));
                return;
            };
            self.leader = Some(leader);
        }
        self.begin_generation(now_ms);
    }

    fn begin_generation(&mut self, now_ms: i64) {
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.state = State::Completing;
        self.deadline_ms = Some(now_ms + i64::from(self.rebalance_timeout_ms()));
        let mut joining = Vec::new();
        for (id, member) in &mut self.members {
            (member.synced, member.heard_ms) = (false, now_ms);
            joining.extend(member.joining.take().map(|ticket| (id.clone(), ticket)));
        }
        for (id, ticket) in joining {
            let joined = self.joined(&id);
            self.answers.push((ticket, Answer::Join(Ok(joined))));
        }
    }

    /// The generation as a member is told.
    fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol.clone();
        let leader = self.leader.clone().unwrap_or_default();
        let peer = |(id, member): (&String, &Member)| Peer {
            member_id: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol.as_deref().unwrap_or_default()),
        };
        let leads = leader == id;
        let peers = if leads { self.members.iter().map(peer).collect() } else { Vec::new() };
        Joined {
            member_id: id.to_owned(),
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader,
            skip_assignment: false,
            peers,
        }
    }

    /// Of the assignors that all members know, the one that most of them put first.
    fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|(name, _)| common(name));
            if let Some((name, _)) = choice {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(name, _)| name.to_owned())
    }
}
