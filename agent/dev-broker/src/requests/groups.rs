//! Groups from outside: list, describe, delete.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        GroupId, ListGroupsRequest, ListGroupsResponse,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        list_groups_response::ListedGroup,
    },
};

use super::{Context, text};
use crate::{cluster::Cluster, group::Group, refusal::bare_code};

/// The one type of groups there is.
const GROUP_TYPE: &str = "classic";

/// From here on a group that isn't there is an error, and not a dead group.
const NOT_FOUND_VERSION_MIN: i16 = 6;

/// Lists groups, by state and type.
pub(crate) fn list(
    cluster: &mut Cluster,
    request: ListGroupsRequest,
    _context: &Context,
) -> ListGroupsResponse {
    let wanted = |filter: &[kafka_protocol::protocol::StrBytes], name: &str| {
        filter.is_empty() || filter.iter().any(|word| word.eq_ignore_ascii_case(name))
    };
    let groups = cluster.groups().filter(|(_, group)| {
        wanted(&request.states_filter, group.state().name())
            && wanted(&request.types_filter, GROUP_TYPE)
    });
    let groups = groups.map(|(id, group)| {
        ListedGroup::default()
            .with_group_id(GroupId(text(id)))
            .with_protocol_type(text(group.protocol_type()))
            .with_group_state(text(group.state().name()))
            .with_group_type(text(GROUP_TYPE))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Describes groups and their members.
pub(crate) fn describe(
    cluster: &mut Cluster,
    request: DescribeGroupsRequest,
    context: &Context,
) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| match cluster.group(&id) {
        Some(group) => described(id, group),
        None if context.version >= NOT_FOUND_VERSION_MIN => DescribedGroup::default()
            .with_error_message(Some(text(&format!("Group {} not found.", id.as_str()))))
            .with_group_id(id)
            .with_group_state(text("Dead"))
            .with_error_code(ResponseError::GroupIdNotFound.code()),
        None => DescribedGroup::default().with_group_id(id).with_group_state(text("Dead")),
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn described(id: GroupId, group: &Group) -> DescribedGroup {
    let members = group.members().map(|(id, member)| {
        DescribedGroupMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(member.instance.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata(group.protocol()))
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_id(id)
        .with_group_state(text(group.state().name()))
        .with_protocol_type(text(group.protocol_type()))
        .with_protocol_data(text(group.protocol()))
        .with_members(members.collect())
}

/// Removes groups that have no members.
pub(crate) fn delete(
    cluster: &mut Cluster,
    request: DeleteGroupsRequest,
    _context: &Context,
) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|id| {
        let code = bare_code(cluster.delete_group(&id));
        DeletableGroupResult::default().with_group_id(id).with_error_code(code)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
