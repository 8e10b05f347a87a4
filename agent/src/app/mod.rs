//! The composition: builds the rooms from a pipeline, starts the workers, drains them.

mod check;
mod membership;
pub mod reset;
mod topics;

use std::{
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

pub use self::check::{check_control, check_modules, check_state, check_topics, kafka_properties};
/// What the verb does that the agent starts itself with, to compile a module.
pub use crate::guest::compile_in_this_process as compile;
use crate::{
    config::{self, Pipeline},
    control::{self, Operator, Server},
    dead_letters,
    guest::Digest,
    kafka::{self, Admin, KafkaPorts},
    modules::{
        self, Modules,
        code::Codes,
        files::{Files, News, Until, Watched},
        versions::Versions,
    },
    operator::{Desk, Running},
    plan::Plan,
    rollout::Swapper,
    runtime::{
        board::Board,
        environment::{Environment, Parts},
        lag::Lag,
        thread,
    },
    settings::{bytes, kafka_config, shares, task_stores, worker_config},
    state::{self, Stores},
    telemetry::metrics::Metrics,
};
pub use crate::{modules::Error as ModuleError, runtime::thread::Stop};

/// How long to wait for brokers that are away before asking again.
const BROKER_BACKOFF: Duration = Duration::from_secs(1);

/// Why an agent can't start, or had to stop. The variants say whose turn it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the pipeline file, or the topics.
    #[error("the pipeline can't run on these topics")]
    Topics(Vec<config::Problem>),
    /// Correct the properties of the Kafka clients, or the brokers.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Correct or build a module again, or look at the versions that are kept.
    #[error(transparent)]
    Module(#[from] modules::Error),
    /// Look at the state directory.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Look at the keys `control` and `http`.
    #[error(transparent)]
    Control(#[from] control::Error),
    /// Look at the machine's limits.
    #[error(
        "can't start a thread: {0}; look at the limit of processes (`ulimit -u`, or pids of the container)"
    )]
    Thread(#[source] std::io::Error),
    /// It ran, and can't go on.
    #[error("{0}")]
    Worker(String),
    /// It was asked to stop, and was not done in time. What was not committed is done again.
    #[error(
        "not drained within the {} ms of `shutdown.deadline`: nothing is lost, what was not committed \
         is processed again after the next start; give it more time if this comes again",
        .0.as_millis()
    )]
    Deadline(Duration),
}

impl From<dead_letters::Error> for Error {
    fn from(error: dead_letters::Error) -> Self {
        match error {
            dead_letters::Error::Refused(problems) => Self::Topics(problems),
            dead_letters::Error::Kafka(error) => Self::Kafka(error),
        }
    }
}

/// A running agent.
pub struct Agent {
    workers: Vec<JoinHandle<Result<(), String>>>,
    stop: Stop,
    shutdown: config::pipeline::Shutdown,
    /// Serves until the agent is gone.
    _server: Server,
    _lag: Lag,
    /// Watches the module files.
    _files: Files,
}

impl Agent {
    /// Opens the state, loads the modules, prepares the topics and starts the workers. Waits for
    /// brokers that are away, until `stop` is requested.
    pub fn start(pipeline: &Pipeline, stop: Stop) -> Result<Self, Error> {
        let state = state::Config {
            identity: pipeline.general.identity.clone(),
            memory_bytes_max: shares(pipeline, 1).state,
            ..state::Config::new(&pipeline.state.directory, &pipeline.application)
        };
        let stores = Stores::open_directory(&state)?;
        let desk = desk(pipeline, &stop, &stores);
        let server = serve(pipeline, &desk)?;
        let board = &desk.board;
        board.starts("loading the modules", None);
        let versions = open_versions(pipeline)?;
        let memory = shares(pipeline, 1).guests;
        let mut modules = Modules::load(pipeline, memory, &versions, &desk.board.events)?;
        let config = kafka_config(pipeline, stores.identity());
        config.validate()?;
        let admin = Admin::new(&config)?;
        let wait = Wait { stop: &stop, board, admin: &admin };
        let plan = wait.until("looking at the topics", || topics::prepare(pipeline, &admin))?;
        modules.fit(&plan)?;
        membership::renew(pipeline, &plan, &stores, &wait)?;
        let workers_ever = stores.raise_worker_count(pipeline.general.workers)?;
        let retired = (pipeline.general.workers..workers_ever).map(|worker| worker as usize);
        let retired: Vec<String> = retired.map(|worker| config.transactional_id(worker)).collect();
        wait.until("settling transactions of workers that there are no longer", || {
            Ok(admin.settle(&retired)?)
        })?;
        info!(
            application = pipeline.application,
            identity = stores.identity(),
            workers = pipeline.general.workers,
            tasks = plan.topology.subtopologies.iter().map(|s| s.partitions).sum::<i32>(),
            "starting"
        );
        let (codes, files) = (codes(pipeline, &plan, &modules, &desk), modules.files());
        let workers = start_workers(pipeline, &plan, &config, &codes, (&desk, &wait))?;
        let (board, settings) = (Arc::clone(&desk.board), pipeline.swap.clone());
        let swapper = Swapper::new(codes, board, stop.clone(), versions, settings);
        let topology = Arc::clone(&swapper.codes.topology);
        let lag = Lag::start(Arc::clone(&desk.board), Arc::clone(&topology), admin);
        let lag = lag.map_err(Error::Thread)?;
        desk.running.get_or_init(|| Running { topology, swapper: Arc::clone(&swapper) });
        desk.board.events.tell("started", "all workers run");
        let files = watch_files(pipeline, files, &swapper).map_err(Error::Thread)?;
        let shutdown = pipeline.shutdown.clone();
        Ok(Self { workers, stop, shutdown, _server: server, _lag: lag, _files: files })
    }

    /// Waits until the workers have stopped: because `stop` was requested, or because one can't
    /// go on. Gives up when the deadline of the pipeline's `shutdown` has passed after that.
    pub fn wait(self) -> Result<(), Error> {
        let mut deadline = None;
        while !self.workers.iter().all(JoinHandle::is_finished) {
            if self.stop.is_requested() {
                let deadline = *deadline.get_or_insert(Instant::now() + self.shutdown.deadline);
                if Instant::now() >= deadline {
                    error!("not drained in time; what was not committed is processed again");
                    return Err(Error::Deadline(self.shutdown.deadline));
                }
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        for worker in self.workers {
            ended(worker)?;
        }
        info!("stopped");
        Ok(())
    }
}

/// What came of a worker, once its thread ends.
fn ended(worker: JoinHandle<Result<(), String>>) -> Result<(), Error> {
    match worker.join() {
        Ok(result) => result.map_err(Error::Worker),
        Err(_) => Err(Error::Worker(
            "a worker panicked, which is a fault of this program: standard error says where, above \
             (`panicked at`); nothing is lost, start the agent again and report it with that text \
             and the version"
                .to_owned(),
        )),
    }
}

fn start_workers(
    pipeline: &Pipeline,
    plan: &Plan,
    config: &kafka::Config,
    codes: &Arc<Codes>,
    (desk, wait): (&Desk, &Wait<'_>),
) -> Result<Vec<JoinHandle<Result<(), String>>>, Error> {
    let Desk { board, stores, stop, .. } = desk;
    let topology = Arc::clone(&codes.topology);
    let (stores, codes) = (Arc::clone(stores), Arc::clone(codes));
    let parts = Arc::new(Parts { stores, task_stores: task_stores(plan), codes });
    let partitions = topology.subtopologies.iter();
    let partitions: i32 = partitions.map(|s| s.partitions * s.inputs.len() as i32).sum();
    let shares = shares(pipeline, usize::try_from(partitions).unwrap_or(1));
    let mut workers = Vec::new();
    for worker in 0..pipeline.general.workers as usize {
        let doing = &board.workers[worker].doing;
        let ports = wait.until("taking over the transactional ids of the workers", || {
            Ok(KafkaPorts::connect_telling(config, &topology, worker, doing)?)
        })?;
        let setup = thread::Setup {
            worker,
            config: worker_config(pipeline, shares, config.transaction_time_max()),
            topology: Arc::clone(&topology),
            ports,
            environment: Environment { worker, parts: Arc::clone(&parts) },
            stop: stop.clone(),
            board: Arc::clone(board),
            guest_stack_bytes: bytes(pipeline.limits.guest_stack_max),
            log_lines_per_second_max: pipeline.limits.log_lines_per_second_max,
        };
        workers.push(thread::start(setup).map_err(Error::Thread)?);
    }
    Ok(workers)
}

fn codes(pipeline: &Pipeline, plan: &Plan, modules: &Modules<'_>, desk: &Desk) -> Arc<Codes> {
    let board = &desk.board;
    Arc::new(Codes {
        application: pipeline.application.clone(),
        topology: Arc::new(plan.topology.clone()),
        engine: modules.engine.clone(),
        codes: modules.by_subtopology(plan, &board.metrics),
        doings: board.workers.iter().map(|worker| Arc::clone(&worker.doing)).collect(),
    })
}

fn open_versions(pipeline: &Pipeline) -> Result<Versions, Error> {
    let folders = pipeline.state.directory.join("modules");
    let folder = folders.join(state::folder_name(&pipeline.application));
    let transforms: Vec<&str> = pipeline.transforms.iter().map(|of| of.name.as_str()).collect();
    let most = pipeline.swap.versions_max as usize;
    Ok(Versions::open(&folder, most, Some(&transforms)).map_err(modules::Error::from)?)
}

/// Swaps a transform's module when its file has changed: since the last start, and from now on if the
/// files are to be watched.
fn watch_files(
    pipeline: &Pipeline,
    mut files: Vec<Watched>,
    swapper: &Arc<Swapper>,
) -> std::io::Result<Files> {
    let swapper = Arc::clone(swapper);
    let tell = move |news| match news {
        News::Changed(change) if change.transforms.is_empty() => pipeline_changed(&swapper.board),
        News::Changed(change) => swapper.take_file(&change),
        News::Problem(problem) if problem.transforms.is_empty() => {}
        News::Problem(problem) => {
            warn!(transforms = ?problem.transforms, reason = problem.message, "a module file");
            swapper.board.events.tell("module_file_unusable", problem.message);
        }
    };
    let until = match pipeline.swap.watch {
        true => {
            files.extend(pipeline_file(pipeline));
            Until::Dropped
        }
        false => {
            files.retain(|file| file.seen.is_none());
            Until::Seen
        }
    };
    Files::start(files, pipeline.limits.module_bytes_max, until, tell)
}

/// The pipeline file, as one that is watched for no transform's module; none if it is gone.
fn pipeline_file(pipeline: &Pipeline) -> Option<Watched> {
    let content = std::fs::read(&pipeline.path).ok()?;
    let seen = Some(Digest::of(&content));
    Some(Watched { transforms: Vec::new(), path: pipeline.path.clone(), seen })
}

/// What the pipeline file says is not looked at while the agent runs.
fn pipeline_changed(board: &Board) {
    let message = "the pipeline file changed: what it says, the `config` of transforms included, \
                   takes effect when the agent is started again; only module files do at once";
    warn!("{message}");
    board.events.tell("pipeline_changed", message);
}

/// What the control service asks, for an agent that starts.
fn desk(pipeline: &Pipeline, stop: &Stop, stores: &Arc<Stores>) -> Arc<Desk> {
    let names = pipeline.transforms.iter().map(|transform| transform.name.as_str());
    let metrics = Arc::new(Metrics::new(pipeline.general.workers as usize, names));
    let transform = |transform: &config::pipeline::Transform| {
        let stores = transform.stores.iter().map(|store| store.name.clone()).collect();
        (transform.name.clone(), transform.module.clone(), stores)
    };
    Arc::new(Desk {
        application: pipeline.application.clone(),
        started_at_ms: control::now_ms(),
        leave_on_stop: pipeline.shutdown.leave_on_stop,
        board: Arc::new(Board::new(metrics, Arc::default())),
        stop: stop.clone(),
        stores: Arc::clone(stores),
        transforms: pipeline.transforms.iter().map(transform).collect(),
        running: OnceLock::new(),
    })
}

/// Listens for those who watch and question the agent.
fn serve(pipeline: &Pipeline, desk: &Arc<Desk>) -> Result<Server, Error> {
    let operator: Arc<dyn Operator> = Arc::<Desk>::clone(desk);
    let module_bytes_max = pipeline.limits.module_bytes_max;
    let events = &desk.board.events;
    Ok(Server::start(&pipeline.control, pipeline.http, module_bytes_max, &operator, events)?)
}

/// Steps of the start that need brokers.
struct Wait<'a> {
    stop: &'a Stop,
    board: &'a Board,
    admin: &'a Admin,
}

impl Wait<'_> {
    /// Does something until it succeeds, fails for good, or `stop` is requested; tells what it
    /// waits for, and what is wrong with the cluster as far as that can be seen.
    fn until<T>(
        &self,
        step: &'static str,
        mut attempt: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.board.starts(step, None);
        loop {
            match attempt() {
                Err(Error::Kafka(kafka::Error::Unavailable(reason)))
                    if !self.stop.is_requested() =>
                {
                    let troubles = self.admin.troubles(&[]).unwrap_or_default();
                    let troubles = troubles.iter().map(ToString::to_string);
                    let reason = [reason].into_iter().chain(troubles);
                    let reason = reason.collect::<Vec<_>>().join("; ");
                    if self.board.starts(step, Some(reason.clone())) {
                        warn!(step, reason, "waiting for the brokers");
                    }
                    std::thread::park_timeout(BROKER_BACKOFF);
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_told(error: &Error, parts: &[&str]) {
        let message = error.to_string();
        for part in parts {
            assert!(message.contains(part), "no `{part}` in: {message}");
        }
    }

    #[test]
    fn a_worker_that_panics_is_to_be_reported_with_what_it_said() {
        let panicked = ended(std::thread::spawn(|| std::panic::resume_unwind(Box::new(()))));
        let next = ["`panicked at`", "nothing is lost", "start the agent again", "report it"];
        check_told(&panicked.unwrap_err(), &next);
        let refused = ended(std::thread::spawn(|| Err("fenced".to_owned())));
        assert_eq!(refused.unwrap_err().to_string(), "fenced");
        assert!(ended(std::thread::spawn(|| Ok(()))).is_ok());
    }

    #[test]
    fn what_ran_out_is_told_with_its_key_or_limit() {
        let late = Error::Deadline(Duration::from_secs(20));
        check_told(&late, &["20000 ms", "`shutdown.deadline`", "nothing is lost", "more time"]);
        let none = std::io::Error::from_raw_os_error(libc::EAGAIN);
        check_told(&Error::Thread(none), &["can't start a thread", "`ulimit -u`", "pids"]);
    }
}
