//! The send ring against a naive model: a list of segments with plain flags, everything recounted after each step.

use proptest::prelude::*;

use super::*;
use crate::mem::Region;
use crate::{Counters, Duration, FramePool, PoolConfig, RingPool, Rng, RxSegment};

/// What happens to a ring.
#[derive(Clone, Debug)]
enum Step {
    Push(u16),
    Send,
    /// Up to the n-th byte in flight.
    Acknowledge(u32),
    /// From and to the n-th byte in flight.
    Sack(u32, u32),
    Lose(usize),
    /// The first lost segment goes again.
    Resend,
    /// The n-th segment is cut after so many bytes.
    Split(usize, u16),
    Undo,
    Renege,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u16..200).prop_map(Step::Push),
        6 => Just(Step::Send),
        3 => (0_u32..600).prop_map(Step::Acknowledge),
        4 => (0_u32..900, 1_u32..300).prop_map(|(from, len)| Step::Sack(from, from + len)),
        4 => (0_usize..12).prop_map(Step::Lose),
        3 => Just(Step::Resend),
        2 => (0_usize..12, 1_u16..150).prop_map(|(index, len)| Step::Split(index, len)),
        1 => Just(Step::Undo),
        1 => Just(Step::Renege),
    ]
}

/// A segment of the model: where it is in the stream, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: u32,
    to: u32,
    sent: bool,
    sacked: bool,
    lost: bool,
    resent: bool,
}

#[derive(Default)]
struct Model {
    pieces: Vec<Piece>,
    una: u32,
    end: u32,
}

impl Model {
    fn sent_end(&self) -> u32 {
        self.pieces.iter().filter(|piece| piece.sent).map(|piece| piece.to).max().unwrap_or(self.una)
    }

    fn bytes(&self, which: impl Fn(&Piece) -> bool) -> u32 {
        self.pieces.iter().filter(|piece| which(piece)).map(|piece| piece.to - piece.from).sum()
    }

    fn sack(&mut self, from: u32, to: u32) {
        for piece in self.pieces.iter_mut().filter(|piece| piece.sent && piece.from >= from && piece.to <= to) {
            piece.sacked = true;
            piece.lost = false;
        }
    }

    fn acknowledge(&mut self, ack: u32) {
        self.una = self.una.max(ack);
        self.pieces.retain(|piece| piece.to > ack);
        for piece in &mut self.pieces {
            piece.from = piece.from.max(ack);
        }
    }

    fn split(&mut self, index: usize, len: u32) {
        let Some(piece) = self.pieces.get_mut(index) else { return };
        if piece.to - piece.from > len {
            let tail = Piece { from: piece.from + len, ..*piece };
            piece.to = tail.from;
            self.pieces.insert(index + 1, tail);
        }
    }
}

struct Bench {
    ring: SendRing,
    model: Model,
    iss: SeqNum,
    pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    counters: Counters,
    rng: Rng,
    now: Instant,
}

impl Bench {
    fn new(iss: u32) -> Self {
        let iss = SeqNum(iss);
        Self {
            ring: SendRing::new(iss, None),
            model: Model::default(),
            iss,
            pool: FramePool::new(Region::map(256, 2048).expect("memory"), PoolConfig { rx_reserve: 0 }),
            rx_rings: RingPool::default(),
            tx_rings: RingPool::default(),
            counters: Counters::default(),
            rng: Rng::from_u64(1),
            now: Instant::ZERO,
        }
    }

    fn on_ring<R>(&mut self, act: impl FnOnce(&mut SendRing, &mut Env<'_>) -> R) -> R {
        let Self { ring, pool, rx_rings, tx_rings, counters, rng, .. } = self;
        act(ring, &mut Env { pool, rx_rings, tx_rings, counters, rng })
    }

    fn freed(&self) -> Freed {
        Freed::new(self.now, 0, None)
    }

    fn apply(&mut self, step: &Step) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        match *step {
            Step::Push(len) => self.push(len),
            Step::Send => {
                self.ring.mark_sent(now, 0);
                if let Some(piece) = self.model.pieces.iter_mut().find(|piece| !piece.sent) {
                    piece.sent = true;
                }
            }
            Step::Acknowledge(nth) => {
                let ack = (self.model.una + nth).min(self.model.sent_end());
                let waiting = self.model.bytes(|piece| piece.sent && !piece.sacked);
                let (seq, mut freed) = (self.iss + ack, self.freed());
                self.on_ring(|ring, env| ring.acknowledge(seq, &mut freed, env));
                self.model.acknowledge(ack);
                let left = self.model.bytes(|piece| piece.sent && !piece.sacked);
                assert_eq!(freed.bytes, waiting - left, "what was not known to have arrived");
            }
            Step::Sack(from, to) => {
                let (una, end) = (self.model.una, self.model.sent_end());
                let (from, to) = ((una + from).min(end), (una + to).min(end));
                if from < to {
                    let before = self.model.bytes(|piece| piece.sacked);
                    let (block, mut freed) = (SackBlock { start: self.iss + from, end: self.iss + to }, self.freed());
                    self.ring.sack(&[block], &mut freed);
                    self.model.sack(from, to);
                    assert_eq!(freed.bytes, self.model.bytes(|piece| piece.sacked) - before);
                }
            }
            Step::Lose(index) => {
                let sent = self.ring.sent_len();
                if index < sent {
                    let piece = &mut self.model.pieces[index];
                    let news = !piece.sacked && !piece.lost;
                    piece.lost |= news;
                    assert_eq!(self.ring.mark_lost(index), news);
                }
            }
            Step::Resend => self.resend(),
            Step::Split(index, len) => {
                self.on_ring(|ring, env| ring.split(index, len, env));
                self.model.split(index, u32::from(len));
            }
            Step::Undo => {
                self.ring.unmark_lost();
                self.model.pieces.iter_mut().for_each(|piece| piece.lost = false);
            }
            Step::Renege => {
                self.ring.forget_sacks();
                self.model.pieces.iter_mut().for_each(|piece| piece.sacked = false);
            }
        }
    }

    fn push(&mut self, len: u16) {
        let Some(frame) = self.pool.alloc() else { return };
        let from = self.model.end;
        let room = &mut self.pool.bytes_mut(&frame)[300..300 + usize::from(len)];
        room.iter_mut().zip(from..).for_each(|(byte, place)| *byte = stream(place));
        let sum = checksum::sum(room);
        let segment = TxSegment {
            dsn: u64::from(from),
            frame,
            seq: self.iss + from,
            sent_us: 0,
            offset: 300,
            len,
            sum,
            flags: TxFlags::empty(),
            retransmits: 0,
        };
        self.on_ring(|ring, env| ring.push(segment, env));
        self.model.end += u32::from(len);
        let to = self.model.end;
        self.model.pieces.push(Piece { from, to, sent: false, sacked: false, lost: false, resent: false });
    }

    fn resend(&mut self) {
        let expected = self.model.pieces.iter().position(|piece| piece.lost);
        assert_eq!(self.ring.next_lost(), expected, "the first that is lost");
        if let Some(index) = expected {
            let now = self.now;
            self.on_ring(|ring, env| ring.mark_resent(index, now, 0, env));
            let piece = &mut self.model.pieces[index];
            piece.lost = false;
            piece.resent = true;
        }
    }

    /// The ring says of every segment what the model says, and its counts are the model's.
    fn check(&self) {
        let mut seen = Vec::new();
        for index in 0..self.ring.len() {
            let segment = self.ring.get(index).expect("within its length");
            let from = segment.seq.distance_from(self.iss);
            let flags = segment.flags;
            seen.push(Piece {
                from,
                to: from + u32::from(segment.len),
                sent: flags.contains(TxFlags::SENT),
                sacked: flags.contains(TxFlags::SACKED),
                lost: flags.contains(TxFlags::LOST),
                resent: flags.contains(TxFlags::RETRANSMITTED),
            });
            assert_eq!(segment.dsn, u64::from(from));
            let start = usize::from(segment.offset);
            let bytes = &self.pool.bytes(&segment.frame)[start..start + usize::from(segment.len)];
            assert!(bytes.iter().zip(from..).all(|(&byte, place)| byte == stream(place)), "the stream's bytes");
            if !flags.contains(TxFlags::RESUM) {
                // A part of one byte, 0, that was cut off has the other form of zero: both check the same (RFC 1071 §1).
                assert_eq!(segment.sum % 0xffff, checksum::sum(bytes) % 0xffff, "the cached sum");
            }
        }
        assert_eq!(seen, self.model.pieces);
        assert_eq!(self.ring.sent_len(), seen.iter().filter(|piece| piece.sent).count());
        assert_eq!(self.ring.unsent, self.model.bytes(|piece| !piece.sent));
        assert_eq!(self.ring.sacked, self.model.bytes(|piece| piece.sacked));
        assert_eq!(self.ring.sacked_segments as usize, seen.iter().filter(|piece| piece.sacked).count());
        assert_eq!(self.ring.lost, self.model.bytes(|piece| piece.lost));
    }
}

impl Bench {
    /// Single bytes are queued and sent at once, until so many stand in the ring.
    fn single_bytes(&mut self, count: u32) {
        for place in 0..count {
            let frame = self.pool.alloc().expect("a frame");
            let segment = TxSegment {
                dsn: 0,
                frame,
                seq: self.iss + place,
                sent_us: 0,
                offset: 300,
                len: 1,
                sum: 0,
                flags: TxFlags::empty(),
                retransmits: 0,
            };
            self.on_ring(|ring, env| ring.push_small(segment, 1_400, env));
            self.ring.mark_sent(self.now, 0);
        }
    }
}

#[test]
fn single_bytes_in_flight_are_put_together() {
    let mut bench = Bench::new(0);
    bench.single_bytes(20_000);
    assert!(bench.pool.in_use() < 150, "{} frames", bench.pool.in_use());
    bench.on_ring(|ring, env| ring.clear(env));
}

fn stream(place: u32) -> u8 {
    (place * 31 + place / 256) as u8
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_scoreboard_recounts_to_its_counters(
        iss in prop_oneof![Just(1_000_u32), Just(u32::MAX - 300)],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut bench = Bench::new(iss);
        for step in &steps {
            bench.apply(step);
            bench.check();
        }
        bench.on_ring(|ring, env| ring.clear(env));
        prop_assert_eq!(bench.pool.in_use(), 0);
    }
}
