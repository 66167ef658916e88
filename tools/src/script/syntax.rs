//! What a script says, as the parser hands it to the runner.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use mimbox_stack::tcp::{Offer, TcpConfig};
use mimbox_stack::wire::{Ecn, TcpFlags};
use mimbox_stack::{Duration, SeqNum};

/// One script.
#[derive(Clone, Debug)]
pub struct Script {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its first comment: the behaviour in one sentence or two.
    pub title: String,
    /// What is tested.
    pub subject: Subject,
    /// What the Linux kernel makes of it.
    pub linux: Linux,
    /// How the connection is configured.
    pub settings: Settings,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// The lines of the file, for reports.
    pub source: Vec<String>,
}

/// What a script talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Subject {
    /// One TCP endpoint: this stack's connection, or a socket of the kernel.
    #[default]
    Endpoint,
    /// A whole engine, with a client on one side and a server on the other.
    Converter,
}

/// What the kernel makes of a script.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Linux {
    /// The same as this stack.
    #[default]
    Same,
    /// Something else, for this reason: the script fails there.
    Differs(String),
    /// The script cannot be put to it, for this reason.
    Skip(String),
}

/// What can run a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendKind {
    /// This project's stack, in virtual time.
    Mimbox,
    /// The kernel, through a TUN device, in real time.
    Linux,
}

/// The two address families.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

/// How clients reach a converter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// By its own address; a destination option names the server.
    #[default]
    Explicit,
    /// By the server's address.
    Transparent,
}

/// How the connection under test is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Parameters of our connection.
    pub tcp: TcpConfig,
    /// What our SYN offers.
    pub offer: Offer,
    /// Bytes that our application lets pile up before it reads.
    pub receive_buffer: u32,
    /// The peer's initial sequence number.
    pub peer_isn: SeqNum,
    /// Our initial sequence number; the kernel chooses its own.
    pub local_isn: SeqNum,
    /// Address family.
    pub family: Family,
    /// Frames in the pool.
    pub frames: u32,
    /// How clients reach a converter.
    pub mode: Mode,
    /// Every `key=value` as it was written, for what the kernel has to be told.
    pub written: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tcp: TcpConfig::default(),
            offer: Offer::default(),
            receive_buffer: 65_535,
            peer_isn: SeqNum(0),
            local_isn: SeqNum(1_000_000),
            family: Family::V4,
            frames: 2048,
            mode: Mode::default(),
            written: Vec::new(),
        }
    }
}

/// One thing that happens, or has to happen.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line in the file, from 1.
    pub line: usize,
    /// Only for this backend.
    pub only: Option<BackendKind>,
    /// When.
    pub when: When,
    /// What.
    pub what: What,
}

/// When a step happens, or may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When {
    /// What the times count from.
    pub base: Base,
    /// Not before.
    pub earliest: Duration,
    /// Not after; `None` for any time.
    pub latest: Option<Duration>,
    /// What it may be off by; `None` for the backend's own tolerance.
    pub tolerance: Option<Duration>,
}

impl When {
    /// At the time of the step before.
    pub const NOW: Self =
        Self { base: Base::Previous, earliest: Duration::ZERO, latest: Some(Duration::ZERO), tolerance: None };
}

/// What times count from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The start of the script.
    Start,
    /// The step before.
    Previous,
}

/// Whose segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// The one peer of an endpoint.
    Peer,
    /// The client of a converter.
    Client,
    /// The server of a converter.
    Server,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum What {
    /// The peer sends a segment.
    Inject(Lane, SegmentSpec),
    /// The subject has to send this segment.
    Expect(Lane, SegmentSpec),
    /// The network sends an ICMP error.
    Icmp(Lane, IcmpSpec),
    /// The subject has to send this ICMP error.
    ExpectIcmp(Lane, IcmpKindSpec),
    /// The application does something.
    Act(Action),
    /// Something must hold inside our stack.
    Assert(Assertion),
    /// Nothing may be sent for so long.
    Nothing(Duration),
    /// Whatever is sent for so long is not looked at.
    Drain(Duration),
    /// The next segments belong to a new connection, the peer's first sequence number so much further.
    Reopen(Lane, u32),
}

/// A number in a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// As it stands.
    Number(i64),
    /// A variable that was captured before, and what is added.
    Variable(String, i64),
}

/// What a number has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Anything.
    Any,
    /// This; an unknown variable takes the number that is there.
    Is(Value),
    /// From the first to the second, both included.
    Within(i64, i64),
}

/// A segment to send or to expect. What is `None` is not checked, or left to a default.
#[derive(Clone, Debug)]
pub struct SegmentSpec {
    /// Flags; PSH counts only when it is written.
    pub flags: TcpFlags,
    /// Sequence number, relative to its sender's first.
    pub seq: Pattern,
    /// Payload bytes.
    pub len: u32,
    /// How many such segments, each after the one before.
    pub copies: u32,
    /// Payload as it is written.
    pub text: Option<Vec<u8>>,
    /// Acknowledgment number, relative to the other side's first sequence number.
    pub ack: Option<Pattern>,
    /// Window field, not scaled.
    pub window: Option<Pattern>,
    /// Urgent pointer.
    pub urgent: Option<u16>,
    /// ECN field.
    pub ecn: Option<Ecn>,
    /// Options.
    pub options: Option<Vec<OptionSpec>>,
    /// More options than those may be there.
    pub more_options: bool,
}

/// A TCP option to send or to expect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionSpec {
    /// Maximum segment size.
    Mss(Pattern),
    /// Window scale.
    WindowScale(Pattern),
    /// SACK permitted.
    SackPermitted,
    /// Timestamps; `None` for the lane's own clock, or any.
    Timestamps(Option<(Pattern, Pattern)>),
    /// SACK blocks, relative like acknowledgment numbers.
    Sack(Vec<(i64, i64)>),
    /// NOP, in injected segments.
    Nop,
    /// End of the list, in injected segments.
    End,
    /// The destination option of explicit mode.
    Destination(SocketAddrV4),
    /// An MPTCP suboption by its name, the body behind kind and length.
    Mptcp(String, Vec<u8>),
    /// Any other kind with its body.
    Raw(u8, Vec<u8>),
    /// Any option of a kind, whatever its body.
    Kind(u8),
}

/// What an ICMP error says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IcmpKindSpec {
    /// Fragmentation needed, packet too big.
    TooBig,
    /// Port unreachable.
    Port,
    /// Host unreachable, address unreachable.
    Host,
    /// Network unreachable, no route.
    Network,
    /// Protocol unreachable.
    Protocol,
    /// Administratively prohibited.
    Prohibited,
    /// Time exceeded.
    TimeExceeded,
    /// Source quench.
    SourceQuench,
}

/// An ICMP error about a segment of the subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpSpec {
    /// What it says.
    pub kind: IcmpKindSpec,
    /// The MTU that it tells.
    pub mtu: u16,
    /// The sequence number that it quotes, relative.
    pub seq: i64,
}

/// What an application does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Waits for a connection.
    Listen,
    /// Opens a connection.
    Connect,
    /// Writes these pieces, each as a write of its own; `None` takes the stream's pattern.
    Write(Written),
    /// Reads.
    Read(Read),
    /// Ends its own direction.
    Shutdown,
    /// Closes.
    Close,
    /// Resets.
    Abort,
    /// From now on so many bytes may pile up unread.
    Buffer(u32),
}

/// What is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    /// `pieces` writes of `len` bytes of the stream's pattern.
    Pattern {
        /// Bytes of each.
        len: u32,
        /// How many.
        pieces: u32,
    },
    /// These bytes.
    Text(Vec<u8>),
}

/// What a read has to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes, as the peer sent them.
    Bytes(u32),
    /// These bytes.
    Text(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The end of the stream.
    End,
    /// The error of a reset connection.
    Reset,
    /// The error of a peer that does not answer.
    TimedOut,
    /// The error of a peer that cannot be reached.
    Unreachable,
}

/// Something that must hold inside our stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assertion {
    /// What is looked at: a fact of the connection, or a counter of the engine by its name.
    pub fact: String,
    /// How it is compared.
    pub relation: Relation,
    /// With what.
    pub value: String,
}

/// How two numbers compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    Unequal,
    /// At least.
    AtLeast,
    /// At most.
    AtMost,
    /// Less.
    Less,
    /// More.
    More,
}

impl Relation {
    /// The relation as it is written.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::Less => "<",
            Self::More => ">",
        }
    }

    /// Whether it holds.
    pub const fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Unequal => left != right,
            Self::AtLeast => left >= right,
            Self::AtMost => left <= right,
            Self::Less => left < right,
            Self::More => left > right,
        }
    }
}
