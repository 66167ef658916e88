//! Two hosts, a client-role and a server-role connection, over several paths that lose, reorder, duplicate and die, by
//! way of real packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mimbox_stack::limits::PAYLOAD_OFFSET;
use mimbox_stack::tcp::{CcKind, ConnId, ConnSetup, ConnTable, Offer, Opening, SynSeen, TcpConfig};
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, Parsed, Verify};
use mimbox_stack::{
    Counter, Duration, FlowKey, Instant, Outgoing, RxQueue, SegmentIn, SeqNum, TcpFlags, TxFlags, TxSegment, checksum,
};

use crate::testing::{World, byte_at};
use crate::{
    AcceptParams, ConnectParams, Connection, Coupled, Event, HalfOutcome, MptcpConfig, Version, capable_in_syn,
    join_in_syn,
};

/// What a path does to packets, in thousandths, how long it takes and how fast it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    pub(crate) reorder: u64,
    pub(crate) delay: Duration,
    /// Nanoseconds that a byte takes; zero for no limit.
    pub(crate) ns_per_byte: u64,
    pub(crate) up: bool,
}

impl Path {
    pub(crate) fn clean(delay_ms: u64) -> Self {
        let delay = Duration::from_millis(delay_ms);
        Self { loss: 0, duplicate: 0, reorder: 0, delay, ns_per_byte: 0, up: true }
    }
}

/// What a middlebox does to a segment on its way; `false` drops it.
pub(crate) type Meddler = Box<dyn FnMut(usize, usize, &mut SegmentIn, &mut Vec<u8>) -> bool>;

/// What a middlebox makes of a segment that may be cut or joined with others: the path, who sent it, the segment and its
/// payload; what arrives instead.
pub(crate) type Reshaper = Box<dyn FnMut(usize, usize, SegmentIn, Vec<u8>) -> Vec<(SegmentIn, Vec<u8>)>>;

/// One host.
pub(crate) struct Host {
    pub(crate) world: World,
    pub(crate) conns: ConnTable,
    pub(crate) connection: Option<Connection>,
    templates: Vec<(ConnId, HeaderTemplate, FlowKey, usize)>,
    pub(crate) to_write: u64,
    written: u64,
    pub(crate) read: u64,
    pub(crate) fin: bool,
    pub(crate) outcome: HalfOutcome,
    pub(crate) events: Vec<Event>,
    pub(crate) space: u32,
    /// Frames that the application keeps queued at most.
    pub(crate) backlog: u32,
    pub(crate) chunk: u16,
    /// Whether the application closes once it has written all.
    pub(crate) closes: bool,
    /// How many bytes may differ: what a middlebox changed after a fallback.
    pub(crate) tolerates: u32,
    config: MptcpConfig,
    /// The key that it takes; random without one.
    pub(crate) key: Option<u64>,
    seed: u64,
}

fn base_of(side: usize) -> u64 {
    1_000_000 * side as u64
}

impl Host {
    fn new(config: MptcpConfig, seed: u64, side: usize) -> Self {
        let mut world = World::new(6000);
        world.rng = mimbox_stack::Rng::from_u64(seed * 2 + side as u64);
        Self {
            world,
            conns: ConnTable::with_capacity(64),
            connection: None,
            templates: Vec::new(),
            to_write: 0,
            written: 0,
            read: 0,
            fin: false,
            outcome: HalfOutcome::empty(),
            events: Vec::new(),
            space: 1 << 20,
            backlog: 1000,
            chunk: 1400,
            closes: true,
            tolerates: 0,
            config,
            key: None,
            seed,
        }
    }

    fn new_key(&mut self) -> u64 {
        let random = self.world.rng.next_u64();
        self.key.unwrap_or(random)
    }

    pub(crate) fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a connection")
    }

    fn tcp_config(&self) -> TcpConfig {
        let cc = if self.config.coupled == Coupled::No { CcKind::Cubic } else { CcKind::Coupled };
        let upper_reserve = MptcpConfig::UPPER_RESERVE;
        TcpConfig { upper_reserve, cc, max_rto: Duration::from_secs(5), ..TcpConfig::default() }
    }

    fn insert(&mut self, now: Instant, flow: FlowKey, opening: Opening, path: usize) -> ConnId {
        let setup = ConnSetup { owner: 0, flow, opening, config: self.tcp_config() };
        let id = self.conns.insert(now, setup, &mut self.world.env()).expect("room");
        self.templates.push((id, HeaderTemplate::new(&flow, 64), flow, path));
        id
    }

    fn write(&mut self, side: usize) {
        let Some(connection) = &mut self.connection else { return };
        while self.to_write > 0 && connection.queued_frames() < self.backlog {
            let Some(frame) = self.world.pool.alloc() else { return };
            let len = u64::from(self.chunk).min(self.to_write) as usize;
            let bytes = &mut self.world.pool.bytes_mut(&frame)[PAYLOAD_OFFSET..PAYLOAD_OFFSET + len];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = byte_at(base_of(side) + self.written + at as u64);
            }
            let segment = TxSegment {
                dsn: 0,
                sum: checksum::sum(bytes),
                frame,
                seq: SeqNum(0),
                sent_us: 0,
                offset: PAYLOAD_OFFSET as u16,
                len: len as u16,
                flags: TxFlags::empty(),
                retransmits: 0,
            };
            self.written += len as u64;
            self.to_write -= len as u64;
            connection.push(segment, &mut self.world.env());
        }
        if self.to_write == 0 && self.closes {
            connection.shutdown();
        }
    }

    /// Ends the connection at once.
    pub(crate) fn abort(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.abort(&mut self.conns, &mut self.world.env());
    }

    /// Every subflow is gone without a word, as when its interface is removed.
    pub(crate) fn lose_subflows(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        let ids: Vec<ConnId> = connection.subflow_ids().collect();
        for id in ids {
            connection.subflow_closed(now, id, &mut self.world.env());
            self.conns.remove(id, &mut self.world.env());
            self.templates.retain(|known| known.0 != id);
        }
    }

    fn note_events(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        while let Some(event) = connection.poll_event() {
            self.events.push(event);
            if let Event::SubflowEnded(id, _) = event {
                self.conns.remove(id, &mut self.world.env());
                self.templates.retain(|(known, ..)| *known != id);
            }
        }
    }
}

/// The client, the server and the paths between them.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    pub(crate) paths: Vec<Path>,
    busy_until: Vec<[Instant; 2]>,
    rng: mimbox_stack::Rng,
    flying: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    count: u64,
    pub(crate) seed: u64,
    /// Paths on which the client wants a subflow.
    pub(crate) wanted: BTreeSet<usize>,
    join_at: Instant,
    next_port: u16,
    pub(crate) meddler: Option<Meddler>,
    pub(crate) reshaper: Option<Reshaper>,
    /// Segments seen on the wire: path, from, the segment.
    pub(crate) trace: Option<Vec<(usize, usize, SegmentIn)>>,
}

fn client_addr(path: usize) -> IpAddr {
    IpAddr::from([10, 0, path as u8, 1])
}

pub(crate) fn server_addr() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn offer() -> Offer {
    Offer { rcv_wnd: 65_535, ..Offer::default() }
}

impl Pair {
    pub(crate) fn new(seed: u64, paths: Vec<Path>, config: [MptcpConfig; 2]) -> Self {
        Self::with_keys(seed, paths, config, [None; 2])
    }

    pub(crate) fn with_keys(seed: u64, paths: Vec<Path>, config: [MptcpConfig; 2], keys: [Option<u64>; 2]) -> Self {
        let now = Instant::from_millis(5_000);
        let mut client = Host::new(config[0], seed, 0);
        let mut server = Host::new(config[1], seed, 1);
        (client.key, server.key) = (keys[0], keys[1]);
        let flow = FlowKey { local: client_addr(0), remote: server_addr(), local_port: 1000, remote_port: 80 };
        let iss = SeqNum(0_u32.wrapping_sub((seed as u32 % 7) * 3_000));
        let id = client.insert(now, flow, Opening::Connect { iss, offer: offer() }, 0);
        let params = ConnectParams {
            local_key: client.new_key(),
            conn: id,
            version: if config[0].version_0 { Version::V0 } else { Version::V1 },
            config: config[0],
            local: flow.local,
            local_port: flow.local_port,
            remote: flow.remote,
            remote_port: flow.remote_port,
        };
        client.connection = Some(Connection::connect(now, params, &mut client.conns, &mut client.world.env()));
        let wanted = (1..paths.len()).collect();
        Self {
            now,
            hosts: [client, server],
            busy_until: vec![[Instant::ZERO; 2]; paths.len()],
            paths,
            rng: mimbox_stack::Rng::from_u64(seed),
            flying: BTreeMap::new(),
            count: 0,
            seed,
            wanted,
            join_at: Instant::ZERO,
            next_port: 2000,
            meddler: None,
            reshaper: None,
            trace: None,
        }
    }

    pub(crate) fn counter(&self, side: usize, counter: Counter) -> u64 {
        self.hosts[side].world.counters.get(counter)
    }

    fn launch(&mut self, from: usize, path: usize, packet: Vec<u8>) {
        let link = self.paths[path];
        if !link.up {
            return;
        }
        let dice = |rng: &mut mimbox_stack::Rng, chance: u64| rng.below(1000) < chance;
        let copies = 1 + usize::from(dice(&mut self.rng, link.duplicate));
        for _ in 0..copies {
            if dice(&mut self.rng, link.loss) {
                continue;
            }
            let start = self.now.max(self.busy_until[path][from]);
            let busy = start + Duration::from_nanos(link.ns_per_byte * packet.len() as u64);
            // A queue of 100 ms, then drops.
            if start.since(self.now) > Duration::from_millis(100) {
                continue;
            }
            self.busy_until[path][from] = busy;
            let mut due = busy + link.delay;
            if dice(&mut self.rng, link.reorder) {
                due += Duration::from_micros(self.rng.below(8_000));
            }
            self.count += 1;
            self.flying.insert((due, self.count), (1 - from, path, packet.clone()));
        }
    }

    fn transmit(&mut self, side: usize) {
        let now = self.now;
        let host = &mut self.hosts[side];
        host.write(side);
        let space = host.space;
        let mut sent = Vec::new();
        if let Some(connection) = &mut host.connection {
            connection.set_receive_space(space);
            let World { pool, rx_rings, tx_rings, counters, rng } = &mut host.world;
            let mut env = mimbox_stack::Env { pool, rx_rings, tx_rings, counters, rng };
            while let Some((id, out)) = connection.poll_transmit(now, &mut host.conns, &mut env) {
                check_outgoing(&out);
                let (_, template, _, path) = host.templates.iter().find(|known| known.0 == id).expect("a path");
                let link = LinkHeader::default();
                if let Some((frame, offset, len)) = wire::emit_tcp(env.pool, &link, template, out, 0, env.counters) {
                    let start = usize::from(offset);
                    sent.push((*path, env.pool.bytes(&frame)[start..start + usize::from(len)].to_vec()));
                    env.pool.release(frame);
                }
            }
        }
        host.note_events();
        for (path, packet) in sent {
            self.launch(side, path, packet);
        }
    }

    fn receive(&mut self, side: usize, path: usize, mut packet: Vec<u8>) {
        let parsed = wire::parse(&packet, 256, Verify::All).expect("a sound packet");
        let Parsed::Tcp(_, mut segment) = parsed else { panic!("not TCP") };
        if let Some(trace) = &mut self.trace {
            trace.push((path, 1 - side, segment.clone()));
        }
        if let Some(meddler) = &mut self.meddler {
            let start = usize::from(segment.payload_offset) - 256;
            let mut payload = packet[start..start + usize::from(segment.payload_len)].to_vec();
            if !meddler(path, 1 - side, &mut segment, &mut payload) {
                return;
            }
            packet.truncate(start);
            packet.extend_from_slice(&payload);
            segment.payload_len = payload.len() as u16;
            segment.payload_sum = checksum::sum(&payload);
        }
        let Some(mut reshaper) = self.reshaper.take() else { return self.deliver(side, path, &packet, &segment) };
        let start = usize::from(segment.payload_offset) - 256;
        let payload = packet[start..start + usize::from(segment.payload_len)].to_vec();
        for (mut segment, payload) in reshaper(path, 1 - side, segment, payload) {
            packet.truncate(start);
            packet.extend_from_slice(&payload);
            segment.payload_offset = 256 + start as u16;
            segment.payload_len = payload.len() as u16;
            segment.payload_sum = checksum::sum(&payload);
            self.deliver(side, path, &packet, &segment);
        }
        self.reshaper = Some(reshaper);
    }

    fn deliver(&mut self, side: usize, path: usize, packet: &[u8], segment: &SegmentIn) {
        let now = self.now;
        let host = &mut self.hosts[side];
        let known = host.templates.iter().find(|known| known.2 == segment.flow).map(|known| known.0);
        let is_syn = segment.flags.contains(TcpFlags::SYN) && !segment.flags.contains(TcpFlags::ACK);
        let id = match known {
            Some(id) => id,
            None if is_syn && side == 1 => match self.accept(path, segment) {
                Some(id) => id,
                None => return,
            },
            None => {
                // A host without the connection answers with a reset.
                if let Some(out) = Outgoing::reset_for(segment) {
                    let template = HeaderTemplate::new(&segment.flow, 64);
                    let link = LinkHeader::default();
                    let World { pool, counters, .. } = &mut host.world;
                    if let Some((frame, offset, len)) = wire::emit_tcp(pool, &link, &template, out, 0, counters) {
                        let start = usize::from(offset);
                        let bytes = pool.bytes(&frame)[start..start + usize::from(len)].to_vec();
                        pool.release(frame);
                        self.launch(side, path, bytes);
                    }
                }
                return;
            }
        };
        if known.is_none() {
            return;
        }
        let host = &mut self.hosts[side];
        let frame = host.world.pool.alloc_control().expect("a frame");
        host.world.pool.bytes_mut(&frame)[256..256 + packet.len()].copy_from_slice(packet);
        let frame = if segment.payload_len > 0 {
            Some(frame)
        } else {
            host.world.pool.release(frame);
            None
        };
        let mut out = RxQueue::new();
        let World { pool, rx_rings, tx_rings, counters, rng } = &mut host.world;
        let mut env = mimbox_stack::Env { pool, rx_rings, tx_rings, counters, rng };
        let connection = host.connection.as_mut().expect("a connection");
        let outcome = connection.on_segment(now, id, segment, frame, &mut host.conns, &mut out, &mut env);
        host.outcome |= outcome;
        host.fin |= outcome.contains(HalfOutcome::FIN);
        assert!(out.is_empty() || outcome.contains(HalfOutcome::DATA));
        for rx in out {
            host.world.assert_sum(&rx);
            for byte in host.world.bytes(&rx) {
                let expected = byte_at(base_of(1 - side) + host.read);
                if byte != expected && host.tolerates > 0 {
                    host.tolerates -= 1;
                } else {
                    assert_eq!(byte, expected, "seed {}: byte {} at side {side} differs", self.seed, host.read);
                }
                host.read += 1;
            }
            host.world.pool.release(rx.frame);
        }
        host.note_events();
    }

    /// The server takes a SYN.
    fn accept(&mut self, path: usize, segment: &SegmentIn) -> Option<ConnId> {
        let now = self.now;
        let host = &mut self.hosts[1];
        let iss = SeqNum(host.world.rng.next_u32());
        let opening = Opening::Accept { iss, syn: SynSeen::of(segment), offer: offer() };
        if let Some(join) = join_in_syn(segment) {
            let id = host.insert(now, segment.flow, opening, path);
            let connection = host.connection.as_mut()?;
            if connection.join(now, segment, join, id, &mut host.conns, &mut host.world.env()).is_err() {
                host.conns.remove(id, &mut host.world.env());
                host.templates.retain(|known| known.0 != id);
                return None;
            }
            return Some(id);
        }
        if host.connection.is_some() {
            return None;
        }
        let id = host.insert(now, segment.flow, opening, path);
        let peer = capable_in_syn(segment)?;
        let params = AcceptParams {
            local_key: host.new_key(),
            peer,
            conn: id,
            config: host.config,
            local: segment.flow.local,
            local_port: segment.flow.local_port,
            remote: segment.flow.remote,
            remote_port: segment.flow.remote_port,
        };
        host.connection = Some(Connection::accept(now, params, &mut host.conns, &mut host.world.env()));
        Some(id)
    }

    /// The client opens subflows on the paths that it wants and that have none.
    fn join(&mut self) {
        if self.now < self.join_at {
            return;
        }
        self.join_at = self.now + Duration::from_millis(20);
        let now = self.now;
        for path in self.wanted.clone() {
            let host = &mut self.hosts[0];
            if host.templates.iter().any(|known| known.3 == path) || !self.paths[path].up {
                continue;
            }
            self.next_port += 1;
            let flow = FlowKey {
                local: client_addr(path),
                remote: server_addr(),
                local_port: self.next_port,
                remote_port: 80,
            };
            let iss = SeqNum(host.world.rng.next_u32());
            let id = host.insert(now, flow, Opening::Connect { iss, offer: offer() }, path);
            let connection = host.connection.as_mut().expect("a connection");
            let opened = connection.open_subflow(now, id, path as u8, &mut host.conns, &mut host.world.env());
            if opened.is_err() {
                host.conns.remove(id, &mut host.world.env());
                host.templates.retain(|known| known.0 != id);
            }
        }
    }

    fn timers(&mut self, side: usize) {
        let now = self.now;
        let host = &mut self.hosts[side];
        let Some(connection) = &mut host.connection else { return };
        let ids: Vec<ConnId> = connection.subflow_ids().collect();
        let World { pool, rx_rings, tx_rings, counters, rng } = &mut host.world;
        let mut env = mimbox_stack::Env { pool, rx_rings, tx_rings, counters, rng };
        for id in ids {
            if host.conns.get(id).and_then(|conn| conn.next_deadline()).is_some_and(|at| at <= now) {
                host.outcome |= connection.on_timer(now, Some(id), &mut host.conns, &mut env);
            }
        }
        if connection.next_deadline().is_some_and(|at| at <= now) {
            host.outcome |= connection.on_timer(now, None, &mut host.conns, &mut env);
        }
        host.note_events();
    }

    fn next_timer(&mut self, side: usize) -> Option<Instant> {
        let host = &mut self.hosts[side];
        let connection = host.connection.as_ref()?;
        let ids: Vec<ConnId> = connection.subflow_ids().collect();
        let own = connection.next_deadline();
        ids.into_iter().filter_map(|id| host.conns.get(id)?.next_deadline()).chain(own).min()
    }

    /// Lets time run until `done`, at most `limit`; false when time was up.
    pub(crate) fn run(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut steps = 0_u64;
        let mut last = self.now;
        while self.now <= end {
            steps = if self.now == last { steps + 1 } else { 0 };
            last = self.now;
            assert!(steps < 10_000, "seed {}: time stands still at {:?}", self.seed, self.now);
            self.join();
            for side in 0..2 {
                self.transmit(side);
            }
            if done(self) {
                return true;
            }
            let arrival = self.flying.keys().next().map(|key| key.0);
            let timers = [self.next_timer(0), self.next_timer(1), Some(self.join_at)];
            let Some(next) = timers.into_iter().flatten().chain(arrival).min() else { return false };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, path, packet) = entry.remove();
                self.receive(to, path, packet);
            }
            for side in 0..2 {
                self.timers(side);
            }
        }
        false
    }

    /// True when both applications have all they wait for.
    pub(crate) fn finished(&self, sizes: [u64; 2]) -> bool {
        let whole = |side: usize| self.hosts[side].read == sizes[1 - side] && self.hosts[side].fin;
        whole(0) && whole(1)
    }

    pub(crate) fn all_closed(&self) -> bool {
        self.hosts.iter().all(|host| host.connection.as_ref().is_some_and(Connection::is_closed))
    }

    /// Takes everything apart and checks that no frame stayed behind.
    pub(crate) fn audit(&mut self) {
        for host in &mut self.hosts {
            if let Some(mut connection) = host.connection.take() {
                connection.release(&mut host.world.env());
            }
            for (id, ..) in std::mem::take(&mut host.templates) {
                host.conns.remove(id, &mut host.world.env());
            }
            assert_eq!(host.world.pool.in_use(), 0, "seed {}: frames leaked (seed of host {})", self.seed, host.seed);
        }
    }

    /// One line of how far both sides have come, for a run that did not end.
    pub(crate) fn status(&mut self) -> String {
        let mut text = format!("seed {} at {:?}:", self.seed, self.now);
        for side in 0..2 {
            let host = &mut self.hosts[side];
            text += &format!(
                "\n side {side}: read {} left {} fin {} {:?}",
                host.read, host.to_write, host.fin, host.outcome
            );
            let counted =
                host.world.counters.iter().filter(|(counter, n)| *n > 0 && counter.name().starts_with("mptcp"));
            text += &format!("\n  {:?}", counted.map(|(counter, n)| (counter.name(), n)).collect::<Vec<_>>());
            if let Some(connection) = &host.connection {
                text += &format!(
                    "\n  snd {:?} next {} of {} rcv nxt {:?} reorder {} deadlines {:?} mode {:?}",
                    (
                        connection.snd.una,
                        connection.snd.sent,
                        connection.snd.nxt,
                        connection.snd.edge,
                        connection.snd.fin
                    ),
                    connection.snd.next,
                    connection.snd.retained.len(),
                    (connection.rcv.nxt, connection.rcv.edge, connection.rcv.fin),
                    connection.rcv.reorder.len(),
                    connection.deadlines,
                    connection.mode,
                );
                for subflow in &connection.subflows {
                    let conn = host.conns.get(subflow.id);
                    text += &format!(
                        "\n   {:?} {:?} stale {:?} {:?}",
                        subflow.origin,
                        subflow.phase,
                        (subflow.stale, &subflow.mapper),
                        conn.map(|conn| (
                            conn.state(),
                            conn.cwnd(),
                            conn.in_flight_bytes(),
                            conn.unsent_bytes(),
                            conn.rto(),
                            conn.next_deadline(),
                            conn.peer_window(),
                            conn.ooo_frames()
                        ))
                    );
                }
            }
        }
        text
    }
}

/// What must hold of every segment that a connection sends.
fn check_outgoing(out: &Outgoing) {
    let mut len = out.upper.len().next_multiple_of(4);
    if out.timestamps.is_some() {
        len += if out.syn.is_some() { 10 } else { 12 };
    }
    assert!(len <= 40, "options exceed their space: {:?}", out.upper);
    let mut rest: &[u8] = &out.upper;
    while let Some(&option_len) = rest.get(1) {
        assert!(crate::parse(rest).is_ok(), "malformed option {rest:?}");
        rest = &rest[usize::from(option_len)..];
    }
}
