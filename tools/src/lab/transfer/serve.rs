//! The server's end: answers requests, and `GET /N` as a small web server so that curl has something to fetch.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use super::endpoint::{Extent, Gather, both_ways, congestion_of, expect_end, expect_reset, receive, send};
use super::socket::{self, Kind};
use super::{ConnectionReport, Direction, Ending, Request, Stream};

/// Longest line of a web request.
const LINE_LIMIT: u64 = 8192;

/// Where and how to serve.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeOptions {
    /// Address and port to listen at; `[::]:PORT` takes IPv4 too.
    #[arg(long, default_value = "[::]:5001")]
    pub listen: SocketAddr,
    /// Accepts MPTCP.
    #[arg(long)]
    pub mptcp: bool,
    /// Congestion control; `auto` takes cubic or reno, whichever may be had.
    #[arg(long, default_value = "auto")]
    pub congestion: String,
    /// Seconds without progress after which a connection is given up.
    #[arg(long, default_value_t = 60)]
    pub stall: u64,
}

/// Serves until it is killed. Prints `listening` when it is ready, then a line of JSON for each connection that ended.
pub fn serve(options: &ServeOptions) -> Result<()> {
    let kind = if options.mptcp { Kind::Mptcp } else { Kind::Tcp };
    let listener = socket::listen(kind, options.listen, &options.congestion)
        .with_context(|| format!("cannot listen at {}", options.listen))?;
    say("listening");
    let stall = Duration::from_secs(options.stall.max(1));
    loop {
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // The connection went away before it was taken, or descriptors ran out: the listener itself is well.
            Err(error) => {
                eprintln!("accept: {error}");
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        let work = move || {
            if let Some(report) = answer(socket, peer, stall)
                && let Ok(line) = serde_json::to_string(&report)
            {
                say(&line);
            }
        };
        if let Err(error) = std::thread::Builder::new().stack_size(256 * 1024).spawn(work) {
            eprintln!("no thread for {peer}: {error}");
        }
    }
}

/// One whole line at once, so that lines of several threads do not mix.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Whoever reads this may have gone; then nobody needs it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn answer(mut socket: TcpStream, peer: SocketAddr, stall: Duration) -> Option<ConnectionReport> {
    let mut gather = Gather::new(0.0);
    let mut head = [0; Request::LEN];
    let mut request = Request { direction: Direction::Upload, ending: Ending::Orderly, bytes: 0, seed: 0 };
    let congestion = congestion_of(&socket);
    let result = (|| {
        socket::limit_waiting(&socket, stall)?;
        socket.read_exact(&mut head[..4])?;
        if &head[..4] == b"GET " {
            return web(&socket).map(|()| false);
        }
        socket.read_exact(&mut head[4..])?;
        request = Request::decode(&head).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a request"))?;
        converse(socket, &request, &mut gather).map(|()| true)
    })();
    match result {
        Ok(false) => None,
        Ok(true) => Some(gather.report(&request, peer.to_string(), congestion, Ok(()))),
        Err(error) => Some(gather.report(&request, peer.to_string(), congestion, Err(error))),
    }
}

fn converse(socket: TcpStream, request: &Request, gather: &mut Gather) -> io::Result<()> {
    let (up, down, bytes) = (request.upload_seed(), request.download_seed(), request.bytes);
    match (request.ending, request.direction) {
        (Ending::ServerReset, Direction::Download) => {
            send(&socket, down, bytes, Extent::Half, &mut gather.sent)?;
            gather.reset_by_us = true;
            socket::reset(socket)
        }
        (Ending::ServerReset, _) => {
            receive(&socket, up, bytes, Extent::Half, &mut gather.received)?;
            gather.reset_by_us = true;
            socket::reset(socket)
        }
        (Ending::ClientReset, Direction::Download) => {
            send(&socket, down, bytes, Extent::Whole, &mut gather.sent)?;
            expect_reset(&socket)
        }
        (Ending::ClientReset, _) => receive(&socket, up, bytes, Extent::Whole, &mut gather.received),
        (ending, Direction::Download) => {
            if ending == Ending::ClientFirst {
                expect_end(&socket)?;
            }
            send(&socket, down, bytes, Extent::Whole, &mut gather.sent)?;
            socket.shutdown(Shutdown::Write)?;
            if ending != Ending::ClientFirst {
                expect_end(&socket)?;
            }
            Ok(())
        }
        (ending, Direction::Upload) => {
            if ending == Ending::ServerFirst {
                socket.shutdown(Shutdown::Write)?;
            }
            receive(&socket, up, bytes, Extent::Whole, &mut gather.received)?;
            expect_end(&socket)?;
            if ending != Ending::ServerFirst {
                tell(&socket, gather)?;
            }
            Ok(())
        }
        (_, Direction::Both) => {
            both_ways(&socket, gather, bytes, down, up, || Ok(()))?;
            expect_end(&socket)?;
            tell(&socket, gather)
        }
    }
}

fn tell(mut socket: &TcpStream, gather: &Gather) -> io::Result<()> {
    socket.write_all(&gather.received.digest.unwrap_or_default())?;
    socket.shutdown(Shutdown::Write)
}

/// `GET /N`: N bytes of the stream of seed N.
fn web(socket: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(socket);
    let mut request = String::new();
    lines.by_ref().take(LINE_LIMIT).read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if lines.by_ref().take(LINE_LIMIT).read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
    }
    let path = request.split_whitespace().next().unwrap_or_default();
    let mut socket = socket;
    let Some(bytes) = path.strip_prefix('/').and_then(|number| number.parse::<u64>().ok()) else {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        return socket.write_all(answer.as_bytes());
    };
    write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n")?;
    let mut stream = Stream::new(bytes);
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let take = left.min(buffer.len() as u64) as usize;
        stream.fill(&mut buffer[..take]);
        socket.write_all(&buffer[..take])?;
        left -= take as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    expect_end(socket)
}
