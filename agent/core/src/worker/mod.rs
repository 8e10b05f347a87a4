//! The loop that drives tasks from transaction to transaction. One thread runs one worker;
//! workers share nothing.

mod environment;
mod log;
mod report;

pub use self::{
    environment::Environment,
    log::{
        ChangelogBounds, ChangelogEnd, Committed, Event, FetchEpoch, FetchPosition, Fetched, Log,
        LogError, Membership, Receipt, Transaction,
    },
    report::{CommitNotice, Config, Notice, Now, Report, TaskState},
};
