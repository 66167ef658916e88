//! The admin socket: how `mimbox stats`, `mimbox connections` and `mimbox events` ask a running box.
//!
//! What is told is the present: a request wakes the worker, which answers it between two batches of packets, at a tick
//! of its own. The worker never waits for the operator, and the operator waits no longer than `PATIENCE` for it.
//!
//! A request is a line (`stats` or `connections LIMIT`), the answer a JSON document up to the end of the stream. To `events`
//! the answer has no end: it is one document a line, for as long as the asker reads and the box runs.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use crate::events::{EVENTS_MAX, EventRow};
use crate::metrics::{ConnectionList, Snapshot};

#[cfg(test)]
mod tests;

/// How long each side of the socket waits for the other, and the server for the worker.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest request.
const REQUEST_MAX: u64 = 256;
/// Most connections that one answer lists, so that a tick stays short.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Most who follow the events at a time.
pub const FOLLOWERS_MAX: usize = 8;
/// Events that wait for one of them beside what its socket holds: a ring full of old ones and what comes meanwhile.
const FOLLOWER_BACKLOG: usize = 2 * EVENTS_MAX;
/// How often it is looked whether a follower to whom there is nothing to say is still there.
const FOLLOWER_CHECK: Duration = Duration::from_millis(500);

/// Why the admin socket could not be made or asked.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Another box uses the path.
    #[error(
        "a running mimbox has the admin socket {0} already: stop it, or give this one another `socket` under [admin]"
    )]
    Taken(PathBuf),
    /// Something else stands at the path.
    #[error("{0} is there and is no socket: remove it, or give another `socket` under [admin]")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("the admin socket {path} cannot be made: {source}; give a `socket` under [admin] that this user may write")]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers.
    #[error(
        "no mimbox answers at {path}: {source}; is `mimbox run` up? Name its socket with --socket, or its configuration with -c"
    )]
    NoAnswer {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The caller may not ask.
    #[error("{0} may not be opened by this user: ask as the user that `mimbox run` runs as")]
    Forbidden(PathBuf),
    /// The box answered with an error or with something unknown.
    #[error("mimbox at {path} answered: {answer}")]
    Refused {
        /// The path.
        path: PathBuf,
        /// Its answer.
        answer: String,
    },
}

/// What somebody waits for.
#[derive(Debug)]
pub enum Request {
    /// The statistics.
    Stats(Answer<Snapshot>),
    /// The list of live conversions.
    Connections {
        /// How many at most.
        limit: usize,
        /// Where the list goes.
        answer: Answer<ConnectionList>,
    },
    /// All events from now on, and those that nobody has read yet.
    Events(SyncSender<EventRow>),
}

/// Where an answer goes; the asker may have gone.
#[derive(Debug)]
pub struct Answer<T>(Sender<T>);

impl<T> Answer<T> {
    /// Answers.
    pub fn give(self, answer: T) {
        let _ = self.0.send(answer);
    }
}

/// The worker's end: where requests come from.
#[derive(Debug)]
pub struct Requests(Receiver<Request>);

impl Requests {
    /// The next request, if there is one. Never waits.
    pub fn take(&mut self) -> Option<Request> {
        self.0.try_recv().ok()
    }
}

/// The server: a thread that answers requests until it is dropped.
#[derive(Debug)]
pub struct AdminServer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Makes the socket and answers on it. `wake` asks the worker for a tick.
    ///
    /// # Errors
    /// When another box has the socket, or it cannot be made.
    pub fn start(path: &Path, wake: impl Fn() + Send + 'static) -> Result<(Self, Requests), AdminError> {
        let listener = bind(path)?;
        let (ask, requests) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let serving = Serving { ask, wake, followers: Arc::default() };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || serving.serve(&listener, &stopping))
            .map_err(|source| AdminError::Bind { path: path.to_owned(), source })?;
        Ok((Self { path: path.to_owned(), stop, thread: Some(thread) }, Requests(requests)))
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread sleeps in accept: a visitor wakes it.
        let woken = UnixStream::connect(&self.path).is_ok();
        let _ = fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

/// Makes the socket; the file of a box that was killed gives way.
fn bind(path: &Path) -> Result<UnixListener, AdminError> {
    let failed = |source| AdminError::Bind { path: path.to_owned(), source };
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(AdminError::Taken(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::info!(socket = %path.display(), "the socket of a box that was killed gives way");
                fs::remove_file(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// What the server's thread holds.
struct Serving<W> {
    ask: Sender<Request>,
    wake: W,
    /// Threads that tell events.
    followers: Arc<AtomicUsize>,
}

impl<W: Fn()> Serving<W> {
    fn serve(&self, listener: &UnixListener, stop: &AtomicBool) {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let served = stream.and_then(|stream| self.answer(stream));
            if let Err(error) = served {
                tracing::debug!(%error, "a request on the admin socket failed");
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut request = String::new();
        BufReader::new(&stream).take(REQUEST_MAX).read_line(&mut request)?;
        let words: Vec<&str> = request.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["stats"] => self.stats(),
            ["connections"] => self.connections(CONNECTIONS_MAX),
            ["connections", limit] if limit.parse::<usize>().is_ok() => {
                self.connections(limit.parse().unwrap_or(CONNECTIONS_MAX))
            }
            ["events"] => match self.follow(&stream) {
                Ok(()) => return Ok(()),
                Err(why) => refusal(&why),
            },
            _ => refusal("the request is not known; this box answers `stats`, `connections LIMIT` and `events`"),
        };
        stream.write_all(answer.as_bytes())?;
        stream.write_all(b"\n")
    }

    fn stats(&self) -> String {
        self.ask_worker(Request::Stats)
    }

    fn connections(&self, limit: usize) -> String {
        self.ask_worker(|answer| Request::Connections { limit: limit.min(CONNECTIONS_MAX), answer })
    }

    /// Has a thread of its own tell events to whoever is at the other end.
    fn follow(&self, stream: &UnixStream) -> Result<(), String> {
        let told = stream.try_clone().map_err(|error| error.to_string())?;
        if self.followers.load(Ordering::Relaxed) >= FOLLOWERS_MAX {
            return Err(format!("{FOLLOWERS_MAX} others follow the events already: end one of them"));
        }
        let (follower, rows) = sync_channel(FOLLOWER_BACKLOG);
        self.ask.send(Request::Events(follower)).map_err(|_| "the box is stopping".to_owned())?;
        (self.wake)();
        self.followers.fetch_add(1, Ordering::Relaxed);
        let count = Arc::clone(&self.followers);
        let work = move || {
            if let Err(error) = tell(told, &rows) {
                tracing::debug!(%error, "somebody who followed the events is gone");
            }
            count.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("events".to_owned()).spawn(work).map(drop).map_err(|error| {
            self.followers.fetch_sub(1, Ordering::Relaxed);
            error.to_string()
        })
    }

    fn ask_worker<T: serde::Serialize>(&self, request: impl FnOnce(Answer<T>) -> Request) -> String {
        let (answer, answered) = channel();
        if self.ask.send(request(Answer(answer))).is_err() {
            return refusal("the box is stopping");
        }
        (self.wake)();
        match answered.recv_timeout(PATIENCE) {
            Ok(told) => serde_json::to_string(&told).unwrap_or_else(|error| refusal(&error.to_string())),
            // The worker went away with the request.
            Err(RecvTimeoutError::Disconnected) => refusal("the box is stopping"),
            Err(RecvTimeoutError::Timeout) => refusal("the worker did not answer in time"),
        }
    }
}

/// Writes events until the reader is gone or the box stops. A reader may take its time: the worker does not wait for it.
fn tell(mut stream: UnixStream, rows: &Receiver<EventRow>) -> io::Result<()> {
    stream.set_write_timeout(None)?;
    loop {
        match rows.recv_timeout(FOLLOWER_CHECK) {
            Ok(row) => {
                let line = serde_json::to_string(&row).map_err(io::Error::other)?;
                stream.write_all(line.as_bytes())?;
                stream.write_all(b"\n")?;
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                stream.set_nonblocking(true)?;
                let heard = stream.read(&mut [0]);
                stream.set_nonblocking(false)?;
                if heard.is_ok_and(|bytes| bytes == 0) {
                    return Ok(());
                }
            }
        }
    }
}

/// An answer that says why there is none.
fn refusal(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}

/// Asks the box at `path` for its statistics.
///
/// # Errors
/// When nobody answers, or with an error.
pub fn ask_stats(path: &Path) -> Result<Snapshot, AdminError> {
    ask(path, "stats")
}

/// Asks the box at `path` for at most `limit` of its connections.
///
/// # Errors
/// When nobody answers, or with an error.
pub fn ask_connections(path: &Path, limit: usize) -> Result<ConnectionList, AdminError> {
    ask(path, &format!("connections {limit}"))
}

/// Follows the events of the box at `path`: `each` gets every one, until it fails or the box stops.
///
/// # Errors
/// When nobody answers, or with an error. An error of `each` ends it in silence.
pub fn follow_events(path: &Path, mut each: impl FnMut(&EventRow) -> io::Result<()>) -> Result<(), AdminError> {
    let failed = |source: io::Error| no_answer(path, source);
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    writeln!(stream, "events").map_err(failed)?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(failed)?;
        if each(&read_answer(path, &line)?).is_err() {
            break;
        }
    }
    Ok(())
}

fn no_answer(path: &Path, source: io::Error) -> AdminError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => AdminError::Forbidden(path.to_owned()),
        _ => AdminError::NoAnswer { path: path.to_owned(), source },
    }
}

fn ask<T: serde::de::DeserializeOwned>(path: &Path, request: &str) -> Result<T, AdminError> {
    let answer = exchange(path, request).map_err(|source| no_answer(path, source))?;
    read_answer(path, &answer)
}

fn read_answer<T: serde::de::DeserializeOwned>(path: &Path, answer: &str) -> Result<T, AdminError> {
    serde_json::from_str(answer).map_err(|unreadable| {
        let error = serde_json::from_str::<serde_json::Value>(answer).ok();
        let said = error.as_ref().and_then(|value| value.get("error")?.as_str());
        let answer = said.map_or_else(|| format!("something that is not known here ({unreadable})"), str::to_owned);
        AdminError::Refused { path: path.to_owned(), answer }
    })
}

fn exchange(path: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{request}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
