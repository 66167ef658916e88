//! The admin socket: how `mimbox stats` and `mimbox connections` ask a running box.
//!
//! The worker never waits for the operator. Each tick it fills a [`Snapshot`] and swaps it into a slot, unless a reader
//! has the slot at that moment: then the next tick does. The list of connections is made by the worker itself, at the
//! tick after it was asked for.
//!
//! A request is a line (`stats` or `connections LIMIT`), the answer a JSON document up to the end of the stream.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;

use crate::metrics::{ConnectionList, Snapshot};

#[cfg(test)]
mod tests;

/// How long each side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest request.
const REQUEST_MAX: u64 = 256;
/// Most connections that one answer lists, so that a tick stays short.
pub const CONNECTIONS_MAX: usize = 10_000;

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

/// A list of connections that somebody waits for.
#[derive(Debug)]
pub struct ConnectionsRequest {
    /// How many at most.
    pub limit: usize,
    answer: Sender<ConnectionList>,
}

impl ConnectionsRequest {
    /// Answers; the asker may have gone.
    pub fn answer(self, list: ConnectionList) {
        let _ = self.answer.send(list);
    }
}

/// The worker's end: where snapshots go and requests come from.
#[derive(Debug)]
pub struct Publisher {
    slot: Arc<Mutex<Box<Snapshot>>>,
    spare: Box<Snapshot>,
    requests: Receiver<ConnectionsRequest>,
}

impl Publisher {
    /// Fills a snapshot and makes it the one that is shown. Never waits: when a reader is at the slot, the snapshot is
    /// kept for the next time.
    pub fn publish(&mut self, fill: impl FnOnce(&mut Snapshot)) {
        fill(&mut self.spare);
        if let Ok(mut shown) = self.slot.try_lock() {
            std::mem::swap(&mut *shown, &mut self.spare);
        }
    }

    /// The next request for connections, if there is one.
    pub fn request(&mut self) -> Option<ConnectionsRequest> {
        self.requests.try_recv().ok()
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
    /// Makes the socket and answers on it; `first` is shown until the worker publishes. `wake` asks the worker for a tick.
    ///
    /// # Errors
    /// When another box has the socket, or it cannot be made.
    pub fn start(
        path: &Path,
        first: Snapshot,
        wake: impl Fn() + Send + 'static,
    ) -> Result<(Self, Publisher), AdminError> {
        let listener = bind(path)?;
        let slot = Arc::new(Mutex::new(Box::new(first.clone())));
        let (ask, requests) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let serving = Serving { slot: Arc::clone(&slot), ask, wake };
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || serving.serve(&listener, &stopping))
            .map_err(|source| AdminError::Bind { path: path.to_owned(), source })?;
        let server = Self { path: path.to_owned(), stop, thread: Some(thread) };
        Ok((server, Publisher { slot, spare: Box::new(first), requests }))
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
    slot: Arc<Mutex<Box<Snapshot>>>,
    ask: Sender<ConnectionsRequest>,
    wake: W,
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
            _ => refusal("the request is not known; this box answers `stats` and `connections LIMIT`"),
        };
        stream.write_all(answer.as_bytes())?;
        stream.write_all(b"\n")
    }

    fn stats(&self) -> String {
        // Cloned, so that the slot is free again for the worker's next tick.
        let snapshot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        serde_json::to_string(&snapshot).unwrap_or_else(|error| refusal(&error.to_string()))
    }

    fn connections(&self, limit: usize) -> String {
        let (answer, answered) = channel();
        if self.ask.send(ConnectionsRequest { limit: limit.min(CONNECTIONS_MAX), answer }).is_err() {
            return refusal("the box is stopping");
        }
        (self.wake)();
        match answered.recv_timeout(PATIENCE) {
            Ok(list) => serde_json::to_string(&list).unwrap_or_else(|error| refusal(&error.to_string())),
            Err(_) => refusal("the worker did not answer in time"),
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

fn ask<T: serde::de::DeserializeOwned>(path: &Path, request: &str) -> Result<T, AdminError> {
    let answer = exchange(path, request).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => AdminError::Forbidden(path.to_owned()),
        _ => AdminError::NoAnswer { path: path.to_owned(), source },
    })?;
    serde_json::from_str(&answer).map_err(|unreadable| {
        let error = serde_json::from_str::<serde_json::Value>(&answer).ok();
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
