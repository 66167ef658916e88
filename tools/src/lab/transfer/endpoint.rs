//! What both ends of a connection do: send a stream with its digest, receive one, tell how it went.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::stream::{Checker, Stream, hex};
use super::{ConnectionReport, Outcome, Request, socket};

/// Bytes of one read or write: enough to keep system calls out of the way.
const CHUNK: u64 = 256 * 1024;

/// What was sent, as far as it went.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) digest: Option<[u8; 32]>,
}

/// What was received, as far as it went.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) bytes: u64,
    pub(super) digest: Option<[u8; 32]>,
    pub(super) peer_digest: Option<[u8; 32]>,
    pub(super) first_difference: Option<u64>,
    /// The longest time between two reads that gave data.
    pub(super) longest_pause: Duration,
    /// When it began.
    pub(super) longest_pause_from: Option<Instant>,
}

/// Where to stop short, for resets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Extent {
    Whole,
    Half,
}

impl Extent {
    fn of(self, bytes: u64) -> u64 {
        match self {
            Self::Whole => bytes,
            Self::Half => bytes / 2,
        }
    }
}

/// Sends a seed's stream, and its digest when it goes out whole.
pub(super) fn send(mut socket: &TcpStream, seed: u64, bytes: u64, extent: Extent, sent: &mut Sent) -> io::Result<()> {
    let mut stream = Stream::new(seed);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; bytes.min(CHUNK) as usize];
    let mut left = extent.of(bytes);
    while left > 0 {
        let take = left.min(CHUNK) as usize;
        let chunk = &mut buffer[..take];
        stream.fill(chunk);
        hash.update(&*chunk);
        socket.write_all(chunk)?;
        sent.bytes += take as u64;
        left -= take as u64;
    }
    if extent == Extent::Whole {
        let digest: [u8; 32] = hash.finalize().into();
        socket.write_all(&digest)?;
        sent.digest = Some(digest);
    }
    Ok(())
}

/// Receives a seed's stream, and the sender's digest when it comes in whole.
pub(super) fn receive(
    mut socket: &TcpStream,
    seed: u64,
    bytes: u64,
    extent: Extent,
    received: &mut Received,
) -> io::Result<()> {
    let mut checker = Checker::new(seed);
    let mut buffer = vec![0; bytes.min(CHUNK) as usize];
    let wanted = extent.of(bytes);
    let mut last = None;
    while checker.received() < wanted {
        let take = (wanted - checker.received()).min(CHUNK) as usize;
        match socket.read(&mut buffer[..take]) {
            Ok(0) => {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    format!("the stream ended after {} of {bytes} bytes", checker.received()),
                ));
            }
            Ok(count) => {
                let now = Instant::now();
                let from = last.replace(now).unwrap_or(now);
                if now.duration_since(from) > received.longest_pause {
                    (received.longest_pause, received.longest_pause_from) = (now.duration_since(from), Some(from));
                }
                checker.take(&buffer[..count]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        received.bytes = checker.received();
        received.first_difference = checker.first_difference();
    }
    if extent == Extent::Whole {
        let mut trailer = [0; 32];
        socket.read_exact(&mut trailer)?;
        received.peer_digest = Some(trailer);
        received.digest = Some(checker.digest());
    }
    Ok(())
}

/// Waits for the peer's end of stream; anything else is an error.
pub(super) fn expect_end(mut socket: &TcpStream) -> io::Result<()> {
    match socket.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "bytes after the end of the data")),
    }
}

/// An error that waits for a peer's reset: the end of the stream in its place is a failure.
pub(super) fn expect_reset(mut socket: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Err(io::Error::new(ErrorKind::InvalidData, "an orderly end where a reset was due")),
            _ => continue,
        }
    }
}

/// Gathers the report of a connection while it runs.
pub(super) struct Gather {
    began: Instant,
    pub(super) connect_seconds: f64,
    pub(super) sent: Sent,
    pub(super) received: Received,
    pub(super) peer_received: Option<[u8; 32]>,
    pub(super) reset_by_us: bool,
}

impl Gather {
    pub(super) fn new(connect_seconds: f64) -> Self {
        Self {
            began: Instant::now(),
            connect_seconds,
            sent: Sent::default(),
            received: Received::default(),
            peer_received: None,
            reset_by_us: false,
        }
    }

    pub(super) fn report(
        self,
        request: &Request,
        peer: String,
        congestion: String,
        result: io::Result<()>,
    ) -> ConnectionReport {
        let outcome = match &result {
            Ok(()) if self.reset_by_us => Outcome::ResetByUs,
            Ok(()) => Outcome::Complete,
            Err(error) => outcome_of(error),
        };
        ConnectionReport {
            seed: request.seed,
            outcome,
            error: result.err().map(|error| error.to_string()),
            peer,
            sent: self.sent.bytes,
            received: self.received.bytes,
            sent_sha256: self.sent.digest.as_ref().map(hex),
            received_sha256: self.received.digest.as_ref().map(hex),
            peer_received_sha256: self.peer_received.as_ref().map(hex),
            peer_sent_sha256: self.received.peer_digest.as_ref().map(hex),
            first_difference: self.received.first_difference,
            longest_pause: self.received.longest_pause.as_secs_f64(),
            longest_pause_from: self
                .received
                .longest_pause_from
                .map_or(0.0, |from| from.saturating_duration_since(self.began).as_secs_f64()),
            connect_seconds: self.connect_seconds,
            seconds: self.began.elapsed().as_secs_f64(),
            congestion,
        }
    }
}

pub(super) fn outcome_of(error: &io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Outcome::Reset,
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
        // A read that waits in vain gives EAGAIN; a connect that does gives ETIMEDOUT.
        ErrorKind::WouldBlock => Outcome::Stalled,
        ErrorKind::TimedOut => Outcome::Unreachable,
        _ => Outcome::Failed,
    }
}

/// Both directions at once on one connection: sends on a thread of its own, receives on this one.
pub(super) fn both_ways(
    socket: &TcpStream,
    gather: &mut Gather,
    bytes: u64,
    send_seed: u64,
    receive_seed: u64,
    after_sending: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    let Gather { sent, received, .. } = gather;
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            send(socket, send_seed, bytes, Extent::Whole, sent)?;
            after_sending()
        });
        let result = receive(socket, receive_seed, bytes, Extent::Whole, received);
        match sender.join() {
            Ok(sent) => result.and(sent),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub(super) fn congestion_of(socket: &TcpStream) -> String {
    socket::congestion(socket)
}
