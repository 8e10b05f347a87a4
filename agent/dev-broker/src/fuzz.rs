//! What a fuzzer asks of this room; the test of the corpus asks the same of what was found.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, FetchRequest, JoinGroupRequest, SyncGroupRequest};

use super::{
    Options,
    cluster::{Cluster, Node},
    connection::{REQUEST_BYTES_MIN, read_call},
    dispatch::{Call, Handler, Reply, handler},
    error::ConnectionError,
    group::Ticket,
    log::Log,
    requests::{fetch, membership},
};

/// How many frames of an input are looked at.
const FRAMES_MAX: usize = 64;

/// For each length below that of any request, how much time it lets pass.
const PAUSES_MS: [i64; REQUEST_BYTES_MIN] =
    [1, 100, 3_000, 10_000, 60_000, 301_000, 86_400_000, 864_000_000];

/// Takes `data` for what clients send a broker one after another: frames with their lengths. A length
/// that no request has lets time pass.
///
/// Panics if a request is taken and its answer can't be written, or is framed wrongly, and if the
/// broker loses count of what it holds.
pub fn frames(data: &[u8]) {
    let mut broker = Broker::new();
    let mut rest = data;
    for _ in 0..FRAMES_MAX {
        let Some((length, after)) = rest.split_first_chunk() else { return };
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        rest = match PAUSES_MS.get(length) {
            Some(pause_ms) => {
                broker.wait(*pause_ms);
                after
            }
            None => {
                let (frame, after) = after.split_at(length.min(after.len()));
                broker.take(Bytes::copy_from_slice(frame));
                after
            }
        };
        let held = broker.cluster.topics.iter().flat_map(|(_, topic)| &topic.partitions);
        assert_eq!(broker.cluster.bytes(), held.map(Log::bytes).sum::<usize>(), "bytes held");
    }
}

/// A broker without connections and clocks.
struct Broker {
    cluster: Cluster,
    now_ms: i64,
    tickets: u64,
    waiting: Vec<(Ticket, Call)>,
}

impl Broker {
    fn new() -> Self {
        let options = Options {
            bytes_max: 64 << 10,
            partitions_max: 50,
            default_partitions: 2,
            auto_create_topics: true,
            ..Options::default()
        };
        let (node, now_ms) = (Node { host: "broker".to_owned(), port: 9092 }, 1_700_000_000_000);
        let cluster = Cluster::new(node, options, now_ms);
        Self { cluster, now_ms, tickets: 0, waiting: Vec::new() }
    }

    fn wait(&mut self, pause_ms: i64) {
        self.now_ms += pause_ms;
        self.cluster.tick(self.now_ms);
        self.answer_waiting();
    }

    fn take(&mut self, frame: Bytes) {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        match read_call(frame, peer, self.now_ms) {
            Ok(call) => {
                let correlation_id = call.correlation_id;
                check(correlation_id, self.dispatch(call));
            }
            Err(error) => check(0, Err(error)),
        }
        self.answer_waiting();
    }

    /// What `dispatch` does, but that nothing is waited for.
    fn dispatch(&mut self, mut call: Call) -> Reply {
        match handler(&mut call)? {
            Handler::Now(handler) => handler(&mut self.cluster, call),
            Handler::Later(_) if call.key == ApiKey::Fetch as i16 => {
                let request: FetchRequest = call.decode()?;
                fetch::is_due(&self.cluster, &request, &call.context);
                call.encode(&fetch::fetch(&mut self.cluster, &request, &call.context))
            }
            Handler::Later(_) => self.wait_in_group(call),
        }
    }

    fn wait_in_group(&mut self, call: Call) -> Reply {
        self.tickets += 1;
        let (ticket, unique) = (Ticket(self.tickets), format!("{:016x}", self.tickets));
        let (cluster, context) = (&mut self.cluster, &call.context);
        let answer = if call.key == ApiKey::JoinGroup as i16 {
            let request: JoinGroupRequest = call.decode()?;
            membership::join(cluster, request, (ticket, unique), context)
        } else {
            let request: SyncGroupRequest = call.decode()?;
            membership::sync(cluster, &request, ticket, context)
        };
        match answer {
            Some(answer) => call.encode_answer(answer),
            None => {
                self.waiting.push((ticket, call));
                Ok(None)
            }
        }
    }

    fn answer_waiting(&mut self) {
        for (ticket, answer) in self.cluster.take_answers() {
            let found = self.waiting.iter().position(|(waiting, _)| *waiting == ticket);
            let (_, call) = self.waiting.swap_remove(found.expect("a ticket is answered once"));
            check(call.correlation_id, call.encode_answer(answer));
        }
    }
}

fn check(correlation_id: i32, reply: Reply) {
    match reply {
        Ok(None) => {}
        Ok(Some(frame)) => {
            let (length, rest) = frame.split_first_chunk().expect("a frame has a length");
            assert_eq!(i32::from_be_bytes(*length), i32::try_from(rest.len()).unwrap_or(-1));
            assert!(rest.starts_with(&correlation_id.to_be_bytes()), "another correlation id");
        }
        Err(error) => {
            assert!(!matches!(error, ConnectionError::Unwritable { .. }), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}
