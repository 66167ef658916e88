//! The Linux kernel as the subject: real sockets in a network namespace of their own, a TUN device as the wire, real
//! time. Everything runs on the thread that entered the namespace.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use anyhow::Context as _;
use mimbox_stack::Duration;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt};
use smoltcp::phy::{Device, Medium, RxToken as _, TunTapInterface, TxToken as _, wait};

use super::backend::{Answer, Backend, Sent};
use super::endpoint::{peer, subject};
use super::packet::{self, Packet};
use super::syntax::{Action, BackendKind, Family, Lane, Read, Settings, Written};
use crate::lab::Namespace;

/// Name of the device in each namespace.
const DEVICE: &str = "tun0";
/// How long the kernel may take to do what it has been told.
const PROMPT: std::time::Duration = std::time::Duration::from_millis(300);
/// How late a timer of the kernel, or this thread, may be.
const TOLERANCE: Duration = Duration::from_millis(30);

/// The kernel of one namespace.
pub(super) struct Kernel {
    settings: Settings,
    tun: TunTapInterface,
    start: Instant,
    listener: Option<OwnedFd>,
    conn: Option<OwnedFd>,
}

/// Runs `work` with a kernel that is configured as a script says.
pub(super) fn with_kernel<T: Send>(
    name: &str,
    settings: &Settings,
    work: impl FnOnce(&mut Kernel) -> T + Send,
) -> anyhow::Result<T> {
    let namespace = Namespace::create(name)?;
    namespace.enter(|| -> anyhow::Result<T> { Ok(work(&mut Kernel::new(settings)?)) })?
}

impl Kernel {
    fn new(settings: &Settings) -> anyhow::Result<Self> {
        sysctls(settings)?;
        let tun = TunTapInterface::new(DEVICE, Medium::Ip).context("cannot make a TUN device")?;
        let local = subject(settings.family).0;
        let prefix = if local.is_ipv4() { 24 } else { 64 };
        let mtu = settings.tcp.mtu.to_string();
        // MTU first: a device whose MTU changes while it is up tells its sockets.
        ip(&["link", "set", DEVICE, "mtu", &mtu, "up"])?;
        let address = format!("{local}/{prefix}");
        let nodad: &[&str] = if local.is_ipv4() { &[] } else { &["nodad"] };
        ip(&[&["addr", "add", &address, "dev", DEVICE], nodad].concat())?;
        Ok(Self { settings: settings.clone(), tun, start: Instant::now(), listener: None, conn: None })
    }

    fn socket(&self) -> anyhow::Result<OwnedFd> {
        let family = if self.settings.family == Family::V4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        let mut congestion = "cubic";
        for (key, value) in &self.settings.written {
            match key.as_str() {
                "cc" if value == "newreno" => congestion = "reno",
                "buffer" => {
                    sockopt::set_socket_recv_buffer_size(&socket, self.settings.receive_buffer as usize)?;
                }
                "user_timeout" => {
                    sockopt::set_tcp_user_timeout(&socket, self.settings.tcp.user_timeout.as_millis() as u32)?;
                }
                "keepalive" => {
                    let idle = self.settings.tcp.keepalive.unwrap_or(Duration::from_secs(7200));
                    sockopt::set_tcp_keepidle(&socket, std::time::Duration::from_nanos(idle.as_nanos()))?;
                    sockopt::set_socket_keepalive(&socket, true)?;
                }
                _ => {}
            }
        }
        sockopt::set_tcp_congestion(&socket, congestion).with_context(|| format!("congestion control {congestion}"))?;
        let (address, port) = subject(self.settings.family);
        rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
        Ok(socket)
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        let socket = self.socket()?;
        rustix::net::listen(&socket, 16)?;
        self.listener = Some(socket);
        Ok(())
    }

    fn connect(&mut self) -> anyhow::Result<()> {
        let socket = self.socket()?;
        let (address, port) = peer(self.settings.family);
        match rustix::net::connect(&socket, &SocketAddr::new(address, port)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connect"),
        }
        self.conn = Some(socket);
        Ok(())
    }

    /// The connection's socket, taken from the listener when it has not been yet.
    fn conn(&mut self) -> Result<&OwnedFd, String> {
        if self.conn.is_none()
            && let Some(listener) = &self.listener
        {
            let until = Instant::now() + PROMPT;
            while self.conn.is_none() && Instant::now() < until {
                match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                    Ok(socket) => self.conn = Some(socket),
                    Err(_) => sleep(std::time::Duration::from_millis(1)),
                }
            }
        }
        self.conn.as_ref().ok_or_else(|| "the kernel has no connection to accept".into())
    }

    fn write(&mut self, bytes: &[u8], piece: usize) -> Result<(), String> {
        let conn = self.conn()?;
        for piece in bytes.chunks(piece.max(1)) {
            let mut rest = piece;
            while !rest.is_empty() {
                match rustix::net::send(conn, rest, SendFlags::NOSIGNAL) {
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                    Err(error) => return Err(format!("the kernel does not take what is written: {error}")),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, read: &Read) -> Result<Answer, String> {
        let wanted = match read {
            Read::Bytes(count) => *count as usize,
            Read::Text(text) => text.len(),
            _ => 1 << 20,
        };
        let patience = if *read == Read::Nothing { std::time::Duration::from_millis(5) } else { PROMPT };
        let until = Instant::now() + patience;
        let conn = self.conn()?;
        let mut got = Vec::new();
        loop {
            let mut buffer = vec![0; wanted - got.len()];
            match rustix::net::recv(conn, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) if got.is_empty() => return Ok(Answer::End),
                Ok((count, _)) => got.extend(buffer.into_iter().take(count)),
                Err(Errno::AGAIN) => {}
                Err(Errno::CONNRESET | Errno::CONNREFUSED | Errno::PIPE) => return Ok(Answer::Reset),
                Err(Errno::TIMEDOUT) => return Ok(Answer::TimedOut),
                Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NOPROTOOPT) => return Ok(Answer::Unreachable),
                Err(error) => return Err(format!("the kernel's read fails: {error}")),
            }
            if got.len() >= wanted || Instant::now() >= until {
                return Ok(if got.is_empty() { Answer::Nothing } else { Answer::Bytes(got) });
            }
            sleep(std::time::Duration::from_millis(1));
        }
    }

    /// A packet of the connection that the kernel has sent, if there is one.
    fn sent(&mut self) -> Option<Vec<u8>> {
        let ours = (subject(self.settings.family), peer(self.settings.family));
        while let Some((token, _)) = self.tun.receive(smoltcp::time::Instant::ZERO) {
            let bytes = token.consume(<[u8]>::to_vec);
            // Neighbour discovery and the like are not the connection's.
            let interesting = match packet::read(&bytes) {
                Ok(Packet::Tcp(segment)) => (segment.ends.from, segment.ends.to) == ours,
                Ok(Packet::Icmp { .. }) | Err(_) => true,
                Ok(Packet::Other) => false,
            };
            if interesting {
                return Some(bytes);
            }
        }
        None
    }
}

impl Backend for Kernel {
    fn kind(&self) -> BackendKind {
        BackendKind::Linux
    }

    fn tolerance(&self) -> Duration {
        TOLERANCE
    }

    /// The kernel's timer wheel rounds a timer up by as much as an eighth of its length.
    fn slack(&self, timer: Duration) -> Duration {
        timer.div(8)
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.start.elapsed().as_nanos() as u64)
    }

    fn wait(&mut self, until: Duration) -> Result<Option<Sent>, String> {
        loop {
            if let Some(packet) = self.sent() {
                return Ok(Some(Sent { at: self.now(), lane: Lane::Peer, packet }));
            }
            let left = until.as_nanos().saturating_sub(self.now().as_nanos()) / 1_000;
            if left == 0 {
                return Ok(None);
            }
            wait(self.tun.as_raw_fd(), Some(smoltcp::time::Duration::from_micros(left)))
                .map_err(|error| format!("waiting on the TUN device: {error}"))?;
        }
    }

    fn inject(&mut self, _lane: Lane, packet: &[u8]) -> Result<(), String> {
        let token = self.tun.transmit(smoltcp::time::Instant::ZERO).ok_or("the TUN device takes nothing")?;
        token.consume(packet.len(), |room| room.copy_from_slice(packet));
        Ok(())
    }

    fn act(&mut self, action: &Action, bytes: &[u8]) -> Result<Answer, String> {
        let text = |error: anyhow::Error| format!("{error:#}");
        match action {
            Action::Listen => self.listen().map_err(text)?,
            Action::Connect => self.connect().map_err(text)?,
            Action::Write(Written::Text(_)) => self.write(bytes, bytes.len())?,
            Action::Write(Written::Pattern { len, .. }) => self.write(bytes, *len as usize)?,
            Action::Read(read) => return self.read(read),
            Action::Shutdown => {
                rustix::net::shutdown(self.conn()?, Shutdown::Write).map_err(|error| format!("shutdown: {error}"))?;
            }
            Action::Close => {
                self.conn()?;
                self.conn = None;
            }
            Action::Abort => {
                let conn = self.conn()?;
                sockopt::set_socket_linger(conn, Some(std::time::Duration::ZERO)).map_err(|error| error.to_string())?;
                self.conn = None;
            }
            Action::Buffer(_) => return Err("the kernel's receive buffer is its own affair".into()),
        }
        Ok(Answer::Done)
    }

    fn fact(&mut self, _name: &str) -> Option<Result<i64, String>> {
        None
    }

    fn word(&self, _word: &str) -> Option<i64> {
        None
    }

    fn finish(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// What a script configures, and what makes a fresh kernel's answers comparable.
fn sysctls(settings: &Settings) -> anyhow::Result<()> {
    let offer = &settings.offer;
    let flag = |on: bool| if on { "1" } else { "0" };
    let values = [
        ("ipv4/tcp_timestamps", flag(offer.timestamps.is_some())),
        ("ipv4/tcp_sack", flag(offer.sack)),
        ("ipv4/tcp_window_scaling", flag(offer.window_scale.is_some())),
        ("ipv4/tcp_ecn", flag(offer.ecn)),
        // A write of a script is taken whole.
        ("ipv4/tcp_wmem", "4096 1048576 4194304"),
        // Nothing is remembered from one connection to the next, and a SYN backs off from its first repetition on.
        ("ipv4/tcp_no_metrics_save", "1"),
        ("ipv4/tcp_syn_linear_timeouts", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
    ];
    for (key, value) in values {
        let path = format!("/proc/sys/net/{key}");
        if fs::exists(&path).unwrap_or(false) {
            fs::write(&path, value).with_context(|| format!("cannot set {key} = {value}"))?;
        }
    }
    let retries = settings.tcp.syn_retries.to_string();
    for key in ["tcp_syn_retries", "tcp_synack_retries"] {
        let path = format!("/proc/sys/net/ipv4/{key}");
        fs::write(&path, &retries).with_context(|| format!("cannot set {key}"))?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    anyhow::ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
