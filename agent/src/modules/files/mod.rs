//! Watches the module files of a pipeline, and tells when one has another content.
//!
//! A notification of the kernel is only a reason to look: what counts is what is found then. A file
//! is read once it was still for a while, and only another digest is a change. So it does not matter
//! how it came about: overwritten, renamed into place, or a link somewhere on the way to it switched,
//! as Kubernetes does with `..data` of a mounted ConfigMap. Where the kernel can't notify, and for
//! file systems that change behind its back, files are looked at from time to time as well.

mod file;
mod folders;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry, Token, Waker};
use tracing::warn;

use self::{file::File, folders::Folders};
use crate::guest::Digest;

/// How long a file must be still before it is read.
const STILL: Duration = Duration::from_millis(500);
/// How often a file is looked at that is not still, and all of them at most.
const RESTLESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long a file may change before that is told as a problem.
const RESTLESS_TIME_MAX: Duration = Duration::from_secs(60);
/// How often files are looked at for which nobody notifies.
const POLL_INTERVAL: Duration = Duration::from_secs(3);
/// How often files are looked at although the kernel notifies: it says nothing of what another
/// machine does on a network file system.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

const STOP: Token = Token(0);
const NOTIFIED: Token = Token(1);

/// A module file that is watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    /// The transforms that it belongs to.
    pub(crate) transforms: Vec<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The content that is known already, as a start has read it.
    pub(crate) seen: Option<Digest>,
}

/// What is told of a module file.
#[derive(Debug)]
pub(crate) enum News {
    /// It has another content than the one that was seen last.
    Changed(Change),
    /// It can't be taken; told once until it can be again, or the reason is another one.
    Problem(Problem),
}

/// A module file with another content.
#[derive(Debug)]
pub(crate) struct Change {
    /// The transforms that it belongs to.
    pub(crate) transforms: Vec<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its content.
    pub(crate) module: Vec<u8>,
    /// Which content that is.
    pub(crate) digest: Digest,
}

/// A module file that can't be taken.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The transforms that it belongs to; they go on with the modules they run.
    pub(crate) transforms: Vec<String>,
    /// Where it is, what is wrong with it, and what to do.
    pub(crate) message: String,
}

/// How long files are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until nobody wants to hear of them.
    Dropped,
    /// Until the content of each was seen.
    Seen,
}

/// The thread that watches; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Files {
    stop: Arc<AtomicBool>,
    /// Ends the thread's wait.
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Watches `files`, of which one may have `bytes_max` bytes, as long as `until` says and until
    /// this is dropped. What there is to tell is told one after another on a thread of its own; a drop waits until `tell` has
    /// returned.
    pub(crate) fn start(
        files: Vec<Watched>,
        bytes_max: u64,
        until: Until,
        tell: impl FnMut(News) + Send + 'static,
    ) -> io::Result<Self> {
        let folders = |registry: &Registry| Folders::new(registry, NOTIFIED);
        Self::start_with(files, bytes_max, until, folders, tell)
    }

    fn start_with(
        files: Vec<Watched>,
        bytes_max: u64,
        until: Until,
        folders: impl FnOnce(&Registry) -> io::Result<Folders>,
        tell: impl FnMut(News) + Send + 'static,
    ) -> io::Result<Self> {
        let files = files.into_iter().map(|file| File::new(file, bytes_max));
        let files = files.collect::<io::Result<Vec<_>>>()?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), STOP)?;
        let folders = folders(poll.registry()).map_err(|error| poll_instead(&error)).ok();
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = Watcher { files, until, folders, poll, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("module-files".to_owned());
        let thread = Some(thread.spawn(move || watcher.run(tell))?);
        Ok(Self { stop, waker, thread })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            // It ends after its next look.
            warn!(%error, "the thread that watches the module files can't be woken");
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the thread that watches the module files has panicked");
        }
    }
}

/// What the thread works with.
struct Watcher {
    files: Vec<File>,
    until: Until,
    /// `None` where the kernel can't notify.
    folders: Option<Folders>,
    poll: Poll,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    /// Looks at the files whenever there may be something new, until it is stopped.
    fn run(mut self, mut tell: impl FnMut(News)) {
        while !self.is_stopped() {
            // First the folders: what changes after the look at the files is notified then.
            if let Some(folders) = &mut self.folders
                && let Err(error) = folders.watch(self.files.iter().map(File::path))
            {
                poll_instead(&error);
                self.folders = None;
            }
            for index in 0..self.files.len() {
                // Telling may take long, so each file has a time of its own.
                if let Some(news) = self.files[index].look(Instant::now()) {
                    tell(news);
                }
                if self.is_stopped() {
                    return;
                }
            }
            if self.until == Until::Seen && !self.is_restless() {
                return;
            }
            self.wait();
        }
    }

    fn is_restless(&self) -> bool {
        self.files.iter().any(File::is_restless)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits until there may be something new, or it is stopped.
    fn wait(&mut self) {
        let time_max = match self.folders {
            _ if self.is_restless() => RESTLESS_INTERVAL,
            Some(_) => SWEEP_INTERVAL,
            None => POLL_INTERVAL,
        };
        let mut events = Events::with_capacity(2);
        if let Err(error) = self.poll.poll(&mut events, Some(time_max))
            && error.kind() != io::ErrorKind::Interrupted
        {
            warn!(%error, "can't wait for news of the module files");
            std::thread::sleep(RESTLESS_INTERVAL);
        }
        if events.iter().any(|event| event.token() == NOTIFIED) {
            // The folder may be busy with other things.
            std::thread::sleep(RESTLESS_INTERVAL);
        }
    }
}

/// Says that the kernel doesn't notify.
fn poll_instead(error: &io::Error) {
    warn!(
        %error,
        "module files can't be watched, so they are looked at every {} seconds; if a limit is \
         reached, raise fs.inotify.max_user_instances or fs.inotify.max_user_watches",
        POLL_INTERVAL.as_secs()
    );
}
