//! What each connection of a run is to do, and how far each of its ends has come.

use mimbox_stack::{Duration, Instant, Rng};

use super::adversary::{Adversary, Mischief};
use super::content;
use super::draw::{between, chance, log_between, pick};
use super::node::End;

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Plain TCP, by this project's stack.
    Tcp,
    /// Plain TCP, by smoltcp.
    ForeignTcp,
    /// Multipath TCP, with a second subflow once the connection stands.
    Mptcp,
}

/// What stands at the server's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket that listens.
    Listening,
    /// A host without that socket: it answers with a reset.
    Refusing,
    /// No host at all.
    Absent,
}

/// When an end of a connection closes its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// As soon as everything is sent, and goes on receiving.
    WhenSent,
    /// Only when the other end has closed.
    AfterPeer,
    /// With a reset, once this many bytes have arrived.
    ResetAfter(u64),
}

/// One connection of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When the client starts.
    pub start: Instant,
    /// How the client speaks.
    pub speaks: Speaks,
    /// What the client will find.
    pub target: Target,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client.
    pub down: u64,
    /// Key of the bytes from client to server.
    pub up_key: u64,
    /// Key of the bytes from server to client.
    pub down_key: u64,
    /// How the client closes.
    pub client_closing: Closing,
    /// How the server closes.
    pub server_closing: Closing,
    /// Bytes per millisecond that the client reads; zero is without limit.
    pub client_pace: u32,
    /// Bytes per millisecond that the server reads; zero is without limit.
    pub server_pace: u32,
    /// A middlebox changes payload of Multipath TCP, or loses mappings by joining segments, or strips them on the only path
    /// that is left: a subflow that finds it is reset (RFC 8684 §3.7, §6), and if it was the last one, so is the connection.
    pub may_break: bool,
    /// A middlebox changes payload of Multipath TCP.
    pub may_change: bool,
    /// The end that an adversary plays, if one does.
    pub adversary: Option<Adversary>,
}

/// How connections of a run are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Connections of the run.
    pub connections: usize,
    /// Most bytes that one direction carries; sizes are log-uniform.
    pub max_bytes: u64,
    /// Clients start spread over this time.
    pub start_within: Duration,
    /// Share of clients that speak MPTCP.
    pub mptcp_ppm: u32,
    /// Share of the other clients that are smoltcp's.
    pub foreign_ppm: u32,
    /// Share of connections that one end resets midway.
    pub reset_ppm: u32,
    /// Share of connections whose server refuses.
    pub refused_ppm: u32,
    /// Share of connections whose server is not there.
    pub absent_ppm: u32,
    /// Share of ends that read slowly.
    pub slow_reader_ppm: u32,
    /// Share of connections of which an adversary plays one end.
    pub adversary_ppm: u32,
}

impl Plan {
    /// Draws one connection.
    pub(crate) fn draw(rng: &mut Rng, traffic: &Traffic) -> Self {
        let target = if chance(rng, traffic.refused_ppm) {
            Target::Refusing
        } else if chance(rng, traffic.absent_ppm) {
            Target::Absent
        } else {
            Target::Listening
        };
        let up = log_between(rng, 1, traffic.max_bytes) - 1;
        let down = log_between(rng, 1, traffic.max_bytes) - 1;
        let (mut client_closing, mut server_closing) = match rng.below(3) {
            0 => (Closing::WhenSent, Closing::WhenSent),
            1 => (Closing::WhenSent, Closing::AfterPeer),
            _ => (Closing::AfterPeer, Closing::WhenSent),
        };
        if chance(rng, traffic.reset_ppm) {
            if rng.below(2) == 0 {
                client_closing = Closing::ResetAfter(between(rng, 0, down));
            } else {
                server_closing = Closing::ResetAfter(between(rng, 0, up));
            }
        }
        let mut plan = Self {
            start: Instant::ZERO + Duration::from_nanos(rng.below(traffic.start_within.as_nanos() + 1)),
            speaks: match (chance(rng, traffic.mptcp_ppm), chance(rng, traffic.foreign_ppm)) {
                (true, _) => Speaks::Mptcp,
                (false, true) => Speaks::ForeignTcp,
                (false, false) => Speaks::Tcp,
            },
            target,
            up,
            down,
            up_key: rng.next_u64(),
            down_key: rng.next_u64(),
            client_closing,
            server_closing,
            client_pace: slow_pace(rng, traffic, down),
            server_pace: slow_pace(rng, traffic, up),
            may_break: false,
            may_change: false,
            adversary: None,
        };
        if chance(rng, traffic.adversary_ppm) {
            plan.give_to_adversary(rng);
        }
        plan
    }

    /// Lets an adversary play one end, with enough data both ways that it has something to misuse.
    fn give_to_adversary(&mut self, rng: &mut Rng) {
        let adversary = Adversary { end: pick(rng, &[End::Client, End::Server]), mischief: pick(rng, &Mischief::ALL) };
        let most = adversary.mischief.most_bytes();
        self.up = between(rng, most / 4, most);
        self.down = between(rng, most / 4, most);
        self.adversary = Some(adversary);
    }

    /// True when one of the ends is to reset the connection.
    pub(crate) fn resets(&self) -> bool {
        matches!(self.client_closing, Closing::ResetAfter(_)) || matches!(self.server_closing, Closing::ResetAfter(_))
    }
}

/// A pace at which `bytes` take from a tenth of a second to some ten seconds, or zero for most readers.
fn slow_pace(rng: &mut Rng, traffic: &Traffic, bytes: u64) -> u32 {
    if !chance(rng, traffic.slow_reader_ppm) {
        return 0;
    }
    let millis = log_between(rng, 100, 10_000);
    (bytes / millis).max(1) as u32
}

/// How a connection ended for one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both directions were closed in order.
    Finished,
    /// It was reset, by either end.
    Reset,
    /// It never stood: refused, unreachable, or no answer.
    Failed,
}

/// What an end wants to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing now.
    Nothing,
    /// Close its direction.
    Close,
    /// Reset the connection.
    Reset,
}

/// The application at one end of a connection.
#[derive(Debug)]
pub(crate) struct App {
    send_key: u64,
    receive_key: u64,
    to_send: u64,
    to_receive: u64,
    closing: Closing,
    pace: u32,
    /// Bytes handed to the connection.
    pub(crate) sent: u64,
    /// Bytes taken from the connection.
    pub(crate) received: u64,
    /// When the connection stood, as this end saw it.
    pub(crate) opened: Option<Instant>,
    /// The other end has closed its direction and everything before that was taken.
    pub(crate) peer_closed: bool,
    /// This end has closed its direction.
    pub(crate) closed: bool,
    /// How it ended, once it has.
    pub(crate) ended: Option<Ended>,
    /// What was wrong with the stream.
    pub(crate) complaint: Option<String>,
    /// The first byte that was not what it should be.
    pub(crate) differs: Option<u64>,
    /// Its Multipath TCP connection fell back.
    pub(crate) fell_back: bool,
}

impl App {
    /// The client's end of `plan`.
    pub(crate) fn client(plan: &Plan) -> Self {
        Self::new((plan.up_key, plan.up), (plan.down_key, plan.down), plan.client_closing, plan.client_pace)
    }

    /// The server's end of `plan`.
    pub(crate) fn server(plan: &Plan) -> Self {
        Self::new((plan.down_key, plan.down), (plan.up_key, plan.up), plan.server_closing, plan.server_pace)
    }

    fn new(out: (u64, u64), back: (u64, u64), closing: Closing, pace: u32) -> Self {
        Self {
            send_key: out.0,
            receive_key: back.0,
            to_send: out.1,
            to_receive: back.1,
            closing,
            pace,
            sent: 0,
            received: 0,
            opened: None,
            peer_closed: false,
            closed: false,
            ended: None,
            complaint: None,
            differs: None,
            fell_back: false,
        }
    }

    /// Bytes that are still to be sent.
    pub(crate) fn left(&self) -> u64 {
        if self.closed { 0 } else { self.to_send - self.sent }
    }

    /// Writes the next bytes to send into `out`, as many as it takes, and counts them; says how many.
    pub(crate) fn produce(&mut self, out: &mut [u8]) -> usize {
        let take = self.left().min(out.len() as u64) as usize;
        content::fill(self.send_key, self.sent, &mut out[..take]);
        self.sent += take as u64;
        take
    }

    /// Takes received bytes and compares them.
    pub(crate) fn consume(&mut self, bytes: &[u8]) {
        if self.complaint.is_none() {
            if self.differs.is_none() {
                self.differs = content::first_difference(self.receive_key, self.received, bytes);
            }
            if self.received + bytes.len() as u64 > self.to_receive {
                self.complaint = Some(format!("more arrived than the {} bytes that were sent", self.to_receive));
            } else if self.peer_closed {
                self.complaint = Some("bytes arrived after the end of the stream".to_owned());
            }
        }
        self.received += bytes.len() as u64;
    }

    /// Notes that the other end closed.
    pub(crate) fn note_peer_closed(&mut self) {
        if self.peer_closed {
            return;
        }
        self.peer_closed = true;
        if self.complaint.is_none() && self.received != self.to_receive {
            self.complaint = Some(format!("the stream ended after {} of {} bytes", self.received, self.to_receive));
        }
    }

    /// How many bytes this end may have read by now when it reads slowly.
    pub(crate) fn may_have_read(&self, now: Instant) -> u64 {
        if self.pace == 0 {
            return u64::MAX;
        }
        let open_for = self.opened.map_or(Duration::ZERO, |at| now.since(at));
        1 + open_for.as_micros().saturating_mul(u64::from(self.pace)) / 1_000
    }

    /// True when every byte that the other end sends was read.
    pub(crate) fn has_read_all(&self) -> bool {
        self.received >= self.to_receive
    }

    /// True when this end reads slowly.
    pub(crate) fn is_slow(&self) -> bool {
        self.pace != 0
    }

    /// What the end wants to do now, given how many bytes it has read.
    pub(crate) fn wish(&self) -> Wish {
        match self.closing {
            _ if self.ended.is_some() || self.opened.is_none() => Wish::Nothing,
            Closing::ResetAfter(bytes) if self.received >= bytes => Wish::Reset,
            Closing::ResetAfter(_) => Wish::Nothing,
            Closing::WhenSent if !self.closed && self.left() == 0 => Wish::Close,
            Closing::AfterPeer if !self.closed && self.left() == 0 && self.peer_closed => Wish::Close,
            Closing::WhenSent | Closing::AfterPeer => Wish::Nothing,
        }
    }

    /// What is wrong with how this end ended under `plan`, if anything is. When the connection fell back, nothing guards it
    /// against a middlebox that changes payload.
    pub(crate) fn verdict(&self, plan: &Plan, fell_back: bool) -> Option<String> {
        if let Some(complaint) = &self.complaint {
            return Some(complaint.clone());
        }
        if let Some(at) = self.differs
            && !(plan.may_change && fell_back)
        {
            return Some(format!("got another byte {at} of {} than was sent", self.to_receive));
        }
        let may_give_up = plan.adversary.is_some_and(|adversary| adversary.mischief.may_give_up());
        let allowed: &[Ended] = match plan.target {
            // It has acknowledged what it may never get: that the bytes are right as far as they go is all there is.
            _ if plan.adversary.is_some_and(|adversary| adversary.mischief.may_lose()) => {
                return self.ended.is_none().then(|| "is still open though the adversary has given up".to_owned());
            }
            Target::Listening if plan.resets() || plan.may_break => &[Ended::Reset, Ended::Finished, Ended::Failed],
            Target::Listening if may_give_up => &[Ended::Reset, Ended::Finished],
            Target::Listening => &[Ended::Finished],
            Target::Refusing | Target::Absent => &[Ended::Failed],
        };
        match self.ended {
            Some(ended) if !allowed.contains(&ended) => Some(format!(
                "ended as {ended:?} with {} of {} bytes sent and {} of {} received",
                self.sent, self.to_send, self.received, self.to_receive
            )),
            Some(Ended::Finished) if !plan.resets() && (self.received != self.to_receive || self.left() > 0) => {
                Some(format!("finished with {} of {} bytes received", self.received, self.to_receive))
            }
            Some(_) => None,
            None => Some(format!(
                "still open with {} of {} bytes sent and {} of {} received{}{}",
                self.sent,
                self.to_send,
                self.received,
                self.to_receive,
                if self.closed { ", closed here" } else { "" },
                if self.peer_closed { ", closed by the peer" } else { "" },
            )),
        }
    }
}
