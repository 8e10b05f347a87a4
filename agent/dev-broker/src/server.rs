//! Starting, listening, stopping; and the state behind its lock.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Notify, Semaphore, futures::OwnedNotified, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    cluster::{Cluster, Node},
    connection,
    error::{ConnectionError, Error},
    group::{Answer, Ticket},
};

/// How often time passes for sessions, transactions and retention.
const TICK: Duration = Duration::from_millis(100);

/// How the broker is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen: loopback, unless one wants others to come in without any security. Port 0
    /// takes a free one.
    pub address: SocketAddr,
    /// The host that clients are told to connect to; that of the address, if none is given.
    pub advertised_host: Option<String>,
    /// The port that clients are told, where something stands in between; the one it listens on,
    /// if none is given.
    pub advertised_port: Option<u16>,
    /// How many bytes of records are held at most. Beyond it the oldest records go, of topics
    /// whose records may be deleted; when there are none, producers are refused.
    pub bytes_max: usize,
    /// How many clients may be connected at once; further ones wait.
    pub connections_max: usize,
    /// How many partitions all topics together may have.
    pub partitions_max: usize,
    /// How many partitions a topic gets that asks for no number.
    pub default_partitions: i32,
    /// Whether topics come to be when a client asks for them.
    pub auto_create_topics: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertised_host: None,
            advertised_port: None,
            bytes_max: 512 << 20,
            connections_max: 1_000,
            partitions_max: 10_000,
            default_partitions: 1,
            auto_create_topics: false,
        }
    }
}

/// A running broker on a thread of its own. Dropping it ends it, and all that was in it is gone.
#[derive(Debug)]
pub struct DevBroker {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DevBroker {
    /// Starts a broker; it listens when this returns.
    pub fn start(options: Options) -> Result<Self, Error> {
        let asked = options.address;
        let refused = |source| Error::Listen { address: asked, source };
        let listener = TcpListener::bind(asked).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        tracing::warn!(
            %address,
            "the development broker keeps everything in memory and nothing when it ends; it has no \
             security: it is for development and demonstrations alone"
        );
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "others than this machine can reach it");
        }
        let broker = Arc::new(Broker::new(address, options));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Start)?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("dev-broker".to_owned())
            .spawn(move || runtime.block_on(run(broker, listener, stopped)))
            .map_err(Error::Start)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Ends it: connections break, and all that was in it is gone.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Its thread listens until this is dropped.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the development broker's thread panicked");
        }
    }
}

impl Drop for DevBroker {
    fn drop(&mut self) {
        self.end();
    }
}

async fn run(broker: Arc<Broker>, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    let ticking = Arc::clone(&broker);
    let tick = async move {
        let mut interval = interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            ticking.with(Cluster::tick);
        }
    };
    tokio::select! {
        ended = accept(broker, listener) => {
            if let Err(error) = ended {
                tracing::error!(%error, "the development broker can't listen any more");
            }
        }
        () = tick => {}
        // Stopped, or its handle dropped.
        _ = stopped => {}
    }
}

/// How long to wait after the system refused a connection, for example for want of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

async fn accept(broker: Arc<Broker>, listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(broker.connections_max));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            match connection::serve(broker, stream, peer).await {
                // Clients often go without a word.
                Ok(()) | Err(ConnectionError::Io(_)) => {}
                Err(error) => tracing::warn!(%peer, %error, "a client's connection is ended"),
            }
            drop(place);
        });
    }
}

/// The state behind its lock, and who waits for it to change.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<State>,
    readable: Arc<Notify>,
    connections_max: usize,
    clock: Clock,
}

#[derive(Debug)]
struct State {
    cluster: Cluster,
    waiting: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    tickets: u64,
    seed: RandomState,
}

impl Broker {
    fn new(address: SocketAddr, options: Options) -> Self {
        let ip =
            if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        let host = options.advertised_host.clone().unwrap_or_else(|| ip.to_string());
        let port = options.advertised_port.unwrap_or(address.port());
        let node = Node { host, port: i32::from(port) };
        let (clock, connections_max) = (Clock::new(), options.connections_max);
        let cluster = Cluster::new(node, options, clock.now_ms());
        let (waiting, seed) = (BTreeMap::new(), RandomState::new());
        let state = Mutex::new(State { cluster, waiting, tickets: 0, seed });
        Self { state, readable: Arc::new(Notify::new()), connections_max, clock }
    }

    /// Milliseconds since 1970. It never goes back.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Ends when there may be more to read than now.
    pub(super) fn readable(&self) -> OwnedNotified {
        Arc::clone(&self.readable).notified_owned()
    }

    /// Does something with the state, then tells who waited for it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Cluster, i64) -> T) -> T {
        self.locked(|state, now_ms| work(&mut state.cluster, now_ms))
    }

    /// The same, for a request whose answer may come later: to the sender, unless it is returned.
    pub(super) fn with_ticket(
        &self,
        sender: oneshot::Sender<Answer>,
        work: impl FnOnce(&mut Cluster, Ticket, String) -> Option<Answer>,
    ) -> Option<Answer> {
        self.locked(|state, now_ms| {
            state.tickets += 1;
            let ticket = Ticket(state.tickets);
            let unique = format!("{:016x}", state.seed.hash_one((state.tickets, now_ms)));
            let answer = work(&mut state.cluster, ticket, unique);
            if answer.is_none() {
                state.waiting.insert(ticket, sender);
            }
            answer
        })
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State, i64) -> T) -> T {
        let now_ms = self.now_ms();
        // A request that panicked must not take the others with it.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state, now_ms);
        for (ticket, answer) in state.cluster.take_answers() {
            if let Some(sender) = state.waiting.remove(&ticket) {
                // Whoever waited may have gone meanwhile.
                drop(sender.send(answer));
            }
        }
        if state.cluster.take_readable() {
            self.readable.notify_waiters();
        }
        result
    }
}

/// The time of day when it began, and what has passed since.
#[derive(Debug)]
struct Clock {
    began: Instant,
    began_ms: i64,
}

impl Clock {
    fn new() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let began_ms = since_1970.map_or(0, |since| since.as_millis());
        Self { began: Instant::now(), began_ms: i64::try_from(began_ms).unwrap_or(i64::MAX) }
    }

    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.began_ms.saturating_add(passed)
    }
}
