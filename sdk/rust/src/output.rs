//! Where records go to.

use std::{borrow::Borrow, fmt, marker::PhantomData, rc::Rc};

use crate::{
    codec::{CodecError, Encode},
    failure::{Failure, Outcome},
    record::Record,
    task::Task,
};

/// A named output with keys of type `K` and values of type `V`;
/// [`Setup::output`](crate::Setup::output) gives it.
///
/// What is emitted leaves together at the end of the batch, and is to be seen outside when the
/// agent's transaction commits.
pub struct Output<K = Vec<u8>, V = Vec<u8>> {
    task: Rc<Task>,
    index: u32,
    types: PhantomData<fn(&K, &V)>,
}

impl<K, V> Output<K, V> {
    pub(crate) fn new(task: Rc<Task>, index: u32) -> Self {
        Self { task, index, types: PhantomData }
    }

    /// Emits a key and a value. The rest is as the record has it that is being processed: its
    /// timestamp and its headers; in a punctuation, stream time and none. The key decides the
    /// partition, as in the Java client.
    pub fn emit<Q, W>(&self, key: &Q, value: &W) -> Outcome
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
    {
        self.task.emit(self.index, key, value)
    }

    /// Passes a record on: key, value, timestamp and headers as they came. The key decides the
    /// partition.
    pub fn forward(&self, record: &Record<'_>) {
        self.task.forward(self.index, record);
    }

    /// Passes a record on with another value: the key, which may be null, timestamp and headers as
    /// they came.
    pub fn forward_with<W>(&self, record: &Record<'_>, value: &W) -> Outcome
    where
        V: Borrow<W>,
        W: Encode + ?Sized,
    {
        self.task.forward_with(self.index, record, value)
    }

    /// Begins a record whose every part you decide; [`Message::send`] emits it.
    pub fn message(&self) -> Message<'_, K, V> {
        Message { output: self, parts: Parts::default(), error: None }
    }
}

impl<K, V> fmt::Debug for Output<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A record to be, begun by [`Output::message`]. What isn't said is null for key and value, and
/// for the rest as [`Output::emit`] has it.
#[must_use = "a message goes nowhere until it is sent"]
pub struct Message<'a, K, V> {
    output: &'a Output<K, V>,
    parts: Parts,
    error: Option<CodecError>,
}

/// The parts of a record to emit; those that are none are as the cause has them.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Option<Vec<(String, Option<Vec<u8>>)>>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) partition: Option<i32>,
}

impl<K, V> Message<'_, K, V> {
    /// Sets the key.
    pub fn key<Q: Encode + ?Sized>(mut self, key: &Q) -> Self
    where
        K: Borrow<Q>,
    {
        self.parts.key = self.encode("key", key);
        self
    }

    /// Sets the value.
    pub fn value<W: Encode + ?Sized>(mut self, value: &W) -> Self
    where
        V: Borrow<W>,
    {
        self.parts.value = self.encode("value", value);
        self
    }

    /// Adds a header. The record then has only the headers that were added.
    pub fn header<H: Encode + ?Sized>(mut self, name: &str, value: &H) -> Self {
        let value = self.encode("header", value);
        self.parts.headers.get_or_insert_default().push((name.to_owned(), value));
        self
    }

    /// Adds headers, such as those of [`Record::headers`]. Adding none takes away those that
    /// the record would otherwise have.
    pub fn headers<'v>(
        mut self,
        headers: impl IntoIterator<Item = (&'v str, Option<&'v [u8]>)>,
    ) -> Self {
        let owned = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), value.map(Vec::from));
        self.parts.headers.get_or_insert_default().extend(headers.into_iter().map(owned));
        self
    }

    /// Sets the timestamp, in milliseconds since 1970-01-01 UTC.
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.parts.timestamp = Some(timestamp);
        self
    }

    /// Sets the partition.
    pub fn partition(mut self, partition: i32) -> Self {
        self.parts.partition = Some(partition);
        self
    }

    /// Emits the record.
    pub fn send(self) -> Outcome {
        match self.error {
            Some(error) => Err(error.into()),
            None => {
                self.output.task.send(self.output.index, &self.parts);
                Ok(())
            }
        }
    }

    fn encode<T: Encode + ?Sized>(&mut self, part: &str, value: &T) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        if let Err(error) = value.encode(&mut bytes) {
            self.error.get_or_insert(error.of(part));
        }
        Some(bytes)
    }
}

impl<K, V> fmt::Debug for Message<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.fmt(f)
    }
}

/// The failure of a transform that was given an output name which the pipeline doesn't have.
pub(crate) fn no_such_output(name: &str) -> Failure {
    Failure::reject(format_args!("the pipeline has no output `{name}` for this transform"))
}
