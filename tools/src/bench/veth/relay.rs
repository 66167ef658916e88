//! What one would write without a stack of one's own: a relay over sockets. It accepts MPTCP connections, opens a TCP
//! connection to one server for each, and reads from the one and writes to the other, both ways, with epoll.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::lab::transfer::socket::{self, Kind};

/// Bytes of one read.
const CHUNK: usize = 64 * 1024;
/// The event of the listener; pairs have the numbers below it.
const LISTENER: u64 = u64::MAX;

/// `mimbox-lab bench relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// Where to listen, with MPTCP.
    #[arg(long)]
    pub listen: SocketAddr,
    /// The server that every connection is relayed to.
    #[arg(long)]
    pub server: SocketAddr,
    /// The congestion control of both sides.
    #[arg(long, default_value = "auto")]
    pub congestion: String,
}

/// One direction of a pair: what was read and not yet written.
struct Lane {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    progress: Progress,
}

/// How far a direction has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    Open,
    /// The sender has ended; what the buffer has is still to be written.
    Ended,
    /// The receiver was told.
    Closed,
}

impl Lane {
    fn new() -> Self {
        Self { buffer: vec![0; CHUNK].into_boxed_slice(), start: 0, end: 0, progress: Progress::Open }
    }

    /// Reads and writes until one of the two would wait, or all is over.
    fn pump(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        while self.progress != Progress::Closed {
            let moved = match self.buffer.get(self.start..self.end) {
                Some(waiting) if !waiting.is_empty() => to.write(waiting).map(|count| self.start += count),
                _ if self.progress == Progress::Ended => {
                    self.progress = Progress::Closed;
                    to.shutdown(Shutdown::Write)
                }
                _ => from.read(&mut self.buffer).map(|count| {
                    (self.start, self.end) = (0, count);
                    if count == 0 {
                        self.progress = Progress::Ended;
                    }
                }),
            };
            match moved {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A client's connection and the one to the server that belongs to it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    up: Lane,
    down: Lane,
}

impl Pair {
    fn open(client: TcpStream, args: &RelayArgs) -> io::Result<Self> {
        let server = socket::connect(Kind::Tcp, None, args.server, &args.congestion)?;
        for socket in [&client, &server] {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
        }
        Ok(Self { client, server, up: Lane::new(), down: Lane::new() })
    }

    /// Moves what can be moved; false when the pair is over.
    fn pump(&mut self) -> bool {
        let Self { client, server, up, down } = self;
        let moved = up.pump(client, server).and_then(|()| down.pump(server, client));
        moved.is_ok() && (up.progress, down.progress) != (Progress::Closed, Progress::Closed)
    }
}

/// Relays until it is killed. Prints `listening` when it is ready.
///
/// # Errors
/// When it cannot listen, or epoll fails. A pair that fails is closed, and that is all.
pub(crate) fn command(args: &RelayArgs) -> Result<()> {
    let listener = socket::listen(Kind::Mptcp, args.listen, &args.congestion)
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    println!("listening");
    let mut pairs: BTreeMap<u64, Pair> = BTreeMap::new();
    let mut next = 0;
    let mut events = Vec::with_capacity(64);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll"),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => accept(&listener, &epoll, args, &mut pairs, &mut next)?,
                number => {
                    // Closing its sockets takes the pair out of the epoll set.
                    if pairs.get_mut(&number).is_some_and(|pair| !pair.pump()) {
                        pairs.remove(&number);
                    }
                }
            }
        }
    }
}

/// Takes every connection that waits.
fn accept(
    listener: &TcpListener,
    epoll: &rustix::fd::OwnedFd,
    args: &RelayArgs,
    pairs: &mut BTreeMap<u64, Pair>,
    next: &mut u64,
) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // It went away before it was taken, or descriptors ran out.
            Err(error) => {
                eprintln!("accept: {error}");
                return Ok(());
            }
        };
        let pair = match Pair::open(client, args) {
            Ok(pair) => pair,
            Err(error) => {
                eprintln!("{}: {error}", args.server);
                continue;
            }
        };
        // Edge-triggered: a pump goes on until it would wait, and an event comes once it need not any more.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for socket in [&pair.client, &pair.server] {
            epoll::add(epoll, socket.as_fd(), EventData::new_u64(*next), flags)?;
        }
        pairs.insert(*next, pair);
        *next += 1;
    }
}
