//! An answer of `process` as the canonical ABI lays it out.

/// Byte strings in one: all bytes, and the length of each.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// All bytes.
    pub data: Vec<u8>,
    /// A length for each row, -1 for null.
    pub lengths: Vec<i32>,
}

impl Column {
    /// A column of these rows.
    #[must_use]
    pub fn of(rows: &[&[u8]]) -> Self {
        let length = |row: &&[u8]| i32::try_from(row.len()).expect("a row is short");
        Self { data: rows.concat(), lengths: rows.iter().map(length).collect() }
    }
}

/// What `process` answers. Nothing checks that its columns match.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// See `emits` in the WIT.
    pub causes: Vec<i32>,
    /// See `emits`.
    pub outputs: Vec<u32>,
    /// See `emits`.
    pub keys: Column,
    /// See `emits`.
    pub values: Column,
    /// See `emits`: counts, names, values.
    pub headers: Option<(Vec<u32>, Column, Column)>,
    /// See `emits`.
    pub timestamps: Vec<i64>,
    /// See `emits`.
    pub partitions: Vec<i32>,
    /// See `writes`.
    pub stores: Vec<u32>,
    /// See `writes`.
    pub write_keys: Column,
    /// See `writes`.
    pub write_values: Column,
    /// A failure instead of all that: kind, row, message.
    pub failure: Option<(u8, i32, String)>,
    /// Lengths of lists, put in afterwards: as if they had so many elements.
    pub lies: Vec<(Field, u32)>,
}

/// The place of a list's length in an answer.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// `emits.causes`.
    Causes = 1,
    /// The bytes of `emits.keys`.
    KeyData = 5,
    /// The bytes of `emits.values`.
    ValueData = 9,
}

impl Answer {
    /// An answer that emits one record to output 0, caused by row 0.
    #[must_use]
    pub fn one(key: &[u8], value: &[u8]) -> Self {
        Self {
            causes: vec![0],
            outputs: vec![0],
            keys: Column::of(&[key]),
            values: Column::of(&[value]),
            timestamps: vec![i64::MIN],
            partitions: vec![-1],
            ..Self::default()
        }
    }

    /// An answer that writes one value.
    #[must_use]
    pub fn write(store: u32, key: &[u8], value: &[u8]) -> Self {
        Self {
            stores: vec![store],
            write_keys: Column::of(&[key]),
            write_values: Column::of(&[value]),
            ..Self::default()
        }
    }

    /// The answer as it stands in memory at `at`.
    #[must_use]
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        let mut layout = Layout { words: Vec::new(), heap: Vec::new(), heap_at: at + 4 + 37 * 4 };
        if let Some((kind, row, message)) = &self.failure {
            layout.words.extend([u32::from(*kind), row.cast_unsigned()]);
            layout.list(message.bytes().collect());
            layout.words.resize(37, 0);
            return layout.bytes(1);
        }
        layout.list_of(self.causes.iter().map(|n| n.to_le_bytes()));
        layout.list_of(self.outputs.iter().map(|n| n.to_le_bytes()));
        layout.column(&self.keys);
        layout.column(&self.values);
        match &self.headers {
            Some((counts, names, values)) => {
                layout.words.push(1);
                layout.list_of(counts.iter().map(|n| n.to_le_bytes()));
                layout.column(names);
                layout.column(values);
            }
            None => layout.words.extend([0; 11]),
        }
        layout.list_of(self.timestamps.iter().map(|n| n.to_le_bytes()));
        layout.list_of(self.partitions.iter().map(|n| n.to_le_bytes()));
        layout.list_of(self.stores.iter().map(|n| n.to_le_bytes()));
        layout.column(&self.write_keys);
        layout.column(&self.write_values);
        for &(field, length) in &self.lies {
            layout.words[field as usize] = length;
        }
        layout.bytes(0)
    }
}

struct Layout {
    words: Vec<u32>,
    heap: Vec<u8>,
    heap_at: usize,
}

impl Layout {
    fn list_of<const N: usize>(&mut self, elements: impl Iterator<Item = [u8; N]>) {
        self.place(elements.flatten().collect(), N);
    }

    fn list(&mut self, bytes: Vec<u8>) {
        self.place(bytes, 1);
    }

    fn place(&mut self, bytes: Vec<u8>, size: usize) {
        while !(self.heap_at + self.heap.len()).is_multiple_of(8) {
            self.heap.push(0);
        }
        let place = self.heap_at + self.heap.len();
        let count = bytes.len() / size;
        self.words.extend([place, count].map(|n| u32::try_from(n).expect("it fits the memory")));
        self.heap.extend(bytes);
    }

    fn column(&mut self, column: &Column) {
        self.list(column.data.clone());
        self.list_of(column.lengths.iter().map(|n| n.to_le_bytes()));
    }

    fn bytes(self, case: u8) -> Vec<u8> {
        let mut bytes = vec![case, 0, 0, 0];
        bytes.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.heap);
        bytes
    }
}
