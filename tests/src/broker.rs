//! Apache Kafka on loopback: one broker, or a cluster of three, on free ports and in a temporary
//! folder, to be killed, frozen and restarted on the same data and ports.
//!
//! Its jars are where `./dev setup` puts them; `SIDESTREAM_KAFKA_JARS` says another place.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sidestream_dev_broker::{self as dev_broker, DevBroker};
use tempfile::TempDir;

use crate::{
    process::{Process, Signal},
    proxy::Proxy,
    wait,
};

/// How long a broker may take to answer: a machine that is busy compiling is slow.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The cluster id that the storage is formatted with.
const CLUSTER_ID: &str = "c2lkZXN0cmVhbS10ZXN0MQ";

/// What a cluster is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many brokers: 1 or 3.
    pub nodes: usize,
    /// Further lines of `server.properties`; they win over those that are there.
    pub properties: Vec<(String, String)>,
    /// The port to listen on and the one that clients are told, for one broker behind a proxy.
    pub ports: Option<(u16, u16)>,
    /// Which release it is.
    pub release: Release,
}

/// A release of Apache Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// The one that `SIDESTREAM_KAFKA_JARS` says, else the newest that is known here.
    #[default]
    Newest,
    /// The oldest that the agent is tested with.
    Oldest,
}

/// See [`Release::Oldest`].
const OLDEST: &str = "kafka/3.9.2";

impl Options {
    /// One broker that clients reach through a proxy alone.
    #[must_use]
    pub fn behind(proxy: &Proxy) -> Self {
        Self { ports: Some((proxy.target(), proxy.port())), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 1, properties: Vec::new(), ports: None, release: Release::Newest }
    }
}

/// Running brokers. Dropping it ends them and removes their data.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    // Last, so that the brokers are gone before their folder goes.
    folder: TempDir,
}

#[derive(Debug)]
struct Node {
    port: u16,
    properties: PathBuf,
    release: Release,
    process: Option<Process>,
}

/// The broker that all tests of one binary share: start-up is the dear part. Each test takes
/// topic names of its own, see [`crate::topics::unique`].
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        Cluster::start(&Options::default())
            .expect("the tests need a broker; `./dev setup` fetches it")
    })
}

/// The agent's own broker for development, shared likewise.
pub fn embedded() -> &'static DevBroker {
    static EMBEDDED: OnceLock<DevBroker> = OnceLock::new();
    EMBEDDED.get_or_init(|| DevBroker::start(dev_broker::Options::default()).expect("it is here"))
}

impl Cluster {
    /// Starts brokers with fresh data and waits until all of them answer.
    pub fn start(options: &Options) -> Result<Self> {
        ensure!(matches!(options.nodes, 1 | 3), "a cluster has one broker or three");
        ensure!(options.ports.is_none() || options.nodes == 1, "a proxy stands before one broker");
        let folder = tempfile::Builder::new().prefix("sidestream-kafka-").tempdir()?;
        let port = || options.ports.map_or_else(free_port, |(port, _)| Ok(port));
        let ports = (0..options.nodes).map(|_| Ok((port()?, free_port()?)));
        let ports = ports.collect::<Result<Vec<_>>>()?;
        let mut nodes = Vec::new();
        for index in 0..options.nodes {
            let properties = folder.path().join(format!("{index}.properties"));
            let data = folder.path().join(index.to_string());
            std::fs::write(&properties, server_properties(options, &ports, index, &data)?)?;
            let release = options.release;
            format_storage(&properties, release)?;
            nodes.push(Node { port: ports[index].0, properties, release, process: None });
        }
        let mut cluster = Self { nodes, folder };
        for index in 0..options.nodes {
            cluster.spawn(index)?;
        }
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// The value of `bootstrap.servers`; of a broker behind a proxy, the proxy's is better.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let servers: Vec<_> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        servers.join(",")
    }

    /// The port that a broker listens on.
    #[must_use]
    pub fn port(&self, node: usize) -> u16 {
        self.nodes[node].port
    }

    /// Ends a broker without a word.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.process(node)?.kill()?;
        self.nodes[node].process = None;
        Ok(())
    }

    /// Starts a broker that was killed, on its data and port, and waits until all answer.
    pub fn restart(&mut self, node: usize) -> Result<()> {
        ensure!(self.nodes[node].process.is_none(), "broker {node} is running");
        self.spawn(node)?;
        self.wait_until_ready()
    }

    /// Freezes a broker: connections stay open, nothing is answered.
    pub fn stop(&mut self, node: usize) -> Result<()> {
        self.process(node)?.signal(Signal::Stop)
    }

    /// Thaws a frozen broker.
    pub fn resume(&mut self, node: usize) -> Result<()> {
        self.process(node)?.signal(Signal::Continue)
    }

    fn process(&mut self, node: usize) -> Result<&mut Process> {
        self.nodes[node].process.as_mut().with_context(|| format!("broker {node} is not running"))
    }

    fn spawn(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let mut command = java(node.release)?;
        command.arg("kafka.Kafka").arg(&node.properties);
        let log = node.properties.with_extension("log");
        let folder = Some(self.folder.path());
        node.process = Some(Process::spawn("broker", &mut command, &log, folder)?);
        Ok(())
    }

    /// Waits until every running broker is a part of what the cluster says about itself.
    fn wait_until_ready(&mut self) -> Result<()> {
        for node in self.nodes.iter_mut().filter(|node| node.process.is_some()) {
            let process = node.process.as_mut().expect("filtered just now");
            let listening = || {
                if let Some(status) = process.ended()? {
                    // Going on to wait would only hide why.
                    return Ok(Some(Err(status)));
                }
                let address = (Ipv4Addr::LOCALHOST, node.port);
                Ok(std::net::TcpStream::connect(address).is_ok().then_some(Ok(())))
            };
            if let Err(status) = wait::until("listening broker", READY_WITHIN, listening)? {
                bail!("the broker ended with {status}:\n{}", process.log_tail());
            }
        }
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("reconnect.backoff.max.ms", "200")
            .create()?;
        let whole = || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5))?;
            Ok(metadata.brokers().len() >= running)
        };
        wait::until_true("answer of all brokers", READY_WITHIN, whole)
    }
}

/// A port on loopback that nobody listens on. Below the range that systems give to outgoing
/// connections, so that none takes it while a broker is away.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less than COUNT");
    for _ in 0..COUNT {
        // Processes start far from each other, also when their ids are neighbours.
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (u32::from(start) * 97 + u32::from(step)) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("less than COUNT");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1")
}

fn jars(release: Release) -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = || Some(set("SIDESTREAM_CACHE").unwrap_or(set("HOME")?.join(".cache/sidestream")));
    let jars = match release {
        Release::Newest => {
            set("SIDESTREAM_KAFKA_JARS").or_else(|| Some(cache()?.join("kafka/4.4.0")))
        }
        Release::Oldest => cache().map(|cache| cache.join(OLDEST)),
    };
    let jars = jars.context("HOME is not set, and neither is SIDESTREAM_KAFKA_JARS")?;
    ensure!(jars.is_dir(), "no Kafka in {}: `./dev setup` fetches it", jars.display());
    Ok(jars)
}

fn java(release: Release) -> Result<Command> {
    let mut command = Command::new("java");
    // Quick to start rather than quick in the long run.
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command.arg("-cp").arg(jars(release)?.join("*"));
    Ok(command)
}

fn format_storage(properties: &Path, release: Release) -> Result<()> {
    let mut command = java(release)?;
    command.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(properties);
    let output = command.output().context("can't run java")?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "can't format the broker's storage: {}", said());
    Ok(())
}

fn server_properties(
    options: &Options,
    ports: &[(u16, u16)],
    index: usize,
    data: &Path,
) -> Result<String> {
    let voters = ports.iter().enumerate();
    let voters = voters.map(|(node, (_, port))| format!("{}@127.0.0.1:{port}", node + 1));
    let (port, controller_port) = ports[index];
    let advertised = options.ports.map_or(port, |(_, advertised)| advertised);
    let replicas = options.nodes.to_string();
    let lines = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", (index + 1).to_string()),
        ("controller.quorum.voters", voters.collect::<Vec<_>>().join(",")),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
        ),
        ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{advertised}")),
        ("log.dirs", data.display().to_string()),
        ("auto.create.topics.enable", "false".to_owned()),
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
        ("default.replication.factor", replicas.clone()),
        ("offsets.topic.num.partitions", "3".to_owned()),
        ("offsets.topic.replication.factor", replicas.clone()),
        ("transaction.state.log.num.partitions", "3".to_owned()),
        ("transaction.state.log.replication.factor", replicas),
        ("transaction.state.log.min.isr", options.nodes.div_ceil(2).to_string()),
        ("min.insync.replicas", options.nodes.div_ceil(2).to_string()),
        // An open transaction of a dead producer is ended soon after its timeout, not up to ten
        // seconds later.
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500".to_owned()),
        ("log.cleaner.dedupe.buffer.size", "16777216".to_owned()),
        ("num.io.threads", "4".to_owned()),
        ("num.network.threads", "2".to_owned()),
    ];
    let mut text = String::new();
    let own = lines.iter().map(|(name, value)| (*name, value.as_str()));
    let further = options.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.chain(further) {
        writeln!(text, "{name}={value}")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let ports: Vec<_> = (0..20).map(|_| free_port().unwrap()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(ports.len(), distinct.len());
    }

    #[test]
    fn further_properties_come_last() {
        let mut options = Options::default();
        options.properties.push(("num.io.threads".to_owned(), "9".to_owned()));
        let text = server_properties(&options, &[(1, 2)], 0, Path::new("data")).unwrap();
        assert!(text.ends_with("num.io.threads=9\n"), "{text}");
    }
}
