//! A host that runs this project's own stack, as client or as server: its frames, its connections, its ports.

mod half;
mod opening;
mod port;
mod session;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use mimbox_mptcp::Event;
use mimbox_stack::limits::RX_HEADROOM;
use mimbox_stack::mem::Region;
use mimbox_stack::tcp::{ConnId, ConnTable, State, TimeWaitRecord};
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, MacAddr, Parsed, Verify};
use mimbox_stack::{
    Counters, Duration, Env, FlowKey, FramePool, Instant, Outgoing, PoolConfig, RingPool, Rng, RxQueue, RxSegment,
    SegmentIn, TxSegment,
};

pub(crate) use half::Half;
pub(crate) use opening::{Addressing, Role};
pub(crate) use port::{HostPort, Reach};
use session::{Lane, Session};

use super::node::{End, MOST_IN_A_ROW, Node, TimerWatch};
use super::packet::{Outbox, Packet};
use super::plan::{App, Plan};
use super::profile::HostOptions;

/// Frames of a host; only those that are used cost memory.
const FRAMES: u32 = 64 << 10;
/// Bytes of a frame.
const FRAME_BYTES: u32 = 2048;
/// Connections of a host at most, subflows included.
const MAX_CONNECTIONS: usize = 16 << 10;
/// TTL of what a host sends.
const TTL: u8 = 64;
/// How long a 4-tuple rests after its connection (RFC 9293 §3.6.1).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Where a 4-tuple leads.
#[derive(Clone, Copy, Debug)]
struct Owner {
    id: ConnId,
    session: usize,
}

/// Frames, rings, counters and randomness: what the verbs are lent.
struct Resources {
    pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    counters: Counters,
    rng: Rng,
}

impl Resources {
    fn env(&mut self) -> Env<'_> {
        let Self { pool, rx_rings, tx_rings, counters, rng } = self;
        Env { pool, rx_rings, tx_rings, counters, rng }
    }
}

/// The host.
pub(crate) struct Host {
    options: HostOptions,
    role: Role,
    addressing: Addressing,
    plans: Vec<Plan>,
    ports: Vec<HostPort>,
    res: Resources,
    conns: ConnTable,
    flows: HashMap<FlowKey, Owner>,
    resting: HashMap<FlowKey, (Instant, TimeWaitRecord)>,
    sessions: Vec<Session>,
    tokens: HashMap<u32, usize>,
    /// When sessions want to run again; stale entries are recognised by the session's own deadline.
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Sessions that have something to do now.
    ready: Vec<usize>,
    /// Plans that are still to be started, the next one last.
    to_start: Vec<usize>,
    delivered: RxQueue,
    next_port: u16,
    ip_id: u16,
    open: usize,
    watch: TimerWatch,
}

impl Host {
    pub(crate) fn new(
        plans: &[Plan],
        options: HostOptions,
        role: Role,
        addressing: Addressing,
        ports: Vec<HostPort>,
        rng: Rng,
    ) -> anyhow::Result<Self> {
        let region = Region::map(FRAMES, FRAME_BYTES)?;
        let mut to_start = opening::mine(plans, role);
        to_start.sort_by_key(|&index| Reverse(plans[index].start));
        let open = to_start.len();
        Ok(Self {
            options,
            role,
            addressing,
            plans: plans.to_vec(),
            ports,
            res: Resources {
                pool: FramePool::new(region, PoolConfig { rx_reserve: 1024 }),
                rx_rings: RingPool::default(),
                tx_rings: RingPool::default(),
                counters: Counters::default(),
                rng,
            },
            conns: ConnTable::with_capacity(MAX_CONNECTIONS),
            flows: HashMap::new(),
            resting: HashMap::new(),
            sessions: Vec::new(),
            tokens: HashMap::new(),
            deadlines: BinaryHeap::new(),
            ready: Vec::new(),
            to_start,
            delivered: RxQueue::new(),
            next_port: 20_000,
            ip_id: 0,
            open,
            watch: TimerWatch::default(),
        })
    }

    fn touch(&mut self, index: usize) {
        if let Some(session) = self.sessions.get_mut(index)
            && !session.listed
        {
            session.listed = true;
            self.ready.push(index);
        }
    }

    fn receive(&mut self, now: Instant, port: u8, packet: &[u8], out: &mut Outbox) {
        let Some(frame) = self.res.pool.alloc_control() else { return };
        let fits = self.res.pool.bytes_mut(&frame).get_mut(RX_HEADROOM..RX_HEADROOM + packet.len());
        let Some(room) = fits else { return self.res.pool.release(frame) };
        room.copy_from_slice(packet);
        let bytes = self.res.pool.bytes(&frame).get(RX_HEADROOM..RX_HEADROOM + packet.len()).unwrap_or(&[]);
        match wire::parse(bytes, RX_HEADROOM as u16, Verify::All) {
            Ok(Parsed::Tcp(_, segment)) if self.is_mine(&segment) => {
                let frame = if segment.payload_len > 0 {
                    Some(frame)
                } else {
                    self.res.pool.release(frame);
                    None
                };
                match self.flows.get(&segment.flow).copied() {
                    Some(owner) => self.on_connection(now, owner, &segment, frame),
                    None => {
                        if let Some(frame) = frame {
                            self.res.pool.release(frame);
                        }
                        self.on_unknown(now, port, &segment, out);
                    }
                }
            }
            Ok(Parsed::Arp(_)) => {
                self.res.pool.release(frame);
                if let Some(own) = self.ports.get_mut(usize::from(port)) {
                    own.on_arp(packet, port, out);
                }
            }
            Ok(_) | Err(_) => self.res.pool.release(frame),
        }
    }

    /// A host takes what is for any of its addresses by any of its ports.
    fn is_mine(&self, segment: &SegmentIn) -> bool {
        self.ports.iter().any(|own| own.owns(segment.flow.local))
    }

    fn on_connection(&mut self, now: Instant, owner: Owner, segment: &SegmentIn, frame: Option<mimbox_stack::FrameId>) {
        let Some(session) = self.sessions.get_mut(owner.session) else { return };
        let mut env = self.res.env();
        let happened =
            session.half.on_segment(now, owner.id, segment, frame, &mut self.conns, &mut self.delivered, &mut env);
        session.note(now, happened, &mut self.delivered);
        self.touch(owner.session);
    }

    /// A segment of no connection: TIME-WAIT answers it, a server takes a SYN, anything else gets a reset.
    fn on_unknown(&mut self, now: Instant, port: u8, segment: &SegmentIn, out: &mut Outbox) {
        let resting = self.resting.get(&segment.flow).filter(|(until, _)| now < *until);
        let resting = resting.map(|(_, record)| record.answer(now, segment));
        let answer = match resting {
            Some(answer) => answer,
            None if self.accept(now, port, segment) => return,
            None => Outgoing::reset_for(segment),
        };
        if let Some(answer) = answer {
            self.send(&segment.flow, port, answer, out);
        }
    }

    /// Runs a session: the application, then whatever the protocol wants sent, then its next deadline.
    fn run_session(&mut self, now: Instant, index: usize, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        session.listed = false;
        session.serve(now, &self.options, &mut self.conns, &mut self.res.env());
        self.on_events(now, index);
        if self.sessions.get(index).is_some_and(|session| session.join_at.is_some_and(|at| at <= now)) {
            self.join(now, index);
        }
        if self.sessions.get(index).is_some_and(|session| session.leave_at.is_some_and(|at| at <= now)) {
            self.leave(now, index);
        }
        for polled in 0.. {
            let Some(session) = self.sessions.get_mut(index) else { return };
            let Some((id, segment)) = session.half.poll_transmit(now, &mut self.conns, &mut self.res.env()) else {
                break;
            };
            assert!(
                polled < MOST_IN_A_ROW,
                "the {:?} host sends without end: {segment:?} of {:?}",
                self.role,
                self.conns.get(id)
            );
            match session.lanes.iter().find(|lane| lane.id == id).copied() {
                Some(lane) => {
                    let segment = self.decorate(index, segment);
                    self.send(&lane.flow, lane.port, segment, out);
                }
                None => {
                    if let Some(payload) = segment.payload {
                        self.res.pool.release(payload.frame);
                    }
                }
            }
        }
        self.on_events(now, index);
        self.close_check(index);
        self.settle(now, index);
    }

    fn settle(&mut self, now: Instant, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        if let Some(at) = session.next_deadline(now, &mut self.conns)
            && at < session.armed
        {
            session.armed = at;
            self.deadlines.push(Reverse((at, index)));
        }
    }

    fn on_events(&mut self, now: Instant, index: usize) {
        while let Some(event) = self.sessions.get_mut(index).and_then(Session::poll_event) {
            match event {
                Event::SubflowEnded(id, _) => self.remove_connection(now, index, id),
                other => self.on_event(now, index, &other),
            }
        }
    }

    /// Takes a session apart once its protocol is done.
    fn close_check(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let done = match &session.half {
            Half::None => return,
            Half::Tcp(id) => match self.conns.get(*id) {
                Some(conn) => matches!(conn.state(), State::TimeWait | State::Closed),
                None => true,
            },
            Half::Mptcp(connection) => connection.is_closed(),
        };
        if !done {
            return;
        }
        session.over = true;
        session.protocol_ended();
    }

    /// Removes what is over. A reset that is still to be sent was sent before this is asked.
    fn sweep(&mut self, now: Instant, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        if !session.over || matches!(session.half, Half::None) {
            return;
        }
        for lane in std::mem::take(&mut session.lanes) {
            Self::forget(now, &lane, &mut self.conns, &mut self.flows, &mut self.resting, &mut self.res.env());
        }
        if let Half::Mptcp(mut connection) = std::mem::replace(&mut session.half, Half::None) {
            self.tokens.remove(&connection.local_token());
            connection.release(&mut self.res.env());
        }
    }

    fn forget(
        now: Instant,
        lane: &Lane,
        conns: &mut ConnTable,
        flows: &mut HashMap<FlowKey, Owner>,
        resting: &mut HashMap<FlowKey, (Instant, TimeWaitRecord)>,
        env: &mut Env<'_>,
    ) {
        flows.remove(&lane.flow);
        if let Some(conn) = conns.get(lane.id)
            && conn.state() == State::TimeWait
        {
            resting.insert(lane.flow, (now + TIME_WAIT, conn.time_wait_record(now)));
        }
        conns.remove(lane.id, env);
    }

    fn remove_connection(&mut self, now: Instant, index: usize, id: ConnId) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        let Some(at) = session.lanes.iter().position(|lane| lane.id == id) else { return };
        let lane = session.lanes.swap_remove(at);
        Self::forget(now, &lane, &mut self.conns, &mut self.flows, &mut self.resting, &mut self.res.env());
    }

    /// Builds the packet and hands it to the link; the host's NIC is done with a frame at once.
    fn send(&mut self, flow: &FlowKey, port: u8, segment: Outgoing, out: &mut Outbox) {
        let way = self.ports.get(usize::from(port)).and_then(|own| Some((own.mac, own.link_to(flow.remote)?)));
        let Some((own, neighbour)) = way else {
            if let Some(payload) = segment.payload {
                self.res.pool.release(payload.frame);
            }
            return;
        };
        let link = LinkHeader { src: MacAddr(own), dst: MacAddr(neighbour), vlan: None };
        let template = HeaderTemplate::new(flow, TTL);
        self.ip_id = self.ip_id.wrapping_add(1);
        let Resources { pool, counters, .. } = &mut self.res;
        if let Some((frame, offset, len)) = wire::emit_tcp(pool, &link, &template, segment, self.ip_id, counters) {
            let start = usize::from(offset);
            out.send(port, pool.bytes(&frame).get(start..start + usize::from(len)).unwrap_or(&[]));
            pool.release(frame);
        }
    }
}

impl Node for Host {
    fn run(&mut self, now: Instant, inbox: &mut Vec<(u8, Packet)>, out: &mut Outbox) {
        for (port, packet) in inbox.drain(..) {
            self.receive(now, port, &packet, out);
            out.packets.recycle(packet);
        }
        for (index, port) in self.ports.iter_mut().enumerate() {
            port.on_timer(now, index as u8, out);
        }
        self.start_due(now);
        while let Some(&Reverse((at, index))) = self.deadlines.peek() {
            if at > now {
                break;
            }
            self.deadlines.pop();
            let Some(session) = self.sessions.get_mut(index) else { continue };
            if session.armed != at {
                continue;
            }
            session.armed = Instant::MAX;
            let happened = session.half.on_timer(now, &mut self.conns, &mut self.res.env());
            session.note(now, happened, &mut self.delivered);
            self.touch(index);
        }
        let mut ready = std::mem::take(&mut self.ready);
        for index in ready.drain(..) {
            let before = self.sessions.get(index).is_some_and(|session| session.app.ended.is_some());
            self.run_session(now, index, out);
            self.sweep(now, index);
            let after = self.sessions.get(index).is_some_and(|session| session.app.ended.is_some());
            self.open -= usize::from(!before && after);
        }
        self.ready = ready;
        let Self { watch, sessions, conns, .. } = self;
        watch.look(now, || {
            let lanes = sessions.iter().flat_map(|session| &session.lanes);
            lanes.into_iter().find_map(|lane| conns.get(lane.id)?.timer_fault(now))
        });
    }

    fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let ports = self.ports.iter().filter_map(HostPort::next_deadline).min();
        [sessions, ports, self.next_start()].into_iter().flatten().min()
    }

    fn poll_every(&self) -> Duration {
        self.options.poll_every
    }

    fn apps(&self, visit: &mut dyn FnMut(usize, End, &App)) {
        for session in &self.sessions {
            visit(session.plan, self.role.end(), &session.app);
        }
    }

    fn plan_of(&self, flow: &FlowKey) -> Option<usize> {
        let owner = self.flows.get(flow)?;
        self.sessions.get(owner.session).map(|session| session.plan)
    }

    fn client_counters(&self) -> Option<&Counters> {
        (self.role == Role::Client).then_some(&self.res.counters)
    }

    fn open_ends(&self) -> usize {
        self.open
    }

    fn is_quiet(&self) -> bool {
        self.flows.is_empty()
    }

    fn audit(&mut self, now: Instant) -> Vec<String> {
        let mut complaints = Vec::new();
        complaints.extend(self.watch.complaint(&format!("the {:?} host", self.role.end())));
        let left = self.conns.len();
        if left > 0 {
            complaints.push(format!("the {:?} host still holds {left} connections", self.role.end()));
        }
        for index in 0..self.sessions.len() {
            if let Some(session) = self.sessions.get_mut(index) {
                session.over = true;
                session.release_unread(&mut self.res.env());
            }
            self.sweep(now, index);
        }
        let pool = &self.res.pool;
        if pool.free_frames() != pool.total() {
            let missing = pool.total() - pool.free_frames();
            complaints.push(format!("the {:?} host leaks {missing} frames", self.role.end()));
        }
        complaints
    }
}
