//! A proxy before a broker that can hold back requests and deliver them late, also when the client
//! has long given up on them; or deliver them and change what is answered.
//!
//! It forwards Kafka's requests and answers whole. A request is its length of four bytes, the API
//! key of two, the version of two, the correlation id of four, and more; an answer its length, the
//! correlation id, and more. The broker must be started as [`Options::behind`] says: it gives
//! the proxy's port as its own, so that clients know no other way.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kafka_protocol::{
    messages::ResponseHeader,
    protocol::{Decodable, Encodable, HeaderVersion},
};

#[cfg(doc)]
use crate::broker::Options;
use crate::broker::free_port;

/// Kinds of requests, each with its API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Records that are written.
    Produce = 0,
    /// Records that are read.
    Fetch = 1,
    /// Who coordinates a group or a transactional id.
    FindCoordinator = 10,
    /// A member's sign of life.
    Heartbeat = 12,
    /// The end of a transaction.
    EndTxn = 26,
    /// A group's offsets, as a part of a transaction.
    TxnOffsetCommit = 28,
}

impl Api {
    const ALL: [Self; 6] = [
        Self::Produce,
        Self::Fetch,
        Self::FindCoordinator,
        Self::Heartbeat,
        Self::EndTxn,
        Self::TxnOffsetCommit,
    ];

    /// The kind of a request, if it is one of these.
    fn of(request: &[u8]) -> Option<Self> {
        let key = i16::from_be_bytes(*request.get(4..)?.first_chunk()?);
        Self::ALL.into_iter().find(|api| *api as i16 == key)
    }
}

/// Changes the answer to a request, both whole; says whether it did.
type Change = Box<dyn FnMut(&[u8], &mut Vec<u8>) -> bool + Send>;

/// Makes an error of a success, where the error's code is so many bytes before the answer's end.
/// Returns whether it was one.
pub fn fail(answer: &mut [u8], before_end: usize, error: i16) -> bool {
    let code = answer.len().checked_sub(before_end).and_then(|at| answer.get_mut(at..));
    match code.and_then(|rest| rest.first_chunk_mut()) {
        Some(code) if *code == [0, 0] => {
            *code = error.to_be_bytes();
            true
        }
        _ => false,
    }
}

/// Changes an answer of the kind `A` to a request, both whole, if `change` says that it did. One that
/// can't be read stays as it is.
pub fn edit<A: Decodable + Encodable + HeaderVersion>(
    request: &[u8],
    answer: &mut Vec<u8>,
    change: impl FnOnce(&mut A) -> bool,
) -> bool {
    match edited(request, answer, change) {
        Ok(Some(other)) => {
            *answer = other;
            true
        }
        Ok(None) | Err(_) => false,
    }
}

fn edited<A: Decodable + Encodable + HeaderVersion>(
    request: &[u8],
    answer: &[u8],
    change: impl FnOnce(&mut A) -> bool,
) -> Result<Option<Vec<u8>>> {
    let version = request.get(6..).and_then(|rest| rest.first_chunk()).context("no version")?;
    let version = i16::from_be_bytes(*version);
    let mut rest = answer.get(4..).context("no length")?;
    let header = ResponseHeader::decode(&mut rest, A::header_version(version))?;
    let mut body = A::decode(&mut rest, version)?;
    if !change(&mut body) {
        return Ok(None);
    }
    let mut other = vec![0; 4];
    header.encode(&mut other, A::header_version(version))?;
    body.encode(&mut other, version)?;
    let length = i32::try_from(other.len() - 4)?;
    other[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Some(other))
}

/// The most bytes of one request or answer that are taken.
const FRAME_BYTES_MAX: usize = 128 << 20;

/// The most requests of one connection that wait behind one that is held.
const REQUESTS_WAITING_MAX: usize = 1_000;

/// A running proxy. Dropping it closes its connections.
pub struct Proxy {
    port: u16,
    target: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    plan: Mutex<Plan>,
    held: AtomicU64,
    delivered_late: AtomicU64,
    changed: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

/// What is to become of the next requests of each kind.
#[derive(Default)]
struct Plan {
    /// How many to hold, and for how long.
    to_hold: BTreeMap<Api, (u32, Duration)>,
    /// How many answers to change, and how.
    to_change: BTreeMap<Api, (u32, Change)>,
}

/// The requests of one connection whose answers may be changed: by correlation id.
type Asked = Mutex<BTreeMap<[u8; 4], (Api, Vec<u8>)>>;

impl Proxy {
    /// Listens on a free port of loopback, and chooses another one for the broker.
    pub fn start() -> Result<Self> {
        let (port, target) = (free_port()?, free_port()?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let shared = Arc::new(Shared::default());
        let accepted = Arc::clone(&shared);
        thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if accepted.closed.load(Ordering::Relaxed) {
                    break;
                }
                // One that can't be served is closed by being dropped, and the client tries again.
                let served = client.and_then(|client| serve(&accepted, client, target));
                drop(served);
            }
        })?;
        Ok(Self { port, target, shared })
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that it forwards to.
    #[must_use]
    pub fn target(&self) -> u16 {
        self.target
    }

    /// Its `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Holds each of the next `count` requests of a kind back for `delay`, and what follows on its
    /// connection with it.
    pub fn hold(&self, api: Api, count: u32, delay: Duration) {
        self.shared.plan().to_hold.insert(api, (count, delay));
    }

    /// Delivers requests of a kind, but changes the answers to them, until `count` were changed.
    pub fn change(
        &self,
        api: Api,
        count: u32,
        change: impl FnMut(&[u8], &mut Vec<u8>) -> bool + Send + 'static,
    ) {
        self.shared.plan().to_change.insert(api, (count, Box::new(change)));
    }

    /// Changes no answer any more.
    pub fn change_nothing(&self) {
        self.shared.plan().to_change.clear();
    }

    /// Holds and changes nothing any more, and counts from zero.
    pub fn begin_again(&self) {
        *self.shared.plan() = Plan::default();
        for count in [&self.shared.held, &self.shared.delivered_late, &self.shared.changed] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// Closes all connections that there are; clients may make new ones.
    pub fn cut(&self) {
        for connection in self.shared.connections().drain(..) {
            // One that is closed already is as good.
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// How many answers were changed.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.shared.changed.load(Ordering::Relaxed)
    }

    /// How many requests were held back so far.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::Relaxed)
    }

    /// How many of those have reached the broker after all.
    #[must_use]
    pub fn delivered_late(&self) -> u64 {
        self.shared.delivered_late.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener; if that fails, it is gone already.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        self.cut();
    }
}

impl Shared {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this request is to be held; none if it may go on at once.
    fn delay(&self, request: &[u8]) -> Option<Duration> {
        let api = Api::of(request)?;
        let mut plan = self.plan();
        let (left, delay) = plan.to_hold.get_mut(&api)?;
        *left = left.checked_sub(1)?;
        self.held.fetch_add(1, Ordering::Relaxed);
        Some(*delay)
    }

    /// Remembers a request whose answer may be changed.
    fn note(&self, request: &[u8], asked: &Asked) {
        if let Some(api) = Api::of(request)
            && self.plan().to_change.get(&api).is_some_and(|(left, _)| *left > 0)
            && let Some(correlation) = request.get(8..).and_then(|rest| rest.first_chunk())
        {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.insert(*correlation, (api, request.to_vec()));
        }
    }

    /// Changes an answer, if that is planned.
    fn change(&self, answer: &mut Vec<u8>, asked: &Asked) {
        let asked = answer.get(4..8).and_then(|correlation| {
            asked.lock().unwrap_or_else(PoisonError::into_inner).remove(correlation)
        });
        let Some((api, request)) = asked else { return };
        if let Some((left, change)) = self.plan().to_change.get_mut(&api)
            && *left > 0
            && change(&request, answer)
        {
            *left -= 1;
            self.changed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Forwards one connection until either side closes it.
fn serve(shared: &Arc<Shared>, client: TcpStream, target: u16) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    {
        let mut open = shared.connections();
        open.push(client.try_clone()?);
        open.push(broker.try_clone()?);
    }
    let (queue, requests) = mpsc::sync_channel(REQUESTS_WAITING_MAX);
    let (from_client, to_broker) = (client.try_clone()?, broker.try_clone()?);
    let asked = Arc::new(Asked::default());
    let (reader, noted) = (Arc::clone(shared), Arc::clone(&asked));
    thread::spawn(move || read_requests(&reader, from_client, &queue, &noted));
    let writer = Arc::clone(shared);
    thread::spawn(move || write_requests(&writer, &requests, to_broker));
    let answerer = Arc::clone(shared);
    thread::spawn(move || answers(&answerer, broker, client, &asked));
    Ok(())
}

/// A request, when it may go on, and whether that is late.
struct Waiting {
    request: Vec<u8>,
    not_before: Option<Instant>,
}

fn read_requests(
    shared: &Shared,
    mut client: TcpStream,
    queue: &mpsc::SyncSender<Waiting>,
    asked: &Asked,
) {
    while let Ok(request) = read_frame(&mut client) {
        shared.note(&request, asked);
        let not_before = shared.delay(&request).map(|delay| Instant::now() + delay);
        if queue.send(Waiting { request, not_before }).is_err() {
            break;
        }
    }
}

/// A request or an answer, with its length.
fn read_frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let bytes = usize::try_from(i32::from_be_bytes(length)).ok();
    let bytes =
        bytes.filter(|bytes| *bytes <= FRAME_BYTES_MAX).ok_or(io::ErrorKind::InvalidData)?;
    let mut frame = length.to_vec();
    frame.resize(4 + bytes, 0);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

/// The connection to the broker outlives the client's until what was held is delivered.
fn write_requests(shared: &Shared, requests: &mpsc::Receiver<Waiting>, mut broker: TcpStream) {
    for Waiting { request, not_before } in requests {
        if let Some(moment) = not_before {
            thread::sleep(moment.saturating_duration_since(Instant::now()));
        }
        if broker.write_all(&request).is_err() {
            break;
        }
        shared.delivered_late.fetch_add(u64::from(not_before.is_some()), Ordering::Relaxed);
    }
    // The broker answers what it has before it closes; an error means that it has closed.
    drop(broker.shutdown(Shutdown::Write));
}

/// Forwards answers; those to a client that is gone are read and forgotten, so that the broker
/// does not stop working on what was delivered late.
fn answers(shared: &Shared, mut broker: TcpStream, mut client: TcpStream, asked: &Asked) {
    while let Ok(mut answer) = read_frame(&mut broker) {
        shared.change(&mut answer, asked);
        drop(client.write_all(&answer));
    }
    drop(client.shutdown(Shutdown::Both));
}
