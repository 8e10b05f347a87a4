//! What was read from a topic.

use std::fmt;

/// Bytes, or null.
pub type Bytes = Option<Vec<u8>>;

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Where it stands there.
    pub offset: i64,
    /// Its time, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Its headers, in order.
    pub headers: Vec<(String, Bytes)>,
}

/// The records of a topic that readers of committed records see, in the order of each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<Vec<Record>>,
}

impl Topic {
    /// All records, partition after partition.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.partitions.iter().flatten()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.partitions.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a record is, for people.
    #[must_use]
    pub fn place(&self, record: &Record) -> String {
        format!("{}[{}]@{}", self.name, record.partition, record.offset)
    }
}

impl Record {
    /// Whether both are the same but for where they stand.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.timestamp == other.timestamp
            && self.key == other.key
            && self.value == other.value
            && self.headers == other.headers
    }

    /// The value of the last header of this name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(header, _)| header == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {} at {}", text(&self.key), text(&self.value), self.timestamp)?;
        for (name, value) in &self.headers {
            write!(f, ", {name}: {}", text(value))?;
        }
        Ok(())
    }
}

/// Bytes for people: the first of them, with what can't be shown escaped.
#[must_use]
pub fn text(bytes: &Bytes) -> String {
    const SHOWN_MAX: usize = 60;
    match bytes {
        Some(bytes) if bytes.len() > SHOWN_MAX => {
            format!("\"{}\"... ({} bytes)", bytes[..SHOWN_MAX].escape_ascii(), bytes.len())
        }
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
        None => "null".to_owned(),
    }
}
