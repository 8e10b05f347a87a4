use super::record::{TestOutput, TestRecord};
use crate::{
    bindings::sidestream::transform::types::{Emits, Headers},
    column::Rows,
};

/// Emitted records as they would be produced.
pub(super) fn outputs_of<'a>(
    emits: &'a Emits,
    records: &'a [TestRecord],
    stream_time: i64,
    names: &'a [String],
) -> impl Iterator<Item = TestOutput> + 'a {
    let (mut keys, mut values) = (emits.keys.rows(), emits.values.rows());
    let mut own_headers = emits.headers.as_ref().map(OwnHeaders::new);
    (0..emits.outputs.len()).map(move |row| {
        let cause = usize::try_from(emits.causes[row]).ok().map(|cause| &records[cause]);
        let of_cause = || cause.map(|record| record.headers.clone()).unwrap_or_default();
        let own = own_headers.as_mut().and_then(|headers| headers.next_record());
        TestOutput {
            output: names[emits.outputs[row] as usize].clone(),
            key: keys.next().flatten().map(<[u8]>::to_vec),
            value: values.next().flatten().map(<[u8]>::to_vec),
            headers: own.unwrap_or_else(of_cause),
            timestamp: match emits.timestamps[row] {
                i64::MIN => cause.map_or(stream_time, |record| record.timestamp),
                timestamp => timestamp,
            },
            partition: (emits.partitions[row] >= 0).then_some(emits.partitions[row]),
        }
    })
}

/// Headers that emitted records have of their own.
struct OwnHeaders<'a> {
    counts: std::slice::Iter<'a, u32>,
    names: Rows<'a>,
    values: Rows<'a>,
}

impl<'a> OwnHeaders<'a> {
    fn new(headers: &'a Headers) -> Self {
        Self {
            counts: headers.counts.iter(),
            names: headers.names.rows(),
            values: headers.values.rows(),
        }
    }

    /// The headers of the next record; none if it has those of its cause.
    fn next_record(&mut self) -> Option<Vec<(String, Option<Vec<u8>>)>> {
        let count = *self.counts.next().filter(|&&count| count != u32::MAX)?;
        let mut next = || {
            let name = self.names.next().flatten().expect("each header has a name");
            let value = self.values.next().expect("values are in step with names");
            (String::from_utf8_lossy(name).into_owned(), value.map(<[u8]>::to_vec))
        };
        Some((0..count).map(|_| next()).collect())
    }
}
