//! Being a member of a group: join, sync, heartbeat, leave.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
        join_group_response::JoinGroupResponseMember, leave_group_request::MemberIdentity,
        leave_group_response::MemberResponse,
    },
};

use super::{Context, filled, text};
use crate::{
    cluster::Cluster,
    group::{Answer, Caller, Join, JoinRefused, Joined, Peer, Sync, Synced, Ticket},
    refusal::bare_code,
};

/// From here on new members get their ids before they join.
const ID_FIRST_VERSION_MIN: i16 = 4;

/// From here on leaders can be told to leave the assignment as it is.
const SKIP_ASSIGNMENT_VERSION_MIN: i16 = 9;

/// From here on several members can leave at once.
const LEAVE_SEVERAL_VERSION_MIN: i16 = 3;

/// Lets a member join. None means that the answer will come under the ticket.
pub(crate) fn join(
    cluster: &mut Cluster,
    request: JoinGroupRequest,
    (ticket, unique): (Ticket, String),
    context: &Context,
) -> Option<Answer> {
    let group = request.group_id.to_string();
    let refused = |code| {
        let member_id = request.member_id.to_string();
        Some(Answer::Join(Err(JoinRefused { code, member_id })))
    };
    if group.is_empty() {
        return refused(ResponseError::InvalidGroupId);
    }
    if !request.member_id.is_empty() && cluster.group(&group).is_none() {
        return refused(ResponseError::UnknownMemberId);
    }
    if let Err(code) = cluster.ensure_group(&group) {
        return refused(code);
    }
    let instance = filled(&request.group_instance_id).map(str::to_owned);
    let prefix = instance.as_deref().unwrap_or(&context.client_id);
    let rebalance_ms = request.rebalance_timeout_ms;
    let protocols = request
        .protocols
        .iter()
        .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)));
    let join = Join {
        ticket,
        member_id: request.member_id.to_string(),
        new_id: format!("{prefix}-{unique}"),
        instance,
        client_id: context.client_id.clone(),
        client_host: context.client_host.clone(),
        session_timeout_ms: request.session_timeout_ms,
        // The first version had one time for both.
        rebalance_timeout_ms: match context.version {
            0 => request.session_timeout_ms,
            _ => rebalance_ms.max(0),
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        id_first: context.version >= ID_FIRST_VERSION_MIN,
        can_skip_assignment: context.version >= SKIP_ASSIGNMENT_VERSION_MIN,
    };
    cluster.with_group(&group, |group| group.join(join, context.now_ms));
    None
}

/// The generation, or why there is none, as it goes over the wire.
pub(crate) fn join_response(
    outcome: Result<Joined, JoinRefused>,
    context: &Context,
) -> JoinGroupResponse {
    // Up to version 6 the name of the assignor can't be null.
    let protocol = |name: Option<String>| match name {
        None if context.version < 7 => Some(text("")),
        name => name.map(Into::into),
    };
    match outcome {
        Err(JoinRefused { code, member_id }) => JoinGroupResponse::default()
            .with_error_code(code.code())
            .with_generation_id(-1)
            .with_protocol_name(protocol(None))
            .with_member_id(member_id.into()),
        Ok(joined) => {
            let member = |peer: Peer| {
                JoinGroupResponseMember::default()
                    .with_member_id(peer.member_id.into())
                    .with_group_instance_id(peer.instance.map(Into::into))
                    .with_metadata(peer.metadata)
            };
            JoinGroupResponse::default()
                .with_generation_id(joined.generation)
                .with_protocol_type(joined.protocol_type.map(Into::into))
                .with_protocol_name(protocol(joined.protocol))
                .with_leader(joined.leader.into())
                .with_skip_assignment(joined.skip_assignment)
                .with_member_id(joined.member_id.into())
                .with_members(joined.peers.into_iter().map(member).collect())
        }
    }
}

/// Asks for an assignment. None means that the answer will come under the ticket.
pub(crate) fn sync(
    cluster: &mut Cluster,
    request: &SyncGroupRequest,
    ticket: Ticket,
    context: &Context,
) -> Option<Answer> {
    if request.group_id.is_empty() {
        return Some(Answer::Sync(Err(ResponseError::InvalidGroupId)));
    }
    let assignments = request.assignments.iter().map(|assignment| {
        (assignment.member_id.to_string(), Bytes::copy_from_slice(&assignment.assignment))
    });
    let sync = Sync {
        ticket,
        caller: Caller {
            member_id: &request.member_id,
            instance: filled(&request.group_instance_id),
            generation: request.generation_id,
        },
        protocol_type: filled(&request.protocol_type),
        protocol: filled(&request.protocol_name),
        assignments: assignments.collect(),
    };
    let taken = cluster.with_group(&request.group_id, |group| group.sync(sync, context.now_ms));
    taken.is_none().then_some(Answer::Sync(Err(ResponseError::UnknownMemberId)))
}

/// The assignment, or why there is none, as it goes over the wire.
pub(crate) fn sync_response(outcome: Result<Synced, ResponseError>) -> SyncGroupResponse {
    match outcome {
        Err(code) => SyncGroupResponse::default().with_error_code(code.code()),
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(Into::into))
            .with_protocol_name(synced.protocol.map(Into::into))
            .with_assignment(synced.assignment),
    }
}

/// A sign of life.
pub(crate) fn heartbeat(
    cluster: &mut Cluster,
    request: HeartbeatRequest,
    context: &Context,
) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: filled(&request.group_instance_id),
        generation: request.generation_id,
    };
    let outcome = cluster
        .with_group(&request.group_id, |group| group.heartbeat(&caller, context.now_ms))
        .unwrap_or(Err(ResponseError::UnknownMemberId));
    HeartbeatResponse::default().with_error_code(bare_code(outcome))
}

/// Members go for good.
pub(crate) fn leave(
    cluster: &mut Cluster,
    request: LeaveGroupRequest,
    context: &Context,
) -> LeaveGroupResponse {
    let group = request.group_id.as_str();
    let mut go = |member: &MemberIdentity| {
        let caller = Caller {
            member_id: &member.member_id,
            instance: filled(&member.group_instance_id),
            generation: -1,
        };
        let left = cluster.with_group(group, |group| group.leave(&caller, context.now_ms));
        bare_code(left.unwrap_or(Err(ResponseError::UnknownMemberId)))
    };
    if context.version < LEAVE_SEVERAL_VERSION_MIN {
        let member = MemberIdentity::default().with_member_id(request.member_id);
        return LeaveGroupResponse::default().with_error_code(go(&member));
    }
    let members = request.members.into_iter().map(|member| {
        let code = go(&member);
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code)
    });
    LeaveGroupResponse::default().with_members(members.collect())
}
