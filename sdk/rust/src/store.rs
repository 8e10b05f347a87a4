//! Typed stores.

use std::{
    borrow::Borrow,
    fmt,
    marker::PhantomData,
    ops::{Bound, RangeBounds},
    rc::Rc,
};

use crate::{
    bindings::sidestream::transform::state::KeyBound,
    codec::{Codec, CodecError, Encode},
    failure::{Failure, Outcome},
    scan::Scan,
    task::Task,
};

/// A store of the task with keys of type `K` and values of type `V`;
/// [`Setup::store`](crate::Setup::store) gives it.
///
/// Reads see every write before them. Writes are kept until the call ends, or a scan needs them,
/// and count when the agent's transaction commits; those of a call that fails never do. A store is
/// to be used while a record or a punctuation is processed, not when a transform is initialised.
///
/// Its methods fail where a key or value can't be encoded or decoded; that rejects the record.
pub struct Store<K = Vec<u8>, V = Vec<u8>> {
    task: Rc<Task>,
    index: u32,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Codec, V: Codec> Store<K, V> {
    pub(crate) fn new(task: Rc<Task>, index: u32) -> Self {
        Self { task, index, types: PhantomData }
    }

    /// The same store, whose values for the keys of all records of a batch come at once when the
    /// batch begins. Worth it where the key of a record is the key to be read.
    #[must_use]
    pub fn prefetched(self) -> Self {
        self.task.prefetched.borrow_mut().push(self.index);
        self
    }

    /// The value of a key; none if there is none.
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, Failure>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        self.task.get(self.index, key)
    }

    /// Brings the values of many keys at once, so that reading them afterwards is cheap.
    pub fn prefetch<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Outcome
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized + 'q,
    {
        let encoded: Vec<_> =
            keys.into_iter().map(encode).collect::<Result<_, _>>().map_err(|e| e.of("key"))?;
        self.task.prefetch(self.index, encoded.iter().map(Vec::as_slice));
        Ok(())
    }

    /// Sets the value of a key.
    pub fn put<Q, W>(&self, key: &Q, value: &W) -> Outcome
    where
        K: Borrow<Q>,
        V: Borrow<W>,
        Q: Encode + ?Sized,
        W: Encode + ?Sized,
    {
        self.task.put(self.index, key, Some(value))
    }

    /// Deletes a key; one that isn't there is no error.
    pub fn delete<Q>(&self, key: &Q) -> Outcome
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
    {
        self.task.put::<_, [u8]>(self.index, key, None)
    }

    /// All entries, in the order of their keys' bytes.
    #[must_use]
    pub fn all(&self) -> Scan<K, V> {
        self.scan(None, KeyBound::Unbounded, KeyBound::Unbounded)
    }

    /// The entries in a range of keys, in the order of their keys' bytes. That is the order of the
    /// keys themselves for strings, byte strings and unsigned numbers.
    pub fn range<Q, R>(&self, range: R) -> Result<Scan<K, V>, Failure>
    where
        K: Borrow<Q>,
        Q: Encode + ?Sized,
        R: RangeBounds<Q>,
    {
        let (lower, upper) = (bound(range.start_bound())?, bound(range.end_bound())?);
        Ok(self.scan(None, lower, upper))
    }

    /// The entries whose keys' bytes begin with those of `prefix`, in the order of their keys'
    /// bytes.
    pub fn prefix<P: Encode + ?Sized>(&self, prefix: &P) -> Result<Scan<K, V>, Failure> {
        Ok(self.scan(Some(encode(prefix)?), KeyBound::Unbounded, KeyBound::Unbounded))
    }

    fn scan(&self, prefix: Option<Vec<u8>>, lower: KeyBound, upper: KeyBound) -> Scan<K, V> {
        Scan::new(Rc::clone(&self.task), self.index, prefix, lower, upper)
    }
}

fn bound<Q: Encode + ?Sized>(bound: Bound<&Q>) -> Result<KeyBound, CodecError> {
    Ok(match bound {
        Bound::Included(key) => KeyBound::Included(encode(key)?),
        Bound::Excluded(key) => KeyBound::Excluded(encode(key)?),
        Bound::Unbounded => KeyBound::Unbounded,
    })
}

fn encode<T: Encode + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    value.encode(&mut bytes)?;
    Ok(bytes)
}

impl<K, V> fmt::Debug for Store<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("index", &self.index).finish_non_exhaustive()
    }
}
