//! Times that depend on one another: those of the pipeline, and those of the Kafka clients, where the
//! user's own go before what follows from the others.

use std::time::Duration;

use crate::config::{
    pipeline::{Guarantee, Pipeline},
    problem::Problem,
};

/// `session.timeout.ms` of a consumer, unless given.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// `transaction.timeout.ms` of a producer, at least, unless given.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// `max.poll.interval.ms` of a consumer, which is librdkafka's.
const MAX_POLL_INTERVAL: Duration = Duration::from_mins(5);

/// What librdkafka lets `socket.timeout.ms` be above the transaction's.
const SOCKET_ABOVE_TRANSACTION: Duration = Duration::from_millis(100);

/// The most that librdkafka takes; brokers take less.
const MOST: Duration = Duration::from_millis(i32::MAX.unsigned_abs() as u64);

/// Settles what follows from other times, and refuses what can't go together.
pub(crate) fn settle(pipeline: &mut Pipeline, problems: &mut Vec<Problem>) {
    let session = given(pipeline, "consumer", &["session.timeout.ms"]);
    let transaction = given(pipeline, "producer", &["transaction.timeout.ms"]);
    let needed = needed(pipeline);
    // Room for a batch on top, and as much again of what the user chose.
    let derived = needed + pipeline.limits.batch_time_max + pipeline.general.commit_interval;
    let derived = TRANSACTION_TIMEOUT.max(derived).min(MOST);
    pipeline.kafka.session_timeout = session.as_ref().map_or(SESSION_TIMEOUT, |given| given.time);
    pipeline.kafka.transaction_timeout = transaction.as_ref().map_or(derived, |given| given.time);
    if pipeline.general.guarantee == Guarantee::ExactlyOnce {
        problems
            .extend(transaction.and_then(|given| too_short_to_commit(pipeline, &given, needed)));
    }
    problems.extend(producer(pipeline));
    problems.extend(consumer(pipeline));
}

/// How long a transaction may be open: an interval, and the commit at its end.
fn needed(pipeline: &Pipeline) -> Duration {
    pipeline.general.commit_interval + pipeline.limits.revoke_time_max
}

/// A time that the user gave a client.
struct Given {
    key: String,
    time: Duration,
}

fn given(pipeline: &Pipeline, section: &str, names: &[&str]) -> Option<Given> {
    let (key, value) = pipeline.kafka.effective(section, names)?;
    // What is no number is refused elsewhere.
    Some(Given { key, time: Duration::from_millis(value.parse().ok()?) })
}

fn too_short_to_commit(pipeline: &Pipeline, given: &Given, needed: Duration) -> Option<Problem> {
    let (interval, commit) = (pipeline.general.commit_interval, pipeline.limits.revoke_time_max);
    (given.time <= needed).then(|| {
        problem(
            pipeline,
            given,
            &format!(
                "must be above {} and {} together, or brokers abort each transaction before its commit",
                told(pipeline, "commit_interval", interval),
                told(pipeline, "limits.revoke_time_max", commit),
            ),
            &format!(
                "raise it above {}, lower the others, or remove it: without it, it follows them",
                needed.as_millis()
            ),
        )
    })
}

fn producer(pipeline: &Pipeline) -> Option<Problem> {
    let exactly_once = pipeline.general.guarantee == Guarantee::ExactlyOnce;
    let transaction = pipeline.kafka.transaction_timeout;
    let commit = pipeline.limits.revoke_time_max;
    let of_transaction = || match given(pipeline, "producer", &["transaction.timeout.ms"]) {
        Some(given) => told(pipeline, &given.key, transaction),
        None => format!("`transaction.timeout.ms` ({} ms)", transaction.as_millis()),
    };
    if let Some(socket) = given(pipeline, "producer", &["socket.timeout.ms"]) {
        if socket.time <= commit {
            let commit = told(pipeline, "limits.revoke_time_max", commit);
            let must = format!("must be above {commit}, which a commit may take");
            return Some(problem(pipeline, &socket, &must, "raise the one, or lower the other"));
        }
        if exactly_once && socket.time > transaction + SOCKET_ABOVE_TRANSACTION {
            let must = format!("can't be above {} of the producers", of_transaction());
            let remedy = "lower it, or give it to `kafka.consumer` and `kafka.admin` alone";
            return Some(problem(pipeline, &socket, &must, remedy));
        }
    }
    let message = given(pipeline, "producer", &["message.timeout.ms", "delivery.timeout.ms"])?;
    (exactly_once && message.time > transaction).then(|| {
        let must = format!("can't be above {}", of_transaction());
        problem(pipeline, &message, &must, "remove it: without it, it follows that one")
    })
}

fn consumer(pipeline: &Pipeline) -> Option<Problem> {
    let limits = &pipeline.limits;
    let session = pipeline.kafka.session_timeout;
    let of_session = || match given(pipeline, "consumer", &["session.timeout.ms"]) {
        Some(given) => told(pipeline, &given.key, session),
        None => format!("`session.timeout.ms` ({} ms)", session.as_millis()),
    };
    if let Some(heartbeat) = given(pipeline, "consumer", &["heartbeat.interval.ms"])
        && heartbeat.time >= session
    {
        let must = format!("must be below {}", of_session());
        let remedy = "lower it to a third of that, or remove it: without it, it follows that one";
        return Some(problem(pipeline, &heartbeat, &must, remedy));
    }
    let turn = limits.batch_time_max + limits.revoke_time_max;
    let Some(poll) = given(pipeline, "consumer", &["max.poll.interval.ms"]) else {
        let poll = MAX_POLL_INTERVAL;
        let session = given(pipeline, "consumer", &["session.timeout.ms"])?;
        return (session.time > poll).then(|| {
            let must = format!("can't be above `max.poll.interval.ms` ({} ms)", poll.as_millis());
            problem(pipeline, &session, &must, "lower it, or raise the other as well")
        });
    };
    if poll.time < session {
        let must = format!("can't be below {}", of_session());
        return Some(problem(pipeline, &poll, &must, "raise the one, or lower the other"));
    }
    (poll.time <= turn).then(|| {
        let must = format!(
            "must be above {} and {} together, or a slow batch costs the agent its partitions",
            told(pipeline, "limits.batch_time_max", limits.batch_time_max),
            told(pipeline, "limits.revoke_time_max", limits.revoke_time_max),
        );
        problem(pipeline, &poll, &must, &format!("raise it above {}", turn.as_millis()))
    })
}

fn problem(pipeline: &Pipeline, given: &Given, must: &str, remedy: &str) -> Problem {
    let Given { key, time } = given;
    let message = format!("`{key}` ({} ms) {must}", time.as_millis());
    Problem::new(pipeline.places.of(key), message, remedy)
}

/// A time with its key, and its line if the file has it.
fn told(pipeline: &Pipeline, key: &str, time: Duration) -> String {
    let line = pipeline.places.given(key).map(|at| format!(", line {}", at.line));
    format!("`{key}` ({} ms{})", time.as_millis(), line.unwrap_or_default())
}
