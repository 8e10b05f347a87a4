//! What a worker writes to: outputs, state changes and offsets, as transactions.

use super::{Membership, PortError};
use crate::{
    record::{Changes, Committed, Offset, Outputs, TopicPartition},
    task::Fault,
};

/// A worker's producer.
pub trait Sink {
    /// Hands records to the producer, in order, as part of the open transaction; opens one if
    /// there is none. They become visible when it is committed.
    fn produce(&mut self, outputs: &Outputs) -> Result<(), TransactionError>;

    /// Ends the open transaction (opens one if there is none) with everything in `transaction`.
    /// `Ok` means that all of it, and all that was produced, is committed for certain.
    fn commit(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError>;

    /// As [`commit`](Self::commit), without a transaction: `Ok` means that what was produced, and
    /// all of `transaction` but its offsets, was delivered; they are to be committed then
    /// ([`Source::commit`](super::Source::commit)).
    fn deliver(&mut self, transaction: &Transaction<'_>) -> Result<Receipt, TransactionError>;

    /// Drops the open transaction, if there is one.
    fn abort(&mut self) -> Result<(), TransactionError>;

    /// Makes a new producer with the same transactional id, which settles whatever transaction
    /// the old one had open. `Ok` means that it is settled.
    fn recover(&mut self) -> Result<(), PortError>;

    /// Says that records of repartition topics below these offsets are not needed any more. A
    /// hint: failures are not reported.
    fn purge(&mut self, below: &[(TopicPartition, Offset)]);

    /// Does what has to be done now and then whether anything is written or not; called once a
    /// turn.
    fn serve(&mut self);
}

/// All of a worker's work since its last commit, but the records already produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Records still to produce.
    pub outputs: Outputs,
    /// State changes, to append to the changelog partitions.
    pub changes: Vec<(TopicPartition, &'a Changes)>,
    /// For each element of `changes`, the header [`SEEN_HEADER`](crate::task::SEEN_HEADER) of its
    /// last record; none if it is empty.
    pub seen: Vec<&'a str>,
    /// The offsets to commit, with what to store beside them: of every task that did any work.
    pub offsets: Vec<(TopicPartition, Committed)>,
    /// Whose offsets they are, as [`Source::assign`](super::Source::assign) returned it.
    pub membership: Membership,
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// For each element of [`Transaction::changes`] that is not empty, the offset after its last
    /// record.
    pub changelog_ends: Vec<(TopicPartition, Offset)>,
}

/// A call for a transaction failed. The variants say what to do about it, not what went wrong
/// inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// The transaction did not and will not happen, and is aborted: drop the work and go back.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// Nobody knows whether the transaction happened, or the producer is fenced:
    /// [`Sink::recover`], then go on as after a crash.
    #[error("the outcome of the transaction is not known: {0}")]
    Unknown(String),
    /// The brokers can't be reached: nothing happened, try again after a while.
    #[error("the brokers can't be reached: {0}")]
    Unavailable(String),
    /// Something in the transaction is refused, whatever else happens. It is still open: abort it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing that this process can do will help; says what a person can do.
    #[error("{0}")]
    Fatal(String),
}

impl From<PortError> for TransactionError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable(reason) => Self::Unavailable(reason),
            PortError::Fatal(reason) => Self::Fatal(reason),
        }
    }
}

/// Something that a transaction holds is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What may be meant.
    pub suspects: Suspects,
    /// Whose fault it is.
    pub fault: Fault,
    /// The topic and its partition, why, and what to do about it.
    pub message: String,
}

/// What a refusal may be about. Brokers refuse a whole batch for one record in it, so there may be
/// several suspects; a sink that can tell them apart at a second try has fewer of them then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspects {
    /// One of these rows, counted over all outputs that were given for the open transaction.
    Outputs(Vec<usize>),
    /// One of these rows of a changelog partition's changes.
    Changes(TopicPartition, Vec<usize>),
    /// The offset of an input partition, or what is stored beside it.
    Offset(TopicPartition),
    /// Anything in the transaction.
    Anything,
}
