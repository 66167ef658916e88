//! The client's end: one connection, or many in parallel.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::endpoint::{Extent, Gather, both_ways, congestion_of, expect_end, expect_reset, receive, send};
use super::socket::{self, Kind};
use super::{ConnectionReport, Direction, Ending, Request, Stream};

/// How sizes of many connections are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Sizes {
    /// All the same.
    Fixed,
    /// Log-uniform between 1 byte and the given size.
    LogUniform,
}

/// What to do with a server.
#[derive(Clone, Debug, clap::Args)]
pub struct ConnectOptions {
    /// The server's address and port.
    pub server: SocketAddr,
    /// Which way the data goes.
    #[arg(long, value_enum, default_value = "upload")]
    pub direction: Direction,
    /// How a connection ends.
    #[arg(long, value_enum, default_value = "orderly")]
    pub ending: Ending,
    /// Bytes of data.
    #[arg(long, default_value_t = 1 << 20)]
    pub bytes: u64,
    /// Seed of the data; each further connection adds one.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Connects with plain TCP.
    #[arg(long)]
    pub tcp: bool,
    /// Congestion control; `auto` takes cubic or reno, whichever may be had.
    #[arg(long, default_value = "auto")]
    pub congestion: String,
    /// The client's own address.
    #[arg(long)]
    pub bind: Option<SocketAddr>,
    /// How many connections, one after the other on each thread.
    #[arg(long, default_value_t = 1)]
    pub connections: u64,
    /// How many at once.
    #[arg(long, default_value_t = 1)]
    pub parallel: u64,
    /// How their sizes are drawn.
    #[arg(long, value_enum, default_value = "fixed")]
    pub sizes: Sizes,
    /// Seconds without progress after which a connection is given up.
    #[arg(long, default_value_t = 30)]
    pub stall: u64,
}

impl ConnectOptions {
    fn request(&self, index: u64) -> Request {
        let seed = self.seed.wrapping_add(index);
        let bytes = match self.sizes {
            Sizes::Fixed => self.bytes,
            Sizes::LogUniform => log_uniform(seed, self.bytes),
        };
        Request { direction: self.direction, ending: self.ending, bytes, seed }
    }
}

/// A size between 1 and `max` whose logarithm is uniform.
fn log_uniform(seed: u64, max: u64) -> u64 {
    let mut bytes = [0; 8];
    Stream::new(seed ^ 0x5157_3e5a_11d0_c0de).fill(&mut bytes);
    let unit = (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64;
    ((max.max(1) as f64).powf(unit) as u64).clamp(1, max.max(1))
}

/// Opens the connections and gives a report of each, in the order of their seeds.
pub fn connect(options: &ConnectOptions) -> Result<Vec<ConnectionReport>> {
    let next = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    let threads = options.parallel.clamp(1, options.connections.max(1));
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..threads {
            let work = || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= options.connections {
                        break;
                    }
                    let report = run(options, &options.request(index));
                    if let Ok(mut reports) = reports.lock() {
                        reports.push((index, report));
                    }
                }
            };
            std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(scope, work)?;
        }
        Ok(())
    })?;
    let mut reports = reports.into_inner().map_err(|_| anyhow!("a connection's thread panicked"))?;
    reports.sort_by_key(|(index, _)| *index);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

fn run(options: &ConnectOptions, request: &Request) -> ConnectionReport {
    let kind = if options.tcp { Kind::Tcp } else { Kind::Mptcp };
    let began = Instant::now();
    let connected = socket::connect(kind, options.bind, options.server, &options.congestion);
    let mut gather = Gather::new(began.elapsed().as_secs_f64());
    let peer = options.server.to_string();
    let socket = match connected {
        Ok(socket) => socket,
        Err(error) => return gather.report(request, peer, String::new(), Err(error)),
    };
    let congestion = congestion_of(&socket);
    let stall = Duration::from_secs(options.stall.max(1));
    let result = socket::limit_waiting(&socket, stall).and_then(|()| converse(socket, request, &mut gather));
    gather.report(request, peer, congestion, result)
}

fn converse(socket: TcpStream, request: &Request, gather: &mut Gather) -> io::Result<()> {
    let (up, down, bytes) = (request.upload_seed(), request.download_seed(), request.bytes);
    (&socket).write_all(&request.encode())?;
    match (request.ending, request.direction) {
        (Ending::ClientReset, Direction::Download) => {
            receive(&socket, down, bytes, Extent::Half, &mut gather.received)?;
            gather.reset_by_us = true;
            socket::reset(socket)
        }
        (Ending::ClientReset, _) => {
            send(&socket, up, bytes, Extent::Half, &mut gather.sent)?;
            gather.reset_by_us = true;
            socket::reset(socket)
        }
        (Ending::ServerReset, Direction::Download) => {
            receive(&socket, down, bytes, Extent::Whole, &mut gather.received)
        }
        (Ending::ServerReset, _) => {
            send(&socket, up, bytes, Extent::Whole, &mut gather.sent)?;
            expect_reset(&socket)
        }
        (ending, Direction::Download) => {
            if ending == Ending::ClientFirst {
                socket.shutdown(Shutdown::Write)?;
            }
            receive(&socket, down, bytes, Extent::Whole, &mut gather.received)?;
            expect_end(&socket)
        }
        (ending, Direction::Upload) => {
            if ending == Ending::ServerFirst {
                expect_end(&socket)?;
            }
            send(&socket, up, bytes, Extent::Whole, &mut gather.sent)?;
            socket.shutdown(Shutdown::Write)?;
            if ending != Ending::ServerFirst {
                gather.peer_received = Some(verdict(&socket)?);
                expect_end(&socket)?;
            }
            Ok(())
        }
        (_, Direction::Both) => {
            both_ways(&socket, gather, bytes, up, down, || socket.shutdown(Shutdown::Write))?;
            gather.peer_received = Some(verdict(&socket)?);
            expect_end(&socket)
        }
    }
}

/// The server's digest of what it received.
fn verdict(mut socket: &TcpStream) -> io::Result<[u8; 32]> {
    let mut digest = [0; 32];
    socket.read_exact(&mut digest)?;
    Ok(digest)
}
