//! Looks at the inputs' topics now and then, beside the worker: librdkafka tells neither that a
//! topic was created again nor, reliably, that it is gone.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::CStr,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel},
    thread,
    time::Duration,
};

use sidestream_core::{
    ports::{SourceEvent, Unreadable},
    record::{TopicId, TopicIndex, TopicPartition},
};

use super::{Error, config::Config, names::Names};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(5);

/// What was found: for each topic its id, none where it is not there.
type Look = Vec<(TopicIndex, Option<TopicId>)>;

/// The inputs' topics as they are.
pub(super) struct Watch {
    names: Names,
    looks: Receiver<Look>,
    /// The topics that the tasks believe in.
    known: HashMap<TopicIndex, TopicId>,
    missing: BTreeSet<TopicIndex>,
    /// The thread ends when this is dropped.
    _stop: Sender<()>,
}

impl Watch {
    /// Starts the thread that looks.
    pub(super) fn start(
        config: &Config,
        names: Names,
        topics: Vec<TopicIndex>,
    ) -> Result<Self, Error> {
        let client = config.admin_client()?;
        let timeout = config.request_timeout;
        let (found, looks) = sync_channel(1);
        let (stop, stopped) = channel::<()>();
        let of_thread = names.clone();
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                let asked: Vec<&str> = topics.iter().map(|&topic| of_thread.name(topic)).collect();
                let described = match client.describe_topics(&asked, timeout) {
                    Ok(described) => described,
                    Err(failure) => {
                        tracing::debug!(%failure, "the topics could not be looked at");
                        continue;
                    }
                };
                let described = topics.iter().copied().zip(described);
                let look = described
                    .filter_map(|(topic, found)| Some((topic, found.ok()?.map(|topic| topic.id))))
                    .collect();
                if found.send(look).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("watch".to_owned())
            .spawn(look)
            .map_err(|error| Error::Unavailable(format!("a thread can't be started: {error}")))?;
        let (known, missing) = (HashMap::new(), BTreeSet::new());
        Ok(Self { names, looks, known, missing, _stop: stop })
    }

    /// Takes note of the topic that a task was told of.
    pub(super) fn told(&mut self, topic: TopicIndex, id: TopicId) {
        self.known.insert(topic, id);
    }

    /// Tells what has changed: topics that are missing or there again, and for each of the
    /// `assigned` partitions whether its topic is gone or was created again, so that nothing is read
    /// on in the new one where it was in the old. Returns whether there was anything,
    /// so that clients have to look at topics as well.
    pub(super) fn report(
        &mut self,
        assigned: &(impl Iterator<Item = TopicPartition> + Clone),
        events: &mut Vec<SourceEvent>,
    ) -> bool {
        let Some(look) = self.looks.try_iter().last() else { return false };
        let before = self.missing.clone();
        let mut has_changed = false;
        for (topic, id) in look {
            let what = match id {
                None if self.missing.insert(topic) => "is gone",
                None => continue,
                Some(id) => {
                    has_changed |= self.missing.remove(&topic);
                    let known = self.known.get_mut(&topic).filter(|known| known.differs(id));
                    let Some(known) = known else { continue };
                    *known = id;
                    "was deleted and created again"
                }
            };
            has_changed = true;
            let reason = format!("the topic `{}` {what}", self.names.name(topic));
            let of_topic = assigned.clone().filter(|at| at.topic == topic);
            events.extend(
                of_topic.map(|at| SourceEvent::Unreadable(at, Unreadable::Lost(reason.clone()))),
            );
        }
        match (before == self.missing, self.missing.is_empty()) {
            (true, _) => {}
            (false, true) => events.push(SourceEvent::Recovered),
            (false, false) => {
                let missing = self.missing.iter().map(|&topic| self.names.c_name(topic));
                let missing: Vec<_> = missing.map(CStr::to_string_lossy).collect();
                events.push(SourceEvent::Waiting(format!(
                    "the topics that are read are not all there: `{}`; they are waited for until \
                     they are created again",
                    missing.join("`, `")
                )));
            }
        }
        has_changed
    }
}
