//! Records that fail: a batch is divided until a single record fails alone, and the policy of its
//! transform says what becomes of it. Its neighbours go through, in their order.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use crate::{
    record::{Offset, TopicIndex},
    task::{
        Doer, Failure, FailureKind, PassedOver, Processor, RecordId, Turn,
        dead_letter::DeadLetter,
        failures::{Verdict, judge},
        routing::{Inbox, Roots},
        run::Task,
    },
    topology::{OnError, Reader},
};

/// What a round of the task's transforms still has to do.
pub(super) struct Round {
    pub(super) roots: Roots,
    /// For each transform, the records that it has yet to process.
    pub(super) inboxes: Vec<Inbox>,
}

/// The parts of an inbox that are yet to be processed, in order, and the rows to pass over.
struct Parts {
    /// The next one last.
    rows: Vec<Range<usize>>,
    /// Rows that failed: they are tried on their own, on a fresh instance.
    failed: BTreeSet<usize>,
    /// The next row, if it failed alone just now and is to be judged.
    on_judgement: Option<usize>,
    given_up: BTreeMap<usize, Failure>,
}

impl Parts {
    /// The whole of an inbox, in parts of at most `records_max`.
    fn new(inbox: &Inbox, records_max: usize) -> Self {
        let records_max = records_max.max(1);
        let firsts = (0..inbox.len()).step_by(records_max).rev();
        Self {
            rows: firsts.map(|row| row..inbox.len().min(row.saturating_add(records_max))).collect(),
            failed: BTreeSet::new(),
            on_judgement: None,
            given_up: BTreeMap::new(),
        }
    }

    /// Puts every row that failed on its own.
    fn set_apart(&mut self) {
        let mut rows = Vec::new();
        for part in self.rows.drain(..) {
            let mut end = part.end;
            for &row in self.failed.range(part.clone()).rev() {
                rows.extend([row + 1..end, row..row + 1]);
                end = row;
            }
            rows.push(part.start..end);
        }
        rows.retain(|part| !part.is_empty());
        self.rows = rows;
    }

    /// Divides parts where `rows` begin and end.
    fn cut_out(&mut self, rows: &Range<usize>) {
        let mut parts = Vec::with_capacity(self.rows.len() + 2);
        for part in self.rows.drain(..) {
            let within = |row: usize| row.clamp(part.start, part.end);
            let (start, end) = (within(rows.start), within(rows.end));
            parts.extend([end..part.end, start..end, part.start..start]);
        }
        parts.retain(|part| !part.is_empty());
        self.rows = parts;
    }

    /// Puts a part back with `row` on its own.
    fn isolate(&mut self, part: &Range<usize>, row: usize) {
        let parts = [row + 1..part.end, row..row + 1, part.start..row];
        self.rows.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// Puts a part back as two.
    fn halve(&mut self, part: &Range<usize>) {
        let middle = part.start + part.len() / 2;
        self.rows.extend([middle..part.end, part.start..middle]);
    }
}

impl<P: Processor> Task<P> {
    /// Lets `transform` process its inbox. Records that failed before are on their own from the
    /// start, and those that were given up are passed over. A record is judged only by how it fails
    /// on an instance that has done nothing else: what others left in one's memory is not its fault.
    /// Once a call has failed, or where there are several, the time is looked at before each: when it
    /// is used up, that is no record's failure. One that has just failed alone is judged all the same,
    /// so that each try gets further.
    pub(super) fn process_inbox(
        &mut self,
        transform: usize,
        inbox: &Inbox,
        round: &mut Round,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        let mut parts = Parts::new(inbox, turn.division.part_records_max);
        if let Some(rows) = suspects(transform, inbox, round, turn) {
            parts.cut_out(&rows);
        }
        self.isolate_known(transform, inbox, round, turn, &mut parts);
        while let Some(part) = parts.rows.pop() {
            if part.len() == 1
                && let Some(failure) = parts.given_up.remove(&part.start)
            {
                self.pass_over(transform, &inbox.part(&part, &round.roots), &failure, round, turn);
                continue;
            }
            let is_in_time = parts.on_judgement.take() == Some(part.start);
            let divides = turn.division.has_failed || part.len() < inbox.len();
            if divides && !is_in_time && turn.is_out_of_time() {
                return Err(self.out_of_time(transform, turn));
            }
            if part.len() == 1 && parts.failed.contains(&part.start) {
                self.renew(transform);
            }
            self.prepare(turn)?;
            let is_judged = part.len() == 1 && self.is_fresh(transform);
            let savepoint = self.state.savepoint();
            let done = match part.len() == inbox.len() {
                true => self.process_part(transform, inbox, round, turn),
                false => {
                    let records = inbox.part(&part, &round.roots);
                    self.process_part(transform, &records, round, turn)
                }
            };
            let Err(failure) = done else { continue };
            turn.division.has_failed = true;
            self.undo(transform, &savepoint);
            if !failure.kind.is_of_record() || self.state.has_failed() {
                turn.failed(transform, &failure);
                return Err(failure);
            }
            let named = failure.record.filter(|&row| row < part.len());
            let named = named.map(|row| part.start + row);
            let on_trial = turn.on_trial(transform);
            if let Some(on_trial) = on_trial {
                let failed = (inbox, &part, named);
                self.ask_version_before(on_trial, failed, &failure, round, turn)?;
            } else {
                turn.failed(transform, &failure);
            }
            match named {
                None if part.len() > 1 => {
                    let id = |row| round.roots.id(transform, inbox, row);
                    if let (Some(first), Some(last)) = (id(part.start), id(part.end - 1)) {
                        turn.failures.suspect(first, last);
                    }
                    parts.halve(&part);
                }
                // Alone it comes behind those before it: what they write belongs to what it is tried on.
                row => {
                    let row = row.unwrap_or(part.start);
                    if is_judged {
                        let record = round.roots.id(transform, inbox, row);
                        self.settle(transform, record, &failure, turn)?;
                        parts.given_up.insert(row, failure);
                    } else if part.len() == 1 {
                        parts.on_judgement = Some(row);
                    }
                    parts.failed.insert(row);
                    parts.isolate(&part, row);
                }
            }
        }
        Ok(())
    }

    fn isolate_known(
        &self,
        transform: usize,
        inbox: &Inbox,
        round: &Round,
        turn: &Turn<'_, P>,
        parts: &mut Parts,
    ) {
        if turn.failures.is_empty() {
            return;
        }
        for row in 0..inbox.len() {
            let id = round.roots.id(transform, inbox, row);
            let Some(known) = id.and_then(|id| turn.failures.known(id)) else { continue };
            parts.failed.insert(row);
            parts.given_up.extend(known.map(|failure| (row, failure.clone())));
        }
        parts.set_apart();
    }

    /// There is no time to divide a batch any further.
    fn out_of_time(&mut self, transform: usize, turn: &mut Turn<'_, P>) -> Failure {
        turn.division.is_out_of_time = true;
        self.blame(Some(Doer::new(transform, None)));
        let message = "calls took so long, and so many failed, that there was no time to try every \
                       part of a batch; fail sooner, or lower `limits.batch_time_max`";
        Failure { kind: FailureKind::Deadline, record: None, message: message.to_owned() }
    }

    /// A record failed: gives it up, or hands the failure on if it is to be tried again or to stop
    /// the task.
    fn settle(
        &mut self,
        transform: usize,
        record: Option<RecordId>,
        failure: &Failure,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        if turn.blame.is_none() {
            turn.tallies[transform].failed();
        }
        let policy = self.subtopology().transforms[transform].on_error;
        let attempts = turn.failures.attempts(record) + 1;
        match (judge(policy, failure.kind, attempts, turn.retry), record) {
            (Verdict::Retry | Verdict::Stop, _) => {
                self.blame(Some(Doer::new(transform, record)));
                Err(failure.clone())
            }
            (Verdict::GiveUp, Some(record)) => {
                turn.failures.give_up(record, self.positions(), failure.clone());
                turn.division.judged += 1;
                Ok(())
            }
            (Verdict::GiveUp, None) => Ok(()),
        }
    }

    /// Counts the one record of `inbox` as processed, and sends it where its policy says.
    fn pass_over(
        &mut self,
        transform: usize,
        inbox: &Inbox,
        failure: &Failure,
        round: &Round,
        turn: &mut Turn<'_, P>,
    ) {
        let topology = Arc::clone(&self.topology);
        let subtopology = topology.subtopology(self.id);
        let definition = &subtopology.transforms[transform];
        let root = round.roots.of(inbox, 0);
        let source = root.map(|(input, offset)| {
            (topology.topic(subtopology.inputs[input].topic).name.as_str(), offset)
        });
        let to = match definition.on_error.then {
            OnError::DeadLetter(topic) => Some(topic),
            OnError::Fail | OnError::Skip => None,
        };
        if let Some(topic) = to {
            let input = inbox.batch.inputs[0];
            let is_of_source = root.is_some_and(|(source, _)| {
                subtopology.inputs[source].readers.contains(&Reader { transform, input })
            });
            let by = definition.inputs.get(usize::try_from(input).unwrap_or(usize::MAX));
            let letter = DeadLetter {
                task: self.id,
                transform: &definition.name,
                source,
                handed_over_by: by.map(String::as_str).filter(|_| !is_of_source),
                failure,
            };
            let record = round.roots.id(transform, inbox, 0);
            let cut = (turn.failures.cut_of(record), turn.wall_clock);
            let origin = Doer::letter(transform, record);
            letter.append(topic, &inbox.batch.records, cut, origin, &mut turn.produced);
        }
        let first = describe(failure, source, self.id.partition);
        self.note_passed_over(transform, failure, to, first);
        turn.passed_over = true;
    }

    fn note_passed_over(
        &mut self,
        transform: usize,
        failure: &Failure,
        dead_letters: Option<TopicIndex>,
        first: String,
    ) {
        let (task, kind) = (self.id, failure.kind);
        let noted = &mut self.work.passed_over;
        let same = noted.iter_mut().find(|n| n.transform == transform && n.kind == kind);
        match same {
            Some(same) => same.count += 1,
            None => {
                noted.push(PassedOver { task, transform, kind, dead_letters, count: 1, first });
            }
        }
    }
}

/// The rows that the last division got to, if there was no time for more: it goes on there.
fn suspects<P>(
    transform: usize,
    inbox: &Inbox,
    round: &Round,
    turn: &Turn<'_, P>,
) -> Option<Range<usize>> {
    let (first, last) = turn.failures.suspects()?;
    let row_of =
        |id| (0..inbox.len()).find(|&row| round.roots.id(transform, inbox, row) == Some(id));
    let (first, last) = (row_of(first), row_of(last));
    first.or(last)?;
    Some(first.unwrap_or(0)..last.map_or(inbox.len(), |last| last + 1))
}

fn describe(failure: &Failure, source: Option<(&str, Offset)>, partition: i32) -> String {
    match source {
        Some((topic, offset)) => {
            format!("{failure}, at offset {offset} of partition {partition} of {topic}")
        }
        None => format!("{failure}, at a record that a punctuation caused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_begins_in_parts_and_rows_that_failed_are_on_their_own() {
        let inbox = Inbox { roots: vec![0; 7], ..Inbox::default() };
        let in_order = |parts: &Parts| {
            parts.rows.iter().rev().map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        let mut parts = Parts::new(&inbox, 3);
        assert_eq!(in_order(&parts), [(0, 3), (3, 6), (6, 7)]);
        parts.failed = [1, 2, 6].into();
        parts.set_apart();
        assert_eq!(in_order(&parts), [(0, 1), (1, 2), (2, 3), (3, 6), (6, 7)]);
        let mut whole = Parts::new(&inbox, usize::MAX);
        assert_eq!(in_order(&whole), [(0, 7)]);
        whole.cut_out(&(2..4));
        assert_eq!(in_order(&whole), [(0, 2), (2, 4), (4, 7)]);
        whole.cut_out(&(5..7));
        assert_eq!(in_order(&whole), [(0, 2), (2, 4), (4, 5), (5, 7)]);
    }
}
