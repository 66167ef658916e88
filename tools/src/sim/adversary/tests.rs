use mimbox_stack::mem::Region;
use mimbox_stack::options::SynOptions;
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader, Parsed, Verify};
use mimbox_stack::{FramePool, Outgoing, PayloadOut, PoolConfig, SegmentIn, SeqNum, TcpFlags};

use super::*;

const FLOW: FlowKey = FlowKey {
    local: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
    remote: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
    local_port: 1000,
    remote_port: 80,
};

/// What a segment of a test has.
struct Made {
    flags: TcpFlags,
    seq: u32,
    ack: u32,
    payload: &'static [u8],
    upper: &'static [u8],
}

const ACK: Made = Made { flags: TcpFlags::ACK, seq: 1, ack: 1, payload: &[], upper: &[] };

impl Made {
    fn packet(&self, flow: &FlowKey) -> Packet {
        let mut pool = FramePool::new(Region::map(8, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
        let mut out = Outgoing::bare(SeqNum(self.seq), SeqNum(self.ack), self.flags);
        out.window = 1_000;
        out.upper.try_extend_from_slice(self.upper).expect("room");
        if self.flags.contains(TcpFlags::SYN) {
            out.syn = Some(SynOptions { mss: Some(1460), window_scale: Some(7), sack_permitted: true });
        }
        if !self.payload.is_empty() {
            let frame = pool.alloc().expect("a frame");
            pool.bytes_mut(&frame)[300..300 + self.payload.len()].copy_from_slice(self.payload);
            let (len, sum) = (self.payload.len() as u16, mimbox_stack::checksum::sum(self.payload));
            out.payload = Some(PayloadOut { frame, offset: 300, len, sum });
        }
        let (link, template) = (LinkHeader::default(), HeaderTemplate::new(flow, 64));
        let sent = wire::emit_tcp(&mut pool, &link, &template, out, 0, &mut Counters::default());
        let (frame, offset, len) = sent.expect("a frame");
        let start = usize::from(offset);
        pool.bytes(&frame)[start..start + usize::from(len)].to_vec()
    }
}

struct Stage {
    actor: Actor,
    rng: Rng,
    now: Instant,
    heard: Vec<(u8, Packet)>,
    out: Outbox,
    done: [u64; Mischief::ALL.len()],
}

impl Stage {
    fn new(mischief: Mischief) -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        Self {
            actor: Actor::new(mischief, now),
            rng: Rng::from_u64(1),
            now,
            heard: Vec::new(),
            out: Outbox::default(),
            done: [0; Mischief::ALL.len()],
        }
    }

    /// What goes out when the host says `made`.
    fn say(&mut self, made: &Made) -> Vec<SegmentIn> {
        let Self { actor, rng, now, out, done, .. } = self;
        actor.speak(*now, 0, made.packet(&FLOW), rng, out, done);
        self.sent()
    }

    /// What goes out when the other end says `made`; what the host hears of it is in `heard`.
    fn hear(&mut self, made: &Made) -> Vec<SegmentIn> {
        let back = FlowKey {
            local: FLOW.remote,
            remote: FLOW.local,
            local_port: FLOW.remote_port,
            remote_port: FLOW.local_port,
        };
        let Self { actor, rng, now, out, done, heard } = self;
        actor.hear(*now, 0, made.packet(&back), heard, rng, out, done);
        self.sent()
    }

    fn sent(&mut self) -> Vec<SegmentIn> {
        let sound = |(_, packet): (u8, Packet)| match wire::parse(&packet, 256, Verify::All) {
            Ok(Parsed::Tcp(_, segment)) => segment,
            other => panic!("no sound TCP segment: {other:?}"),
        };
        self.out.queue.drain(..).map(sound).collect()
    }
}

#[test]
fn a_window_shrinks_to_nothing_and_opens_again() {
    let mut stage = Stage::new(Mischief::ShrinksWindow);
    let windows: Vec<u16> = (0..8).flat_map(|_| stage.say(&ACK)).map(|segment| segment.window).collect();
    assert_eq!(windows, [500, 250, 125, 62, 31, 15, 0, 1_000]);
}

#[test]
fn a_window_closes_for_ten_minutes_once_data_has_come() {
    let mut stage = Stage::new(Mischief::ClosesWindow);
    assert_eq!(stage.say(&ACK)[0].window, 1_000);
    stage.hear(&Made { payload: b"data", ..ACK });
    assert_eq!(stage.say(&ACK)[0].window, 0);
    stage.now += Duration::from_secs(599);
    assert_eq!(stage.say(&ACK)[0].window, 0);
    stage.now += Duration::from_secs(1);
    assert_eq!(stage.say(&ACK)[0].window, 1_000);
    assert_eq!(stage.heard.len(), 1, "the host gets the data all the same");
}

#[test]
fn what_was_reported_is_thrown_away_and_taken_when_it_comes_again() {
    let mut stage = Stage::new(Mischief::Reneges);
    stage.say(&Made { flags: TcpFlags::SYN, ..ACK });
    stage.hear(&Made { flags: TcpFlags::SYN | TcpFlags::ACK, ..ACK });
    stage.say(&ACK);
    let mut reports = Vec::new();
    for seq in 1..200 {
        reports.extend(stage.hear(&Made { payload: b"x", seq, ..ACK }));
    }
    let report = reports.first().expect("an episode in two hundred segments");
    let block = report.options.sack.first().copied().expect("a block");
    assert_eq!(block.end, block.start + 1);
    let before = stage.heard.len();
    assert!(before < 200, "something was thrown away");
    stage.hear(&Made { payload: b"x", seq: block.start.0, ..ACK });
    assert_eq!(stage.heard.len(), before + 1);
}

#[test]
fn an_acknowledgment_is_split_byte_by_byte() {
    let mut stage = Stage::new(Mischief::SplitsAcks);
    stage.say(&Made { ack: 100, ..ACK });
    let acks: Vec<u32> = stage.say(&Made { ack: 110, ..ACK }).iter().map(|segment| segment.ack.0).collect();
    assert_eq!(acks, (101..=110).collect::<Vec<u32>>());
}

#[test]
fn acknowledgments_run_ahead_on_both_levels() {
    let mut stage = Stage::new(Mischief::AcksAhead);
    // A DSS with a 32-bit DATA_ACK of 7.
    let upper = &[MPTCP, 8, 0x20, 1, 0, 0, 0, 7];
    let said: Vec<SegmentIn> = (0..20).flat_map(|_| stage.say(&Made { ack: 100, upper, ..ACK })).collect();
    assert!(said.iter().any(|segment| segment.ack.after(SeqNum(100))));
    let ahead = |segment: &&SegmentIn| segment.options.mptcp_slices().any(|option| option[4..] != upper[4..]);
    assert!(said.iter().any(|segment| ahead(&segment)));
    stage.hear(&ACK);
    let Stage { actor, heard, out, done, .. } = &mut stage;
    actor.give_up(heard, out, done);
    assert!(stage.sent().iter().all(|segment| segment.flags.contains(TcpFlags::RST)));
    assert_eq!(stage.heard.len(), 2, "the host is reset as well");
}

#[test]
fn small_segments_are_asked_for() {
    let mut stage = Stage::new(Mischief::TinySegments);
    assert_eq!(stage.say(&Made { flags: TcpFlags::SYN, ..ACK })[0].options.syn.mss, Some(48));
}

#[test]
fn each_byte_goes_in_a_segment_of_its_own() {
    let mut stage = Stage::new(Mischief::SingleBytes);
    let flags = TcpFlags::ACK | TcpFlags::FIN;
    let sent = stage.say(&Made { payload: b"abc", seq: 7, flags, ..ACK });
    let seen: Vec<(u32, u16, bool)> =
        sent.iter().map(|part| (part.seq.0, part.payload_len, part.flags.contains(TcpFlags::FIN))).collect();
    assert_eq!(seen, [(7, 1, false), (8, 1, false), (9, 1, true)]);
}
