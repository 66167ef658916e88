//! This stack's connection as the subject: driven sans-IO, in virtual time.
//!
//! The application's side is what the shard does for a half: it says before each poll how much more it takes, listens,
//! answers what belongs to no connection with a reset, and keeps a TIME-WAIT record of what it closed first.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mimbox_stack::mem::Region;
use mimbox_stack::tcp::{Conn, ConnSetup, Opening, Outcome, State, SynSeen, TimeWaitRecord};
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, MacAddr, Parsed, SegmentIn, TcpFlags, Verify};
use mimbox_stack::{
    ConnId, ConnTable, Counter, Counters, Duration, Env, FlowKey, FramePool, Instant, Outgoing, PoolConfig, RingPool,
    Rng, RxQueue, RxSegment, SeqNum, TxFlags, TxSegment,
};

use super::backend::{Answer, Backend, Sent};
use super::syntax::{Action, BackendKind, Family, Lane, Read, Settings, Written};

/// Where virtual time begins: far enough from zero that nothing counts as "never happened".
const EPOCH: Instant = Instant::from_millis(10_000_000);
/// Where an application puts a payload in its frame.
const PAYLOAD_AT: usize = 300;
/// Where a received packet starts in its frame.
const RECEIVED_AT: usize = 256;
/// Verbs at one moment after which the machine counts as spinning.
const SPINS: u32 = 100_000;

/// Address and port of the subject.
pub(super) fn subject(family: Family) -> (IpAddr, u16) {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    };
    (address, 8080)
}

/// Address and port of its peer.
pub(super) fn peer(family: Family) -> (IpAddr, u16) {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    };
    (address, 40_000)
}

/// The connection and its application.
pub(super) struct Endpoint {
    settings: Settings,
    now: Instant,
    pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    counters: Counters,
    rng: Rng,
    conns: ConnTable,
    conn: Option<ConnId>,
    /// The connection is over: it goes once all it has to say is said.
    over: bool,
    listening: bool,
    /// A connection in TIME-WAIT, and when that ends.
    resting: Option<(TimeWaitRecord, Instant)>,
    flow: FlowKey,
    template: HeaderTemplate,
    link: LinkHeader,
    /// Bytes that the application has not read.
    unread: VecDeque<u8>,
    /// How many of them it lets pile up.
    limit: u32,
    fin: bool,
    error: Option<Answer>,
    sent: VecDeque<Sent>,
    /// Initial sequence number of the next connection.
    iss: SeqNum,
    /// State that a connection had when it went.
    last_state: State,
}

impl Endpoint {
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let region = Region::map(settings.frames, 2048).map_err(|error| format!("cannot map the frames: {error}"))?;
        let (local, remote) = (subject(settings.family), peer(settings.family));
        let flow = FlowKey { local: local.0, remote: remote.0, local_port: local.1, remote_port: remote.1 };
        Ok(Self {
            settings: settings.clone(),
            now: EPOCH,
            pool: FramePool::new(region, PoolConfig { rx_reserve: settings.frames / 8 }),
            rx_rings: RingPool::default(),
            tx_rings: RingPool::default(),
            counters: Counters::default(),
            rng: Rng::from_u64(1),
            conns: ConnTable::with_capacity(2),
            conn: None,
            over: false,
            listening: false,
            resting: None,
            flow,
            template: HeaderTemplate::new(&flow, 64),
            link: LinkHeader { src: MacAddr([2, 0, 0, 0, 0, 1]), dst: MacAddr([2, 0, 0, 0, 0, 2]), vlan: None },
            unread: VecDeque::new(),
            limit: settings.receive_buffer,
            fin: false,
            error: None,
            sent: VecDeque::new(),
            iss: settings.local_isn,
            last_state: State::Closed,
        })
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Conn<'_>, &mut Env<'_>) -> R) -> Option<R> {
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, conn, .. } = self;
        let mut env = Env { pool, rx_rings, tx_rings, counters, rng };
        let mut conn = conns.get((*conn)?)?;
        Some(act(&mut conn, &mut env))
    }

    fn open(&mut self, opening: Opening) -> Result<(), String> {
        let setup = ConnSetup { owner: 0, flow: self.flow, opening, config: self.settings.tcp };
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, .. } = self;
        let mut env = Env { pool, rx_rings, tx_rings, counters, rng };
        self.conn = Some(conns.insert(self.now, setup, &mut env).ok_or("no room for a connection")?);
        // The next one gets another number, as RFC 6528 would give it.
        self.iss += 250_000;
        self.over = false;
        self.fin = false;
        self.error = None;
        self.unread.clear();
        Ok(())
    }

    fn note(&mut self, outcome: Outcome) {
        self.fin |= outcome.contains(Outcome::FIN);
        let error = if outcome.contains(Outcome::RESET) {
            Some(Answer::Reset)
        } else if outcome.contains(Outcome::TIMED_OUT) {
            Some(Answer::TimedOut)
        } else if outcome.contains(Outcome::UNREACHABLE | Outcome::CLOSED) {
            Some(Answer::Unreachable)
        } else {
            None
        };
        self.error = self.error.take().or(error);
        self.over |= outcome.contains(Outcome::CLOSED);
    }

    /// Sends what there is to send, and lets a connection go that is over.
    fn pump(&mut self) -> Result<(), String> {
        let now = self.now;
        let space = self.limit.saturating_sub(self.unread.len() as u32);
        self.with(|conn, _| {
            if conn.state().is_synchronized() {
                conn.set_receive_space(space);
            }
        });
        let mut spins = 0;
        while let Some(out) = self.with(|conn, env| conn.poll_transmit(now, env)).flatten() {
            self.emit(out);
            spins += 1;
            if spins > SPINS {
                return Err("poll_transmit does not come to an end".into());
            }
        }
        if self.over {
            let record = self.with(|conn, _| (conn.state(), conn.time_wait_record(now)));
            if let Some((state, record)) = record {
                self.last_state = state;
                if state == State::TimeWait {
                    self.resting = Some((record, now + self.settings.tcp.time_wait));
                }
            }
            self.forget();
        }
        Ok(())
    }

    fn forget(&mut self) {
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, .. } = self;
        let mut env = Env { pool, rx_rings, tx_rings, counters, rng };
        if let Some(id) = self.conn.take() {
            conns.remove(id, &mut env);
        }
        self.over = false;
    }

    fn emit(&mut self, out: Outgoing) {
        let emitted = wire::emit_tcp(&mut self.pool, &self.link, &self.template, out, 0, &mut self.counters);
        let Some((frame, offset, len)) = emitted else { return };
        let (start, end) = (usize::from(offset) + 14, usize::from(offset) + usize::from(len));
        let packet = self.pool.bytes(&frame).get(start..end).unwrap_or_default().to_vec();
        self.pool.release(frame);
        self.sent.push_back(Sent { at: self.now.since(EPOCH), lane: Lane::Peer, packet });
    }

    fn on_segment(&mut self, segment: &SegmentIn, frame: mimbox_stack::FrameId) -> Result<(), String> {
        let now = self.now;
        let frame = if segment.payload_len > 0 {
            Some(frame)
        } else {
            self.pool.release(frame);
            None
        };
        if self.conn.is_none() {
            if let Some(frame) = frame {
                self.pool.release(frame);
            }
            return self.on_unknown(segment);
        }
        let mut queue = RxQueue::new();
        let outcome = self.with(|conn, env| conn.on_segment(now, segment, frame, &mut queue, env)).unwrap_or_default();
        for rx in queue {
            let start = usize::from(rx.offset);
            self.unread.extend(self.pool.bytes(&rx.frame).get(start..start + usize::from(rx.len)).unwrap_or_default());
            self.pool.release(rx.frame);
        }
        self.note(outcome);
        Ok(())
    }

    /// A segment that belongs to no connection.
    fn on_unknown(&mut self, segment: &SegmentIn) -> Result<(), String> {
        if let Some((record, _)) = &self.resting {
            if !record.gives_way_to(segment) {
                if let Some(out) = record.answer(self.now, segment) {
                    self.emit(out);
                }
                return Ok(());
            }
            self.resting = None;
        }
        let syn = segment.flags.contains(TcpFlags::SYN);
        if self.listening && syn && !segment.flags.intersects(TcpFlags::ACK | TcpFlags::RST) {
            let (iss, offer) = (self.iss, self.settings.offer);
            return self.open(Opening::Accept { iss, syn: SynSeen::of(segment), offer });
        }
        if let Some(out) = Outgoing::reset_for(segment) {
            self.emit(out);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let most = self.with(|conn, _| usize::from(conn.segment_payload())).ok_or("there is no connection")?;
        for piece in bytes.chunks(most) {
            let frame = self.pool.alloc().ok_or("no frame is free")?;
            if let Some(room) = self.pool.bytes_mut(&frame).get_mut(PAYLOAD_AT..PAYLOAD_AT + piece.len()) {
                room.copy_from_slice(piece);
            }
            let segment = TxSegment {
                dsn: 0,
                frame,
                seq: SeqNum(0),
                sent_us: 0,
                offset: PAYLOAD_AT as u16,
                len: piece.len() as u16,
                sum: mimbox_stack::checksum::sum(piece),
                flags: TxFlags::empty(),
                retransmits: 0,
            };
            self.with(|conn, env| conn.push(segment, env));
        }
        Ok(())
    }

    fn read(&mut self, read: &Read) -> Answer {
        let wanted = match read {
            Read::Bytes(count) => *count as usize,
            Read::Text(text) => text.len(),
            _ => usize::MAX,
        };
        if self.unread.is_empty() {
            return match (&self.error, self.fin) {
                (Some(error), _) => error.clone(),
                (None, true) => Answer::End,
                (None, false) => Answer::Nothing,
            };
        }
        Answer::Bytes(self.unread.drain(..wanted.min(self.unread.len())).collect())
    }

    /// When something is due.
    fn deadline(&mut self) -> Option<Instant> {
        let conn = self.with(|conn, _| conn.next_deadline()).flatten();
        conn.into_iter().chain(self.resting.as_ref().map(|(_, ends)| *ends)).min()
    }

    fn on_timer(&mut self) -> Result<(), String> {
        let now = self.now;
        if self.resting.as_ref().is_some_and(|(_, ends)| *ends <= now) {
            self.resting = None;
        }
        let due = self.with(|conn, _| conn.next_deadline().is_some_and(|at| at <= now)).unwrap_or(false);
        if due {
            let outcome = self.with(|conn, env| conn.on_timer(now, env)).unwrap_or_default();
            self.note(outcome);
            self.pump()?;
        }
        Ok(())
    }

    fn state(&mut self) -> State {
        if self.resting.is_some() {
            return State::TimeWait;
        }
        self.with(|conn, _| conn.state()).unwrap_or(State::Closed)
    }
}

const STATES: [(&str, State); 10] = [
    ("syn_sent", State::SynSent),
    ("syn_received", State::SynReceived),
    ("established", State::Established),
    ("fin_wait_1", State::FinWait1),
    ("fin_wait_2", State::FinWait2),
    ("close_wait", State::CloseWait),
    ("closing", State::Closing),
    ("last_ack", State::LastAck),
    ("time_wait", State::TimeWait),
    ("closed", State::Closed),
];

impl Backend for Endpoint {
    fn kind(&self) -> BackendKind {
        BackendKind::Mimbox
    }

    fn tolerance(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.now.since(EPOCH)
    }

    fn wait(&mut self, until: Duration) -> Result<Option<Sent>, String> {
        let until = EPOCH + until;
        let mut spins = 0;
        loop {
            if let Some(sent) = self.sent.pop_front() {
                return Ok(Some(sent));
            }
            let Some(due) = self.deadline().filter(|&due| due <= until) else { break };
            spins = if due > self.now { 0 } else { spins + 1 };
            if spins > SPINS {
                return Err("the same timer is due again and again".into());
            }
            self.now = self.now.max(due);
            self.on_timer()?;
        }
        self.now = self.now.max(until);
        Ok(None)
    }

    fn inject(&mut self, _lane: Lane, packet: &[u8]) -> Result<(), String> {
        let frame = self.pool.alloc_control().ok_or("no frame is free for reception")?;
        let mut whole = Vec::with_capacity(14 + packet.len());
        whole.extend(self.link.src.0);
        whole.extend(self.link.dst.0);
        whole.extend(if self.settings.family == Family::V4 { [8, 0] } else { [0x86, 0xdd] });
        whole.extend_from_slice(packet);
        match self.pool.bytes_mut(&frame).get_mut(RECEIVED_AT..RECEIVED_AT + whole.len()) {
            Some(room) => room.copy_from_slice(&whole),
            None => return Err(format!("a packet of {} bytes does not fit a frame", packet.len())),
        }
        match wire::parse(&whole, RECEIVED_AT as u16, Verify::All) {
            Ok(Parsed::Tcp(_, segment)) => self.on_segment(&segment, frame)?,
            Ok(Parsed::Icmp(info)) => {
                let error = wire::parse_icmp_error(self.pool.bytes(&frame), &info);
                self.pool.release(frame);
                if let Some(error) = error.filter(|error| error.flow == self.flow) {
                    let now = self.now;
                    let outcome = self.with(|conn, env| conn.on_icmp(now, &error.icmp, env)).unwrap_or_default();
                    self.note(outcome);
                }
            }
            Ok(_) => self.pool.release(frame),
            Err(reason) => {
                self.counters.inc(reason.counter());
                self.pool.release(frame);
            }
        }
        self.pump()
    }

    fn act(&mut self, action: &Action, bytes: &[u8]) -> Result<Answer, String> {
        let mut answer = Answer::Done;
        match action {
            Action::Listen => self.listening = true,
            Action::Connect => {
                let (iss, offer) = (self.iss, self.settings.offer);
                self.open(Opening::Connect { iss, offer })?;
            }
            Action::Write(Written::Text(_)) => self.write(bytes)?,
            Action::Write(Written::Pattern { len, .. }) => {
                for piece in bytes.chunks(*len as usize) {
                    self.write(piece)?;
                }
            }
            Action::Read(read) => answer = self.read(read),
            Action::Shutdown | Action::Close => {
                self.with(|conn, _| conn.shutdown());
            }
            Action::Abort => {
                self.with(|conn, env| conn.abort(env));
                self.over = true;
            }
            Action::Buffer(limit) => self.limit = *limit,
        }
        self.pump()?;
        Ok(answer)
    }

    fn fact(&mut self, name: &str) -> Option<Result<i64, String>> {
        if name == "state" {
            return Some(Ok(self.state() as i64));
        }
        if name == "frames" {
            return Some(Ok(i64::from(self.pool.in_use())));
        }
        if let Some(counter) = Counter::ALL.iter().find(|counter| counter.name() == name) {
            return Some(Ok(self.counters.get(*counter) as i64));
        }
        let fact = self.with(|conn, _| {
            Some(match name {
                "cwnd" => i64::from(conn.cwnd()),
                "ssthresh" => i64::from(conn.ssthresh()),
                "rto" => conn.rto().as_nanos() as i64,
                "srtt" => conn.srtt().as_nanos() as i64,
                "in_flight" => i64::from(conn.in_flight_bytes()),
                "unsent" => i64::from(conn.unsent_bytes()),
                "queued_frames" => i64::from(conn.queued_frames()),
                "ooo_frames" => i64::from(conn.ooo_frames()),
                "peer_window" => i64::from(conn.peer_window()),
                "segment" => i64::from(conn.segment_payload()),
                "retransmits" => conn.retransmits() as i64,
                "snd_una" => i64::from(conn.snd_una().distance_from(conn.iss())),
                "snd_nxt" => i64::from(conn.snd_nxt().distance_from(conn.iss())),
                "rcv_nxt" => i64::from(conn.rcv_nxt().distance_from(conn.irs())),
                "timeouts" => i64::from(conn.consecutive_timeouts()),
                _ => return None,
            })
        });
        Some(match fact {
            None => Err("there is no connection to ask".into()),
            Some(None) => Err(format!("there is no fact and no counter `{name}`")),
            Some(Some(value)) => Ok(value),
        })
    }

    fn word(&self, word: &str) -> Option<i64> {
        STATES.iter().find(|(name, _)| *name == word).map(|(_, state)| *state as i64)
    }

    fn finish(&mut self) -> Vec<String> {
        self.forget();
        let held = self.pool.in_use();
        if held == 0 { Vec::new() } else { vec![format!("{held} frames are held after the connection is gone")] }
    }
}
