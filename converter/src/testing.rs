//! A box in memory with an MPTCP client of two addresses and a server that answers SYNs, for unit tests.

use std::net::IpAddr;

use mimbox_dataplane::Engine as _;
use mimbox_mptcp::{ConnectParams, Connection, Event, MptcpConfig, Version};
use mimbox_stack::mem::Region;
use mimbox_stack::options::Timestamps;
use mimbox_stack::tcp::{ConnSetup, ConnTable, Offer, Opening, TcpConfig, TsOffer};
use mimbox_stack::wire::{LinkHeader, MacAddr, Parsed, Verify, parse};
use mimbox_stack::{
    ConnId, Counters, Duration, Env, FlowKey, FrameId, FramePool, Instant, Outgoing, PoolConfig, PortId, RingPool, Rng,
    RxFrame, RxQueue, RxSegment, SegmentIn, SeqNum, TcpFlags, TxFlags, TxSegment, checksum,
};

use crate::config::Config;
use crate::path::{Origin, Path};
use crate::run::neighbours;
use crate::shard::Shard;

const SERVER: [u8; 4] = [198, 51, 100, 9];
const CORE: PortId = PortId(2);

/// The client's address behind a port.
pub(crate) fn client(port: u8) -> IpAddr {
    [192, 0, 2 + port, 7].into()
}

/// The box's address on a port.
pub(crate) fn own(port: u8) -> IpAddr {
    [192, 0, 2 + port, 1].into()
}

fn box_link(port: PortId) -> LinkHeader {
    LinkHeader { dst: MacAddr([2, 0, 0, 0, 0, port.0]), src: MacAddr([2, 0, 0, 0, 1, port.0]), vlan: None }
}

/// The box and who talks to it.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) now: Instant,
    pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    counters: Counters,
    rng: Rng,
    conns: ConnTable,
    connection: Connection,
    flows: Vec<(ConnId, FlowKey, PortId)>,
    /// What the client was told.
    pub(crate) events: Vec<Event>,
    /// Ports whose link is cut.
    cut: Vec<PortId>,
    /// Payload that reached the server, and its connection's next number.
    pub(crate) server_read: u64,
    /// Segments of data that reached the server; it acknowledges each.
    pub(crate) server_acks: u64,
    /// What reaches the box in one millisecond comes in one batch, and everybody has timestamps.
    batches: bool,
    /// Each packet from the client reaches the box twice, behind another copy of the one before it on its port.
    pub(crate) repeats: bool,
    before: [Vec<u8>; 2],
    batch: Vec<RxFrame>,
    next_port: u16,
}

impl World {
    /// A box that tells its clients of its second address, with one connection that both ends know to be MPTCP.
    pub(crate) fn new() -> Self {
        Self::begin(false)
    }

    /// The same, with timestamps, and what reaches the box in one millisecond in one batch.
    pub(crate) fn in_batches() -> Self {
        Self::begin(true)
    }

    fn begin(batches: bool) -> Self {
        let mut text = String::new();
        for (port, name) in ["wan0", "wan1", "core0"].into_iter().enumerate() {
            let address = if port == 2 { "198.51.100.1".to_owned() } else { own(port as u8).to_string() };
            text += &format!(
                "[[port]]\nname = \"{name}\"\ninterface = \"{name}\"\nbackend = \"memory\"\n\
                 mac = \"02:00:00:00:00:{port:02}\"\naddresses = [\"{address}/24\"]\n"
            );
        }
        text += "[explicit]\nports = [\"wan0\", \"wan1\"]\nsource = [\"198.51.100.1\"]\nannounce = [\"192.0.3.1\"]\n";
        let config = Config::parse(&text, "box.toml").unwrap_or_else(|error| panic!("{error}"));
        let frames = |n| FramePool::new(Region::map(n, 2048).expect("memory"), PoolConfig { rx_reserve: 64 });
        let shard = Shard::new(&config, frames(4096), 1, neighbours(&config).expect("they agree"));
        let now = Instant::from_millis(1_000);
        let (mut pool, mut rx_rings, mut tx_rings) = (frames(1024), RingPool::default(), RingPool::default());
        let (mut counters, mut rng) = (Counters::default(), Rng::from_u64(3));
        let mut env = Env {
            pool: &mut pool,
            rx_rings: &mut rx_rings,
            tx_rings: &mut tx_rings,
            counters: &mut counters,
            rng: &mut rng,
        };
        let mut conns = ConnTable::with_capacity(16);
        let flow = FlowKey { local: client(0), remote: own(0), local_port: 40_000, remote_port: 80 };
        let conn = conns.insert(now, setup(flow, 100, batches), &mut env).expect("room");
        let params = ConnectParams {
            local_key: 77,
            conn,
            version: Version::V1,
            config: MptcpConfig::default(),
            local: flow.local,
            local_port: flow.local_port,
            remote: flow.remote,
            remote_port: flow.remote_port,
        };
        let connection = Connection::connect(now, params, &mut conns, &mut env);
        let mut world = Self {
            shard,
            now,
            pool,
            rx_rings,
            tx_rings,
            counters,
            rng,
            conns,
            connection,
            flows: vec![(conn, flow, PortId(0))],
            events: Vec::new(),
            cut: Vec::new(),
            server_read: 0,
            server_acks: 0,
            batches,
            repeats: false,
            before: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            next_port: 41_000,
        };
        world.run(Duration::from_millis(10));
        world.write(100);
        world.run(Duration::from_millis(300));
        assert!(world.events.contains(&Event::Established) && world.server_read == 100, "{:?}", world.events);
        world
    }

    fn env(&mut self) -> (&mut Connection, &mut ConnTable, Env<'_>) {
        let Self { pool, rx_rings, tx_rings, counters, rng, conns, connection, .. } = self;
        (connection, conns, Env { pool, rx_rings, tx_rings, counters, rng })
    }

    /// Opens a subflow from the client's address behind `port` to `remote`.
    pub(crate) fn join(&mut self, port: u8, remote: IpAddr) {
        self.next_port += 1;
        let flow = FlowKey { local: client(port), remote, local_port: self.next_port, remote_port: 80 };
        let (now, batches) = (self.now, self.batches);
        let (connection, conns, mut env) = self.env();
        let id = conns.insert(now, setup(flow, 5_000, batches), &mut env).expect("room");
        connection.open_subflow(now, id, port + 10, conns, &mut env).expect("the connection takes it");
        self.flows.push((id, flow, PortId(port)));
        self.run(Duration::from_millis(10));
    }

    /// The client writes so many zeros.
    pub(crate) fn write(&mut self, len: u16) {
        let (connection, _, mut env) = self.env();
        let frame = env.pool.alloc().expect("a frame");
        let bytes = vec![0; usize::from(len)];
        let sum = checksum::sum(&bytes);
        env.pool.bytes_mut(&frame)[256..256 + bytes.len()].copy_from_slice(&bytes);
        let (seq, flags) = (SeqNum(0), TxFlags::empty());
        let segment = TxSegment { dsn: 0, frame, seq, sent_us: 0, offset: 256, len, sum, flags, retransmits: 0 };
        connection.push(segment, &mut env);
    }

    /// The client's subflows, by their addresses.
    pub(crate) fn subflows(&self) -> Vec<(IpAddr, IpAddr)> {
        self.connection.subflow_stats().map(|subflow| (subflow.flow.local, subflow.flow.remote)).collect()
    }

    /// The client asks for its subflow number `nth` to be used as backup only, or as any other.
    pub(crate) fn set_backup(&mut self, nth: usize, backup: bool) {
        let (connection, conns, mut env) = self.env();
        let id = connection.subflow_ids().nth(nth).expect("a subflow");
        connection.set_backup(id, backup, conns, &mut env);
    }

    /// The client has nothing more to send.
    pub(crate) fn shutdown(&mut self) {
        self.connection.shutdown();
    }

    /// The client resets its connection.
    pub(crate) fn abort(&mut self) {
        let (connection, conns, mut env) = self.env();
        connection.abort(conns, &mut env);
    }

    /// Cuts or mends what is behind a port, and tells the box.
    pub(crate) fn link(&mut self, port: u8, up: bool) {
        self.cut.retain(|cut| *cut != PortId(port));
        if !up {
            self.cut.push(PortId(port));
        }
        self.shard.obey(self.now, mimbox_dataplane::Order::Link { port: PortId(port), up });
    }

    /// Lets everybody work for a time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.client_turn();
            let mut batch = std::mem::take(&mut self.batch);
            self.shard.on_frames(self.now, &mut batch);
            self.box_turn();
            self.now += Duration::from_millis(1);
            self.shard.on_timer(self.now);
        }
    }

    fn client_turn(&mut self) {
        let now = self.now;
        let (connection, conns, mut env) = self.env();
        let ids: Vec<ConnId> = connection.subflow_ids().collect();
        for id in ids {
            if conns.get(id).and_then(|conn| conn.next_deadline()).is_some_and(|due| due <= now) {
                connection.on_timer(now, Some(id), conns, &mut env);
            }
        }
        if connection.next_deadline().is_some_and(|due| due <= now) {
            connection.on_timer(now, None, conns, &mut env);
        }
        while let Some((id, mut out)) = {
            let (connection, conns, mut env) = self.env();
            connection.poll_transmit(now, conns, &mut env)
        } {
            let Some((_, flow, port)) = self.flows.iter().find(|known| known.0 == id).copied() else { continue };
            if out.flags.contains(TcpFlags::SYN) && self.flows[0].0 == id {
                out.upper.try_extend_from_slice(&[253, 8, 0x4d, 0x42, 198, 51, 100, 9]).expect("there is room");
            }
            self.inject(port, &flow, &mut out);
        }
        while let Some(event) = self.connection.poll_event() {
            self.events.push(event);
            if let Event::SubflowEnded(id, _) = event {
                let (_, conns, mut env) = self.env();
                conns.remove(id, &mut env);
                self.flows.retain(|known| known.0 != id);
            }
        }
    }

    /// Sends a segment to the box.
    fn inject(&mut self, port: PortId, flow: &FlowKey, out: &mut Outgoing) {
        let mut path = Path::new(flow, Origin { port, link: box_link(port) });
        let frame = path.build(&mut self.pool, &mut self.counters, out).expect("a frame");
        let start = usize::from(frame.offset);
        let packet = self.pool.bytes(&frame.frame)[start..start + usize::from(frame.len)].to_vec();
        self.pool.release(frame.frame);
        self.give(port, &packet);
    }

    fn give(&mut self, port: PortId, packet: &[u8]) {
        if self.cut.contains(&port) {
            return;
        }
        let mut arrive = |packet: &[u8]| {
            let frame = copy_in(self.shard.pool(), packet);
            self.batch.push(RxFrame { port, frame, offset: 256, len: packet.len() as u16 });
        };
        if let Some(before) = self.before.get_mut(usize::from(port.0)).filter(|_| self.repeats) {
            if !before.is_empty() {
                arrive(before);
            }
            arrive(packet);
            *before = packet.to_vec();
        }
        arrive(packet);
        if !self.batches {
            let mut batch = std::mem::take(&mut self.batch);
            self.shard.on_frames(self.now, &mut batch);
            self.box_turn();
        }
    }

    fn box_turn(&mut self) {
        while let Some(frame) = self.shard.poll_transmit(self.now) {
            let start = usize::from(frame.offset);
            let packet = self.shard.pool().bytes(&frame.frame)[start..start + usize::from(frame.len)].to_vec();
            self.shard.pool().tx_complete(frame.frame);
            if !self.cut.contains(&frame.port) {
                self.take(frame.port, &packet);
            }
        }
    }

    fn take(&mut self, port: PortId, packet: &[u8]) {
        match parse(packet, 256, Verify::All) {
            Ok(Parsed::Tcp(_, segment)) if port == CORE => self.serve(&segment),
            Ok(Parsed::Tcp(_, segment)) => self.hear(packet, &segment),
            Ok(Parsed::Arp(_)) if packet.get(38..42) == Some(&SERVER[..]) => {
                let mut answer = packet[..42].to_vec();
                answer.copy_within(22..32, 32);
                answer[21] = 2;
                answer[22..28].copy_from_slice(&[2, 0, 0, 0, 1, CORE.0]);
                answer[28..32].copy_from_slice(&SERVER);
                answer[..6].copy_from_slice(&[2, 0, 0, 0, 0, CORE.0]);
                answer[6..12].copy_from_slice(&[2, 0, 0, 0, 1, CORE.0]);
                self.give(CORE, &answer);
            }
            _ => {}
        }
    }

    /// The server: takes everything and says nothing but that it has; its FIN answers the client's.
    fn serve(&mut self, segment: &SegmentIn) {
        self.server_read += u64::from(segment.payload_len);
        let begins_or_ends = segment.flags & (TcpFlags::SYN | TcpFlags::FIN);
        if begins_or_ends.is_empty() && segment.payload_len == 0 {
            return;
        }
        let syn = begins_or_ends.contains(TcpFlags::SYN);
        self.server_acks += u64::from(!syn);
        let flags = begins_or_ends | TcpFlags::ACK;
        let seq = SeqNum(if syn { 9_000 } else { 9_001 });
        let ack = segment.seq + (u32::from(!begins_or_ends.is_empty()) + u32::from(segment.payload_len));
        let mut out = Outgoing { window: 60_000, ..Outgoing::bare(seq, ack, flags) };
        if self.batches {
            let (value, echo) = (self.now.as_millis() as u32, segment.options.timestamps.map_or(0, |ts| ts.value));
            out.timestamps = Some(Timestamps { value, echo });
        }
        self.inject(CORE, &segment.flow, &mut out);
    }

    /// The client takes a packet.
    fn hear(&mut self, packet: &[u8], segment: &SegmentIn) {
        let Some((id, ..)) = self.flows.iter().find(|known| known.1 == segment.flow).copied() else { return };
        let now = self.now;
        let (connection, conns, mut env) = self.env();
        let frame = (segment.payload_len > 0).then(|| copy_in(env.pool, packet));
        let mut out = RxQueue::new();
        connection.on_segment(now, id, segment, frame, conns, &mut out, &mut env);
        for rx in out.drain(..) {
            env.pool.release(rx.frame);
        }
    }
}

fn copy_in(pool: &mut FramePool, packet: &[u8]) -> FrameId {
    let frame = pool.alloc_control().expect("a frame");
    pool.bytes_mut(&frame)[256..256 + packet.len()].copy_from_slice(packet);
    frame
}

fn setup(flow: FlowKey, iss: u32, timestamps: bool) -> ConnSetup {
    let config = TcpConfig { upper_reserve: MptcpConfig::UPPER_RESERVE, ..TcpConfig::default() };
    let timestamps = timestamps.then_some(TsOffer { offset: 7 });
    let offer = Offer { timestamps, rcv_wnd: 60_000, ..Offer::default() };
    ConnSetup { owner: 0, flow, opening: Opening::Connect { iss: SeqNum(iss), offer }, config }
}
