//! One bulk connection for a while: who sends never has nothing to send, who receives counts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use mimbox_dataplane::worker::run_in_real_time;
use serde::{Deserialize, Serialize};

use crate::lab::process::bound_to_parent;
use crate::lab::transfer::Direction;
use crate::lab::transfer::socket::{self, Kind};
use crate::lab::{Family, Lab, Plan, Process, interrupted, lab_binary};

/// Ends and box run at this real-time priority, the links above it: other work on the machine does not slow them down.
pub(super) const PRIORITY: u8 = 10;
/// The received bytes are noted so often.
pub(super) const STEP: Duration = Duration::from_millis(10);
/// What the kernels use as their congestion control.
const CONGESTION: &str = "cubic";
/// Bytes of one read or write.
const CHUNK: usize = 64 * 1024;
/// How long the server waits for its client, and how much longer than it should a flow may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The server's port.
const PORT: u16 = 5001;

/// One end of a bulk connection: sends, or receives for a while and tells.
#[derive(Clone, Debug, Args)]
pub struct FlowArgs {
    /// The address and port to listen at, or to connect to.
    pub address: SocketAddr,
    /// Connects instead of listening.
    #[arg(long)]
    pub connect: bool,
    /// Sends until the other end goes; without it, receives.
    #[arg(long)]
    pub send: bool,
    /// Uses MPTCP.
    #[arg(long)]
    pub mptcp: bool,
    /// Milliseconds from connecting, or accepting, to the end.
    #[arg(long, default_value_t = 60_000)]
    pub ms: u64,
    /// Runs as an ordinary program, not at real-time priority.
    #[arg(long)]
    pub ordinary: bool,
}

/// What an end tells when it is over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Flowed {
    /// Bytes received in each [`STEP`] since the beginning.
    pub(crate) steps: Vec<u64>,
    /// Its congestion control.
    pub(crate) congestion: String,
    /// When it began, in nanoseconds since 1970.
    pub(super) began_unix_nanos: u64,
}

impl Flowed {
    pub(crate) fn bytes(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Bits a second between two times since the beginning.
    pub(crate) fn rate(&self, from: Duration, to: Duration) -> f64 {
        let index = |time: Duration| ((time.as_millis() / STEP.as_millis()) as usize).min(self.steps.len());
        let bytes: u64 = self.steps.get(index(from)..index(to)).unwrap_or_default().iter().sum();
        bytes as f64 * 8.0 / to.saturating_sub(from).as_secs_f64().max(1e-9)
    }

    /// The longest time without a byte from `from` on.
    pub(super) fn longest_gap(&self, from: Duration) -> Duration {
        let first = (from.as_millis() / STEP.as_millis()) as usize;
        let gaps = self.steps.get(first..).unwrap_or_default().split(|bytes| *bytes > 0);
        STEP * u32::try_from(gaps.map(<[u64]>::len).max().unwrap_or(0)).unwrap_or(u32::MAX)
    }
}

/// Runs one end.
pub(super) fn end(args: &FlowArgs) -> Result<()> {
    if !args.ordinary {
        // Without the privilege it measures all the same.
        let _ = run_in_real_time(PRIORITY);
    }
    let kind = if args.mptcp { Kind::Mptcp } else { Kind::Tcp };
    // A kernel takes further subflows only while somebody listens.
    let listener;
    let (socket, began) = if args.connect {
        let began = Instant::now();
        (socket::connect(kind, None, args.address, CONGESTION).context("connecting")?, began)
    } else {
        listener = socket::listen(kind, args.address, CONGESTION).context("listening")?;
        println!("listening");
        let socket = accept(&listener)?;
        // Half a round trip later than the client.
        (socket, Instant::now())
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut flowed = Flowed {
        congestion: socket::congestion(&socket),
        began_unix_nanos: u64::try_from(since_1970.saturating_sub(began.elapsed()).as_nanos()).unwrap_or(u64::MAX),
        steps: Vec::new(),
    };
    if args.send {
        println!("{}", serde_json::to_string(&flowed)?);
        send(socket)
    } else {
        let time = Duration::from_millis(args.ms);
        receive(socket, began, time, &mut flowed.steps).with_context(|| format!("after {:?}", began.elapsed()))?;
        println!("{}", serde_json::to_string(&flowed)?);
        Ok(())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let limit = Instant::now() + PATIENCE;
    while Instant::now() < limit {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                return Ok(socket);
            }
            Err(error) if waits(&error) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error).context("accepting"),
        }
    }
    bail!("nobody connected")
}

fn send(mut socket: TcpStream) -> Result<()> {
    let buffer = vec![0x5a; CHUNK];
    loop {
        // The receiver has what it wants and goes, which resets the connection. Whether it got that is for it to say.
        if socket.write(&buffer).is_err_and(|error| !waits(&error)) {
            return Ok(());
        }
    }
}

/// Counts what arrives until the time is over.
fn receive(mut socket: TcpStream, began: Instant, time: Duration, steps: &mut Vec<u64>) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    steps.resize((time.as_millis() / STEP.as_millis()) as usize, 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let result = socket.read(&mut buffer);
        let index = (began.elapsed().as_millis() / STEP.as_millis()) as usize;
        let Some(step) = steps.get_mut(index) else { return Ok(()) };
        match result {
            Ok(0) => bail!("the sender ended the stream"),
            Ok(count) => *step += count as u64,
            Err(error) if waits(&error) => {}
            Err(error) => return Err(error).context("receiving"),
        }
    }
}

/// What is to flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Flow {
    pub(crate) direction: Direction,
    /// Whether the client asks for MPTCP.
    pub(crate) client: Kind,
    /// Whether the server takes MPTCP.
    pub(crate) server: Kind,
    /// From connecting to the last byte that counts.
    pub(crate) time: Duration,
    /// Whom the client connects to.
    pub(crate) to: SocketAddr,
    /// Runs both ends as ordinary programs: where the machine itself is the bound, ends that come before everything else
    /// would starve what they talk through.
    pub(crate) ordinary: bool,
}

/// Where the lab's server listens.
pub(crate) fn server_address() -> SocketAddr {
    SocketAddr::from((Plan::server(Family::V4), PORT))
}

impl Flow {
    /// Runs it between the lab's client and server. `meanwhile` is called while it runs, with the time since both ends
    /// were started.
    pub(crate) fn run(&self, lab: &Lab, mut meanwhile: impl FnMut(Duration) -> Result<()>) -> Result<Flowed> {
        let upload = self.direction == Direction::Upload;
        let ms = self.time.as_millis().to_string();
        let listen = format!("0.0.0.0:{PORT}");
        let connect = self.to.to_string();
        let mut server = lab.server().command(lab_binary()?);
        server.args(["eval", "end", &listen, "--ms", &ms]).args(self.flags(self.server, !upload));
        let mut server = Process::spawn("the server", bound_to_parent(&server), &lab.file("flow-server.log"))?;
        wait_until(PATIENCE, "the server does not listen", || Ok(server.output().starts_with("listening\n")))?;
        let mut client = lab.client_command(lab_binary()?);
        client.args(["eval", "end", &connect, "--connect", "--ms", &ms]).args(self.flags(self.client, upload));
        let mut client = Process::spawn("the client", bound_to_parent(&client), &lab.file("flow-client.log"))?;

        let began = Instant::now();
        let (receiver, sender) = if upload { (&mut server, &mut client) } else { (&mut client, &mut server) };
        while receiver.try_wait()?.is_none() {
            meanwhile(began.elapsed())?;
            if interrupted() {
                bail!("interrupted");
            }
            if began.elapsed() > self.time + PATIENCE {
                bail!("the flow does not end: {}", receiver.output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let told = |process: &Process| -> Result<Flowed> {
            let output = process.output();
            let line = output.lines().find(|line| line.starts_with('{'));
            let line = line.with_context(|| format!("no report: {output}"))?;
            Ok(serde_json::from_str(line)?)
        };
        let (received, sent) = (told(receiver).context("the receiver")?, told(sender).context("the sender")?);
        Ok(Flowed { congestion: sent.congestion, ..received })
    }

    fn flags(&self, kind: Kind, sends: bool) -> Vec<&'static str> {
        let flags = [("--mptcp", kind == Kind::Mptcp), ("--send", sends), ("--ordinary", self.ordinary)];
        flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect()
    }
}

/// Asks every few milliseconds.
pub(crate) fn wait_until(limit: Duration, what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so()? {
        if Instant::now() >= deadline {
            bail!("after {limit:?} {what}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
