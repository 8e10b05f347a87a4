//! What it takes to begin an application anew: its group and its topics come to an end.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Error,
    admin::Admin,
    error::call_failed,
    native::{Code, Failure},
};

/// How often to look whether a deleted topic is gone.
const GONE_INTERVAL: Duration = Duration::from_millis(50);

impl Admin {
    /// Who is in a consumer group, each by its `group.instance.id` and host; nobody if the group is
    /// not there.
    pub fn group_members(&self, group: &str) -> Result<Vec<String>, Error> {
        let members = self
            .client()
            .group_members(group, self.request_timeout())
            .map_err(|failure| call_failed("asking for the group's members", &failure))?;
        let told = members.into_iter().map(|member| match member.host.as_str() {
            "" => member.name,
            host => format!("{} at {host}", member.name),
        });
        Ok(told.collect())
    }

    /// Deletes a consumer group with all its offsets. One that is not there is no error; one that
    /// has members is left as it is.
    pub fn delete_group(&self, group: &str) -> Result<(), Error> {
        let deleted = self.client().delete_group(group, self.request_timeout());
        deleted.map_err(|failure| match failure.code {
            Code::RD_KAFKA_RESP_ERR_NON_EMPTY_GROUP => Error::Fatal(format!(
                "the consumer group `{group}` has members again; stop all agents of the application"
            )),
            Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => Error::Fatal(format!(
                "the consumer group `{group}` can't be deleted: {failure}; let the user delete it"
            )),
            _ => call_failed("deleting the consumer group", &failure).into(),
        })
    }

    /// Deletes topics, and returns once none of them is visible. One that is not there is no error.
    pub fn delete_topics(&self, topics: &[&str]) -> Result<(), Error> {
        if topics.is_empty() {
            return Ok(());
        }
        let deleted = self
            .client()
            .delete_topics(topics, self.request_timeout())
            .map_err(|failure| call_failed("deleting topics", &failure))?;
        for (topic, outcome) in deleted {
            outcome.or_else(|failure| not_deleted(&topic, &failure))?;
        }
        let since = Instant::now();
        while self.describe_topics(topics)?.values().any(Option::is_some) {
            if since.elapsed() > self.request_timeout() {
                return Err(Error::Unavailable("deleted topics are still there".to_owned()));
            }
            thread::sleep(GONE_INTERVAL);
        }
        Ok(())
    }
}

fn not_deleted(topic: &str, failure: &Failure) -> Result<(), Error> {
    match failure.code {
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Ok(()),
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_TOPIC_DELETION_DISABLED => Err(Error::Fatal(format!(
            "the topic `{topic}` can't be deleted: {failure}; delete it by other means, or let the \
             user delete it, then reset again"
        ))),
        _ => Err(call_failed(&format!("deleting the topic `{topic}`"), failure).into()),
    }
}
