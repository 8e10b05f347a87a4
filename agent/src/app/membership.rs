//! What the agent's members ask their group for, from one start to the next.

use tracing::info;

use super::{Error, Wait};
use crate::{
    config::Pipeline,
    guest::Digest,
    plan::{self, Plan},
    state::Stores,
};

/// Has the members of before leave their group if they asked it for something else, or may have:
/// those that are still in it would be given what they had. Without that, who comes back takes its
/// place without a rebalance, for others' sake.
pub(super) fn renew(
    pipeline: &Pipeline,
    plan: &Plan,
    stores: &Stores,
    wait: &Wait<'_>,
) -> Result<(), Error> {
    let now = subscription(pipeline);
    if stores.subscription().as_ref() == Some(&now) {
        return Ok(());
    }
    let workers_ever = stores.raise_worker_count(pipeline.general.workers)? as usize;
    let members = wait.until("looking for members of before in the group", || {
        Ok(wait.admin.dismiss_members(&plan.topology, workers_ever)?)
    })?;
    if !members.is_empty() {
        info!(?members, "left the group, to join it for other inputs or workers");
    }
    Ok(stores.note_subscription(&now)?)
}

/// All that the members of a pipeline ask their group for, in one word.
fn subscription(pipeline: &Pipeline) -> String {
    let topics: Vec<String> = plan::input_names(pipeline).into_iter().collect();
    let text =
        format!("{}\n{}\n{}", pipeline.application, pipeline.general.workers, topics.join("\n"));
    Digest::of(text.as_bytes()).to_string()
}
