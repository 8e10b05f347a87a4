//! Columns: many byte strings in two flat buffers, the shape in which they cross every border.

/// A length that stands for null, as in Kafka's own record format.
pub const NULL_LENGTH: i32 = -1;

/// A column of nullable byte strings: all bytes after one another, and one length for each row.
///
/// Invariant: the sum of the non-negative lengths is `data.len()`, and no length is below
/// [`NULL_LENGTH`]. [`Column::from_parts`] checks it for data that comes from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    data: Vec<u8>,
    lengths: Vec<i32>,
}

/// Why two buffers are not a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// A length is negative and not null.
    #[error("row {row} has the length {length}, below -1")]
    NegativeLength {
        /// The row.
        row: usize,
        /// Its length.
        length: i32,
    },
    /// The lengths don't add up to the data.
    #[error("the lengths add up to {expected} bytes, but there are {actual}")]
    DataLength {
        /// The sum of the lengths.
        expected: u64,
        /// The bytes there are.
        actual: usize,
    },
}

impl Column {
    /// Takes two buffers as a column, once they are seen to be one.
    pub fn from_parts(data: Vec<u8>, lengths: Vec<i32>) -> Result<Self, ColumnError> {
        let mut expected = 0u64;
        for (row, &length) in lengths.iter().enumerate() {
            match u64::try_from(length) {
                Ok(bytes) => expected += bytes,
                Err(_) if length == NULL_LENGTH => {}
                Err(_) => return Err(ColumnError::NegativeLength { row, length }),
            }
        }
        if expected != data.len() as u64 {
            return Err(ColumnError::DataLength { expected, actual: data.len() });
        }
        Ok(Self { data, lengths })
    }

    /// Gives the two buffers back: all bytes, and a length for each row.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<i32>) {
        (self.data, self.lengths)
    }

    /// All bytes, row after row.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// One length for each row, [`NULL_LENGTH`] for null.
    #[must_use]
    pub fn lengths(&self) -> &[i32] {
        &self.lengths
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// How many bytes the column holds in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + self.lengths.len() * size_of::<i32>()
    }

    /// Appends a row. Panics on a row of 2 GiB or more, which no border lets through.
    pub fn push(&mut self, row: Option<&[u8]>) {
        match row {
            Some(bytes) => {
                self.lengths.push(i32::try_from(bytes.len()).expect("a row is below 2 GiB"));
                self.data.extend_from_slice(bytes);
            }
            None => self.lengths.push(NULL_LENGTH),
        }
    }

    /// Iterates over the rows in order.
    #[must_use]
    pub fn iter(&self) -> Rows<'_> {
        Rows { data: &self.data, lengths: self.lengths.iter() }
    }

    /// Appends all rows of `other`.
    pub fn append(&mut self, other: &Self) {
        self.data.extend_from_slice(&other.data);
        self.lengths.extend_from_slice(&other.lengths);
    }

    /// Appends rows `rows` of `other`, whose bytes begin at `start`. Returns where those of the
    /// rows after them begin.
    pub(crate) fn extend_rows(
        &mut self,
        other: &Self,
        rows: std::ops::Range<usize>,
        start: usize,
    ) -> usize {
        let lengths = &other.lengths[rows];
        let end = start + lengths.iter().map(|&length| bytes_of(length)).sum::<usize>();
        self.data.extend_from_slice(&other.data[start..end]);
        self.lengths.extend_from_slice(lengths);
        end
    }

    /// Splits off the rows from `row` on; `self` keeps those before.
    #[must_use]
    pub fn split_off(&mut self, row: usize) -> Self {
        let lengths = self.lengths.split_off(row);
        let kept = self.lengths.iter().map(|&length| bytes_of(length)).sum();
        Self { data: self.data.split_off(kept), lengths }
    }

    /// Forgets every row, keeps the buffers.
    pub fn clear(&mut self) {
        self.data.clear();
        self.lengths.clear();
    }
}

impl<'a> FromIterator<Option<&'a [u8]>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(rows: I) -> Self {
        let mut column = Self::default();
        rows.into_iter().for_each(|row| column.push(row));
        column
    }
}

impl<'a> IntoIterator for &'a Column {
    type Item = Option<&'a [u8]>;
    type IntoIter = Rows<'a>;

    fn into_iter(self) -> Rows<'a> {
        self.iter()
    }
}

/// The rows of a [`Column`], in order.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    data: &'a [u8],
    lengths: std::slice::Iter<'a, i32>,
}

impl<'a> Iterator for Rows<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let &length = self.lengths.next()?;
        if length == NULL_LENGTH {
            return Some(None);
        }
        let (row, rest) = self.data.split_at(bytes_of(length));
        self.data = rest;
        Some(Some(row))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lengths.size_hint()
    }
}

impl ExactSizeIterator for Rows<'_> {}

fn bytes_of(length: i32) -> usize {
    usize::try_from(length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rows: &[Option<&str>]) -> Column {
        rows.iter().map(|row| row.map(str::as_bytes)).collect()
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        let rows = [Some("ab"), None, Some(""), Some("c")];
        let column = column(&rows);
        let back: Vec<_> = column.iter().collect();
        assert_eq!(back, rows.map(|row| row.map(str::as_bytes)));
    }

    #[test]
    fn splitting_keeps_every_row() {
        let rows = [Some("ab"), None, Some(""), Some("c"), None];
        for at in 0..=rows.len() {
            let mut head = column(&rows);
            let tail = head.split_off(at);
            assert_eq!((head, tail), (column(&rows[..at]), column(&rows[at..])));
        }
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        assert_eq!(
            Column::from_parts(vec![1, 2], vec![1, -2]),
            Err(ColumnError::NegativeLength { row: 1, length: -2 })
        );
        assert_eq!(
            Column::from_parts(vec![1, 2], vec![1, -1]),
            Err(ColumnError::DataLength { expected: 1, actual: 2 })
        );
        assert_eq!(
            Column::from_parts(vec![], vec![i32::MAX, i32::MAX]),
            Err(ColumnError::DataLength { expected: 2 * u64::from(i32::MAX as u32), actual: 0 })
        );
    }
}
