//! The borders to Kafka: what a worker reads, restores from and writes to. Each can be replaced
//! alone; batches move across them, never single records.
//!
//! - [`Source`]: the membership in the group, and the records of its partitions.
//! - [`Changelogs`]: the topics that state is restored from.
//! - [`Sink`]: outputs, state changes and offsets, as transactions.
//!
//! All calls come from the worker's thread. A call may block for a bounded time; one that can't be
//! done now says so ([`PortError::Unavailable`]) and changes nothing.

mod changelogs;
mod sink;
mod source;

pub use self::{
    changelogs::{ChangelogEvent, ChangelogRecords, Changelogs},
    sink::{Receipt, Refusal, Sink, Suspects, Transaction, TransactionError},
    source::{FetchPosition, Fetched, Membership, Source, SourceEvent},
};
use crate::record::{Offset, TopicId};

/// What a worker works on.
pub struct Ports {
    /// What it reads.
    pub source: Box<dyn Source>,
    /// What it restores state from.
    pub changelogs: Box<dyn Changelogs>,
    /// What it writes to.
    pub sink: Box<dyn Sink>,
}

impl Ports {
    /// Commits all of a worker's work: as one transaction, or without `exactly_once` its offsets
    /// after everything else was delivered.
    pub fn commit(
        &mut self,
        transaction: &Transaction<'_>,
        exactly_once: bool,
    ) -> Result<Receipt, TransactionError> {
        let Transaction { offsets, membership, .. } = transaction;
        if let Some(reason) = self.source.lost(membership) {
            self.sink.abort()?;
            return Err(TransactionError::Aborted(reason));
        }
        if exactly_once {
            return self.sink.commit(transaction);
        }
        let receipt = self.sink.deliver(transaction)?;
        self.source.commit(offsets, membership).map(|()| receipt)
    }
}

/// A call that changes nothing when it fails did. The variants say what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The brokers can't be reached: try again after a while.
    #[error("the brokers can't be reached: {0}")]
    Unavailable(String),
    /// Nothing that this process can do will help; says what a person can do.
    #[error("{0}")]
    Fatal(String),
}

/// Why a partition can't be read. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its topic is not there, or its leader is away: wait.
    ForNow(String),
    /// What was to be read may be gone: records were deleted, or the topic was created again. Look
    /// at its bounds.
    Lost(String),
    /// Nothing that this process can do will help; says what a person can do.
    Refused(String),
}

/// First and last offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset after the last record or marker, committed or not.
    pub end: Offset,
    /// The topic's id.
    pub topic_id: TopicId,
}
