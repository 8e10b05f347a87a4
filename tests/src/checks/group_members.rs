//! Membership of a group, step by step and by hand.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        SyncGroupRequest, SyncGroupResponse, join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity, sync_group_request::SyncGroupRequestAssignment,
    },
};

use super::{
    PATIENCE,
    wire::{Wire, expect, text},
};
use crate::{topics, wait};

/// The shortest session that Kafka allows.
const SESSION_MS: i32 = 6_000;

/// A subscription to nothing: Kafka 3.9 never answers a member whose subscription it can't read.
const SUBSCRIPTION: &[u8] = &[0; 10];

/// A subscription to the topic `in`.
const ANOTHER_SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x02in\0\0\0\0";

/// A member of a group by hand, with a connection of its own.
pub(super) struct Member {
    pub(super) wire: Wire,
    pub(super) group: String,
    pub(super) instance: Option<String>,
    pub(super) id: String,
    pub(super) generation: i32,
    subscription: &'static [u8],
}

impl Member {
    pub(super) fn new(bootstrap: &str, group: &str, instance: Option<&str>) -> Result<Self> {
        let mut wire = Wire::connect(bootstrap)?;
        wire.coordinator(group, 0)?;
        let (group, instance) = (group.to_owned(), instance.map(str::to_owned));
        let (id, subscription) = (String::new(), SUBSCRIPTION);
        Ok(Self { wire, group, instance, id, generation: -1, subscription })
    }

    fn join_request(&self, protocol: &str, session_timeout_ms: i32) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(protocol))
            .with_metadata(Bytes::from_static(self.subscription));
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(session_timeout_ms)
            .with_rebalance_timeout_ms(20_000)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    /// Sends a request to join, whose answer may have to wait for others.
    pub(super) fn send_join(&mut self) -> Result<()> {
        let request = self.join_request("range", SESSION_MS);
        self.wire.send(7, &request)
    }

    /// The answer to it.
    pub(super) fn joined(&mut self) -> Result<JoinGroupResponse> {
        let answer = self.wire.receive::<JoinGroupRequest>(7)?;
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        Ok(answer)
    }

    /// Joins; a new member is given its id first.
    pub(super) fn join(&mut self) -> Result<JoinGroupResponse> {
        self.ask_for_id()?;
        self.send_join()?;
        let answer = self.joined()?;
        expect(answer.error_code, None)?;
        Ok(answer)
    }

    pub(super) fn ask_for_id(&mut self) -> Result<()> {
        if !self.id.is_empty() || self.instance.is_some() {
            return Ok(());
        }
        self.send_join()?;
        let answer = self.joined()?;
        expect(answer.error_code, Some(ResponseError::MemberIdRequired))?;
        ensure!(!self.id.is_empty(), "{answer:?}");
        Ok(())
    }

    /// Sends a request for an assignment; a leader's brings all of them.
    pub(super) fn send_sync(&mut self, assignments: &[(&str, &'static [u8])]) -> Result<()> {
        let assignments = assignments.iter().map(|(id, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(id))
                .with_assignment(Bytes::from_static(assignment))
        });
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_assignments(assignments.collect());
        self.wire.send(4, &request)
    }

    pub(super) fn synced(&mut self) -> Result<SyncGroupResponse> {
        self.wire.receive::<SyncGroupRequest>(4)
    }

    /// Joins a group alone and is assigned something.
    pub(super) fn alone(bootstrap: &str, group: &str, instance: Option<&str>) -> Result<Self> {
        let mut member = Self::new(bootstrap, group, instance)?;
        let joined = member.join()?;
        ensure!(joined.leader == joined.member_id && joined.members.len() == 1, "{joined:?}");
        let id = member.id.clone();
        member.send_sync(&[(&id, b"all")])?;
        let synced = member.synced()?;
        expect(synced.error_code, None)?;
        ensure!(synced.assignment == b"all"[..], "{synced:?}");
        Ok(member)
    }

    /// A sign of life; the error's code.
    pub(super) fn heartbeat(&mut self) -> Result<i16> {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text));
        Ok(self.wire.call(3, &request)?.error_code)
    }

    /// Leaves; the error's code.
    pub(super) fn leave(&mut self) -> Result<i16> {
        let member = MemberIdentity::default()
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text));
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_members(vec![member]);
        let answer = self.wire.call(3, &request)?;
        expect(answer.error_code, None)?;
        Ok(answer.members.first().context("no member in the answer")?.error_code)
    }

    /// Waits until the coordinator wants it to join again.
    pub(super) fn wait_for_rebalance(&mut self) -> Result<()> {
        let rebalance = ResponseError::RebalanceInProgress.code();
        wait::until_true("rebalance", PATIENCE, || Ok(self.heartbeat()? == rebalance))
    }
}

/// Two members of one generation; the first leads.
fn two(bootstrap: &str) -> Result<(Member, Member)> {
    let group = topics::unique("two");
    let mut first = Member::alone(bootstrap, &group, None)?;
    let mut second = Member::new(bootstrap, &group, None)?;
    second.ask_for_id()?;
    second.send_join()?;
    first.wait_for_rebalance()?;
    first.send_join()?;
    let joined = first.joined()?;
    expect(joined.error_code, None)?;
    ensure!(joined.members.len() == 2 && joined.leader == joined.member_id, "{joined:?}");
    let answer = second.joined()?;
    expect(answer.error_code, None)?;
    ensure!(answer.members.is_empty() && answer.leader == joined.member_id, "{answer:?}");
    ensure!(first.generation == second.generation);
    Ok((first, second))
}

pub(super) fn a_generation_is_joined_and_synced(bootstrap: &str) -> Result<()> {
    let (mut first, mut second) = two(bootstrap)?;
    // A follower waits for what its leader assigns.
    second.send_sync(&[])?;
    let (one, other) = (first.id.clone(), second.id.clone());
    first.send_sync(&[(&one, b"one"), (&other, b"other")])?;
    let (one, other) = (first.synced()?, second.synced()?);
    expect(one.error_code, None)?;
    expect(other.error_code, None)?;
    ensure!(one.assignment == b"one"[..] && other.assignment == b"other"[..]);
    // It can be asked for again.
    second.send_sync(&[])?;
    ensure!(second.synced()?.assignment == b"other"[..]);
    second.generation -= 1;
    second.send_sync(&[])?;
    expect(second.synced()?.error_code, Some(ResponseError::IllegalGeneration))
}

pub(super) fn a_heartbeat_tells_of_a_rebalance(bootstrap: &str) -> Result<()> {
    let group = topics::unique("beating");
    let mut member = Member::alone(bootstrap, &group, None)?;
    expect(member.heartbeat()?, None)?;
    let generation = std::mem::replace(&mut member.generation, 77);
    expect(member.heartbeat()?, Some(ResponseError::IllegalGeneration))?;
    member.generation = generation;
    let id = std::mem::replace(&mut member.id, "nobody".to_owned());
    expect(member.heartbeat()?, Some(ResponseError::UnknownMemberId))?;
    member.id = id;
    let mut second = Member::new(bootstrap, &group, None)?;
    second.ask_for_id()?;
    second.send_join()?;
    member.wait_for_rebalance()?;
    // What was asked for before the rebalance is answered with it too.
    member.send_sync(&[])?;
    expect(member.synced()?.error_code, Some(ResponseError::RebalanceInProgress))
}

pub(super) fn a_silent_member_is_dropped(bootstrap: &str) -> Result<()> {
    let (mut first, mut second) = two(bootstrap)?;
    let ids = [first.id.clone(), second.id.clone()];
    first.send_sync(&[(&ids[0], b"one"), (&ids[1], b"other")])?;
    expect(first.synced()?.error_code, None)?;
    second.send_sync(&[])?;
    expect(second.synced()?.error_code, None)?;
    let silent_since = Instant::now();
    first.wait_for_rebalance()?;
    let silent = silent_since.elapsed();
    let session = Duration::from_millis(u64::try_from(SESSION_MS)?);
    let in_time = silent + Duration::from_millis(500) > session && silent < session * 2;
    ensure!(in_time, "dropped after {silent:?}");
    expect(second.heartbeat()?, Some(ResponseError::UnknownMemberId))?;
    first.send_join()?;
    let joined = first.joined()?;
    expect(joined.error_code, None)?;
    ensure!(joined.members.len() == 1, "{joined:?}");
    Ok(())
}

pub(super) fn a_static_member_takes_its_own_place(bootstrap: &str) -> Result<()> {
    let group = topics::unique("static");
    let mut old = Member::alone(bootstrap, &group, Some("instance"))?;
    let mut new = Member::new(bootstrap, &group, Some("instance"))?;
    // Nobody else is concerned: no rebalance, and the assignment is the old one.
    new.send_join()?;
    let joined = new.joined()?;
    expect(joined.error_code, None)?;
    ensure!(new.id != old.id && new.generation == old.generation, "{joined:?}");
    new.send_sync(&[])?;
    let synced = new.synced()?;
    expect(synced.error_code, None)?;
    ensure!(synced.assignment == b"all"[..], "{synced:?}");
    expect(new.heartbeat()?, None)?;
    expect(old.heartbeat()?, Some(ResponseError::FencedInstanceId))?;
    expect(old.leave()?, Some(ResponseError::FencedInstanceId))?;
    old.send_join()?;
    expect(old.joined()?.error_code, Some(ResponseError::FencedInstanceId))?;
    let mut stranger = Member::new(bootstrap, &group, Some("another"))?;
    (stranger.id, stranger.generation) = (new.id.clone(), new.generation);
    expect(stranger.heartbeat()?, Some(ResponseError::UnknownMemberId))?;
    expect(new.leave()?, None)?;
    expect(new.heartbeat()?, Some(ResponseError::UnknownMemberId))
}

/// No rebalance, though it asks for something else: who wants one has to leave first.
pub(super) fn a_static_member_that_asks_for_other_topics_has_what_it_had(
    bootstrap: &str,
) -> Result<()> {
    let group = topics::unique("asking");
    let old = Member::alone(bootstrap, &group, Some("instance"))?;
    let mut new = Member::new(bootstrap, &group, Some("instance"))?;
    new.subscription = ANOTHER_SUBSCRIPTION;
    new.send_join()?;
    let joined = new.joined()?;
    expect(joined.error_code, None)?;
    ensure!(joined.generation_id == old.generation && *joined.leader == *old.id, "{joined:?}");
    new.send_sync(&[])?;
    let synced = new.synced()?;
    ensure!(synced.assignment == b"all"[..], "{synced:?}");
    expect(new.leave()?, None)?;
    let mut again = Member::new(bootstrap, &group, Some("instance"))?;
    again.subscription = ANOTHER_SUBSCRIPTION;
    let joined = again.join()?;
    let asked = joined.members.iter().map(|member| &member.metadata[..]).collect::<Vec<_>>();
    ensure!(joined.leader == joined.member_id && asked == [ANOTHER_SUBSCRIPTION], "{joined:?}");
    expect(again.leave()?, None)
}

pub(super) fn a_member_that_leaves_is_forgotten(bootstrap: &str) -> Result<()> {
    let (mut first, mut second) = two(bootstrap)?;
    let ids = [first.id.clone(), second.id.clone()];
    first.send_sync(&[(&ids[0], b"one"), (&ids[1], b"other")])?;
    expect(first.synced()?.error_code, None)?;
    expect(second.leave()?, None)?;
    expect(second.leave()?, Some(ResponseError::UnknownMemberId))?;
    first.wait_for_rebalance()?;
    let before = first.generation;
    first.send_join()?;
    let joined = first.joined()?;
    ensure!(joined.members.len() == 1 && joined.generation_id == before + 1, "{joined:?}");
    expect(first.leave()?, None)?;
    expect(first.heartbeat()?, Some(ResponseError::UnknownMemberId))
}

pub(super) fn what_cannot_be_a_member_is_refused(bootstrap: &str) -> Result<()> {
    let group = topics::unique("refused");
    let mut member = Member::alone(bootstrap, &group, None)?;
    let mut stranger = Member::new(bootstrap, &group, None)?;
    let check = |stranger: &mut Member, request: JoinGroupRequest, expected| {
        let answer = stranger.wire.call(7, &request)?;
        expect(answer.error_code, Some(expected))
    };
    let short = stranger.join_request("range", 10);
    check(&mut stranger, short, ResponseError::InvalidSessionTimeout)?;
    let other = stranger.join_request("another", SESSION_MS);
    check(&mut stranger, other, ResponseError::InconsistentGroupProtocol)?;
    stranger.id = "nobody".to_owned();
    let unknown = stranger.join_request("range", SESSION_MS);
    check(&mut stranger, unknown, ResponseError::UnknownMemberId)?;
    stranger.group = String::new();
    let nameless = stranger.join_request("range", SESSION_MS);
    check(&mut stranger, nameless, ResponseError::InvalidGroupId)?;
    expect(member.heartbeat()?, None)?;
    expect(member.leave()?, None)
}
