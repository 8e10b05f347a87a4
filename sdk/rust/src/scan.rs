//! Going through a part of a store.

use std::{fmt, marker::PhantomData, ops::Range, rc::Rc};

use crate::{
    bindings::sidestream::transform::{
        state::{Entries, KeyBound, KeyRange},
        types::BytesColumn,
    },
    codec::Codec,
    failure::Failure,
    task::Task,
};

/// How many entries are asked for at first; many scans end early.
const PAGE_ENTRIES_MIN: u32 = 16;
/// How many entries are asked for in the end.
const PAGE_ENTRIES_MAX: u32 = 1024;

/// The entries of a part of a store, in order; they come page by page.
///
/// The store may be changed meanwhile: a change to keys that the scan has yet to come to may or
/// may not be seen.
pub struct Scan<K, V> {
    task: Rc<Task>,
    store: u32,
    prefix: Option<Vec<u8>>,
    range: KeyRange,
    page: Option<Page>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Codec, V: Codec> Scan<K, V> {
    pub(crate) fn new(
        task: Rc<Task>,
        store: u32,
        prefix: Option<Vec<u8>>,
        lower: KeyBound,
        upper: KeyBound,
    ) -> Self {
        let range = KeyRange { lower, upper, reverse: false, limit: PAGE_ENTRIES_MIN };
        Self { task, store, prefix, range, page: None, types: PhantomData }
    }

    /// The same entries from the last one to the first. To be said before the first entry is
    /// taken.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.range.reverse = true;
        self.page = None;
        self
    }

    /// Makes a page with a next entry the current one; none if there is no entry left.
    fn page(&mut self) -> Option<&mut Page> {
        while self.page.as_ref().is_none_or(Page::is_done) {
            if let Some(page) = &self.page {
                if !page.more {
                    return None;
                }
                let behind = KeyBound::Excluded(page.last_key().to_vec());
                let end =
                    if self.range.reverse { &mut self.range.upper } else { &mut self.range.lower };
                *end = behind;
                self.range.limit = (self.range.limit * 4).min(PAGE_ENTRIES_MAX);
            }
            let entries = self.task.scan(self.store, self.prefix.as_deref(), &self.range);
            self.page = Some(Page::new(entries));
        }
        self.page.as_mut()
    }

    fn decode(&self, key: &[u8], value: &[u8]) -> Result<(K, V), Failure> {
        let name = || &self.task.context.stores[self.store as usize];
        let key = K::decode(key).map_err(|e| e.of(format_args!("key in store `{}`", name())))?;
        let value =
            V::decode(value).map_err(|e| e.of(format_args!("value of store `{}`", name())))?;
        Ok((key, value))
    }
}

impl<K: Codec, V: Codec> Iterator for Scan<K, V> {
    type Item = Result<(K, V), Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.page()?.next()?;
        let page = self.page.as_ref()?;
        Some(self.decode(&page.entries.keys.data[key], &page.entries.values.data[value]))
    }
}

impl<K, V> fmt::Debug for Scan<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Entries that the agent gave, and how far they have been taken.
struct Page {
    entries: Entries,
    more: bool,
    row: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl Page {
    fn new(entries: Entries) -> Self {
        // An agent that says more, but gives nothing to go on from, would be asked for ever.
        let more = entries.more && entries.keys.len() > 0;
        Self { entries, more, row: 0, key: 0..0, value: 0..0 }
    }

    fn is_done(&self) -> bool {
        self.row == self.entries.keys.len()
    }

    fn next(&mut self) -> Option<(Range<usize>, Range<usize>)> {
        self.key = behind(&self.key, &self.entries.keys, self.row)?;
        self.value = behind(&self.value, &self.entries.values, self.row)?;
        self.row += 1;
        Some((self.key.clone(), self.value.clone()))
    }

    fn last_key(&self) -> &[u8] {
        &self.entries.keys.data[self.key.clone()]
    }
}

/// Where a row lies, given where the row before it does.
fn behind(before: &Range<usize>, column: &BytesColumn, row: usize) -> Option<Range<usize>> {
    let length = usize::try_from(*column.lengths.get(row)?).unwrap_or(0);
    Some(before.end..before.end + length)
}
