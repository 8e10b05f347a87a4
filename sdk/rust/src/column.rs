//! Columns of byte strings, as the border has them: all bytes after one another, and a length for
//! each row.

use crate::{
    bindings::sidestream::transform::types::BytesColumn,
    codec::{CodecError, Encode},
};

const NULL_LENGTH: i32 = -1;

impl BytesColumn {
    pub(crate) fn new() -> Self {
        Self { data: Vec::new(), lengths: Vec::new() }
    }

    /// A column with room for what `model` has.
    pub(crate) fn with_room(rows: usize, bytes: usize) -> Self {
        Self { data: Vec::with_capacity(bytes), lengths: Vec::with_capacity(rows) }
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(crate) fn push(&mut self, row: Option<&[u8]>) {
        let Some(bytes) = row else { return self.lengths.push(NULL_LENGTH) };
        // Memory of a module is below 4 GiB and that of a batch far less; a length that doesn't
        // fit is refused by the agent, because it is negative.
        self.lengths.push(i32::try_from(bytes.len()).unwrap_or(i32::MIN));
        self.data.extend_from_slice(bytes);
    }

    /// Appends what `value` encodes to, without a copy in between. After an error the column is
    /// as it was.
    pub(crate) fn push_encoded<T: Encode + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        let before = self.data.len();
        let encoded = value.encode(&mut self.data).and_then(|()| {
            let length = self.data.len().checked_sub(before).map(i32::try_from);
            match length {
                Some(Ok(length)) => Ok(length),
                Some(Err(_)) => Err(CodecError::new("longer than 2 GiB")),
                None => Err(CodecError::new("its Encode took bytes away instead of appending")),
            }
        });
        match encoded {
            Ok(length) => {
                self.lengths.push(length);
                Ok(())
            }
            Err(error) => {
                self.data.truncate(before);
                Err(error)
            }
        }
    }

    pub(crate) fn pop(&mut self) {
        if let Some(length) = self.lengths.pop() {
            self.data.truncate(self.data.len() - usize::try_from(length).unwrap_or(0));
        }
    }

    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows { data: &self.data, lengths: &self.lengths }
    }

    /// Whether there are `rows` rows and the lengths add up to the data.
    pub(crate) fn is_sound(&self, rows: usize) -> bool {
        let bytes: usize = self.lengths.iter().map(|&length| bytes_of(length)).sum();
        let lengths_valid = self.lengths.iter().all(|&length| length >= NULL_LENGTH);
        self.lengths.len() == rows && lengths_valid && bytes == self.data.len()
    }
}

/// The rows of a sound column, from some row on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rows<'a> {
    data: &'a [u8],
    lengths: &'a [i32],
}

impl<'a> Iterator for Rows<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&length, lengths) = self.lengths.split_first()?;
        self.lengths = lengths;
        if length == NULL_LENGTH {
            return Some(None);
        }
        let (row, data) = self.data.split_at(bytes_of(length));
        self.data = data;
        Some(Some(row))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.lengths.len(), Some(self.lengths.len()))
    }
}

impl ExactSizeIterator for Rows<'_> {}

#[inline]
fn bytes_of(length: i32) -> usize {
    usize::try_from(length).unwrap_or(0)
}

impl<'a> FromIterator<Option<&'a [u8]>> for BytesColumn {
    fn from_iter<I: IntoIterator<Item = Option<&'a [u8]>>>(rows: I) -> Self {
        let mut column = Self::new();
        rows.into_iter().for_each(|row| column.push(row));
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        let rows = [Some(&b"ab"[..]), None, Some(b""), Some(b"c")];
        let column: BytesColumn = rows.into_iter().collect();
        assert!(column.is_sound(4));
        assert_eq!(column.rows().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn a_row_that_cannot_be_encoded_leaves_nothing_behind() {
        struct Half;
        impl Encode for Half {
            fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
                bytes.push(1);
                Err(CodecError::new("half"))
            }
        }
        let mut column = BytesColumn::new();
        column.push_encoded("a").unwrap();
        assert_eq!(column.push_encoded(&Half), Err(CodecError::new("half")));
        column.push_encoded("b").unwrap();
        column.pop();
        assert_eq!((column.data, column.lengths), (b"a".to_vec(), vec![1]));
    }

    #[test]
    fn columns_that_do_not_add_up_are_seen() {
        let column = |data: &[u8], lengths: &[i32]| BytesColumn {
            data: data.to_vec(),
            lengths: lengths.to_vec(),
        };
        assert!(column(b"ab", &[-1, 2]).is_sound(2));
        assert!(!column(b"ab", &[-1, 2]).is_sound(1));
        assert!(!column(b"ab", &[-2, 2]).is_sound(2));
        assert!(!column(b"ab", &[1]).is_sound(1));
        assert!(!column(b"", &[i32::MAX, i32::MAX]).is_sound(2));
    }
}
