//! What the ends do with a world: open all conversations, move data, acknowledge nothing new, close all.

use std::rc::Rc;
use std::time::Duration;

use anyhow::bail;
use mimbox_stack::{Counter, checksum};

use super::packet::{ACK, SYN, Says};
use super::talk::{self, Line, Maps, WINDOW};
use super::world::{BATCH, CLIENTS, Direction, Load, Order, VISIT, World};

/// Conversations that open or close at the same time.
const AT_ONCE: u32 = 32;
/// How far a late segment falls behind where there are enough to overtake it.
const LATE_BY: usize = 3;
/// One segment in so many is late.
const LATE_ONE_IN: u32 = 100;
/// Turns without anything happening after which a run counts as stuck.
const STUCK: u32 = 20_000;

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// How many things were done: segments delivered, conversations opened or closed, acknowledgments taken.
    pub(super) done: u64,
    /// Time that the box took.
    pub(super) spent: Duration,
    /// Segments that the box sent again.
    pub(super) retransmits: u64,
}

impl Tally {
    /// Nanoseconds for each thing.
    pub(super) fn nanos_each(&self) -> f64 {
        self.spent.as_nanos() as f64 / self.done.max(1) as f64
    }
}

impl World {
    /// From now on callgrind counts, and the clock starts anew.
    fn begin(&mut self, measured: bool) {
        self.measured = measured;
        self.watch.lap();
        self.delivered = 0;
    }

    /// Opens every conversation and every subflow.
    ///
    /// # Errors
    /// When the box does not answer.
    pub(super) fn open_all(&mut self, measured: bool) -> anyhow::Result<Tally> {
        self.begin(measured);
        let count = self.shape.conversions;
        let subflows = usize::from(self.shape.subflows);
        for line in 0..subflows {
            let mut next = 0;
            self.opened = 0;
            let mut quiet = 0;
            while self.opened < count {
                let before = self.opened;
                // The first one alone: it makes the box learn its next hop.
                let at_once = if self.opened == 0 { 1 } else { AT_ONCE };
                while next < count && next - self.opened < at_once {
                    self.send_client_syn(next, line);
                    next += 1;
                }
                self.turn();
                quiet = if self.opened == before { quiet + 1 } else { 0 };
                if quiet > STUCK {
                    let (found, counted) = (self.opened, self.counted());
                    bail!("only {} of {count} conversations opened on subflow {line}: {}", found, counted);
                }
            }
        }
        let spent = self.watch.lap();
        self.begin(false);
        Ok(Tally { done: u64::from(count), spent, retransmits: 0 })
    }

    fn send_client_syn(&mut self, index: u32, line: usize) {
        let now_ms = self.now_ms();
        let options = talk::client_syn(index, line, &self.talks[index as usize], self.shape.checksum, now_ms);
        let this = Line::starting(index.wrapping_mul(77) ^ 0x1357_0000);
        self.talks[index as usize].client[line] = this;
        let says = Says {
            src: talk::client_address(index, line),
            dst: talk::box_address(),
            seq: this.seq,
            ack: 0,
            flags: SYN,
            window: WINDOW,
            options: &options,
            payload: (&[], 0),
        };
        self.say(CLIENTS, &says);
    }

    /// Closes every conversation, the client first.
    ///
    /// # Errors
    /// When the box does not answer.
    pub(super) fn close_all(&mut self, measured: bool) -> anyhow::Result<Tally> {
        self.begin(measured);
        let count = self.shape.conversions;
        let (mut next, mut quiet) = (0, 0);
        self.over = 0;
        while self.over < count {
            let before = self.over;
            while next < count && next - self.over < AT_ONCE {
                let talk = &mut self.talks[next as usize];
                let maps =
                    Maps { dsn: talk.dsn, ssn: 0, len: 1, sum: self.shape.checksum.then_some(0), data_fin: true };
                let dss = talk::dss(talk.data_rcv, Some(maps));
                talk.dsn += 1;
                self.client_says(next, 0, dss.as_slice(), ACK, 0);
                next += 1;
            }
            self.turn();
            quiet = if self.over == before { quiet + 1 } else { 0 };
            if quiet > STUCK {
                let (found, counted) = (self.over, self.counted());
                bail!("only {} of {count} conversations closed: {}", found, counted);
            }
        }
        self.turn();
        let spent = self.watch.lap();
        self.begin(false);
        Ok(Tally { done: u64::from(count), spent, retransmits: 0 })
    }

    /// Moves `segments` segments.
    ///
    /// # Errors
    /// When nothing arrives any more.
    pub(super) fn move_data(&mut self, load: Load, segments: u64, measured: bool) -> anyhow::Result<Tally> {
        let len = usize::from(load.segment_bytes);
        if self.payload.len() != len {
            self.payload = (0..len).map(|n| (n * 31) as u8).collect::<Rc<[u8]>>();
            self.payload_sum = checksum::sum(&self.payload);
        }
        self.begin(measured);
        self.lossy = load.order == Order::Lossy;
        let before = self.counter(Counter::TcpRetransmits);
        let mut quiet = 0;
        while self.delivered < segments {
            let delivered = self.delivered;
            if self.shape.conversions == 1 {
                self.visit(0, load, BATCH);
            } else {
                for _ in 0..BATCH / VISIT {
                    let index = self.random(self.shape.conversions);
                    self.visit(index, load, VISIT);
                }
            }
            self.turn();
            quiet = if self.delivered == delivered { quiet + 1 } else { 0 };
            if quiet > STUCK {
                let (found, counted) = (self.delivered, self.counted());
                bail!("only {} of {segments} segments arrived ({load:?}): {}", found, counted);
            }
        }
        let tally = Tally { done: self.delivered, spent: self.watch.lap(), retransmits: 0 };
        self.begin(false);
        let retransmits = self.counter(Counter::TcpRetransmits) - before;
        Ok(Tally { retransmits, ..tally })
    }

    /// Lets what is on its way arrive.
    pub(super) fn settle(&mut self) {
        self.lossy = false;
        for _ in 0..2_000 {
            self.turn();
        }
    }

    /// One end of a conversation sends `count` segments, as many as the box's window takes.
    fn visit(&mut self, index: u32, load: Load, count: usize) {
        let late = match load.order {
            Order::Reordered => Some(if count > LATE_BY { LATE_BY } else { 1 }),
            _ => None,
        };
        let mut order = [0usize; BATCH];
        let order = &mut order[..count.min(BATCH)];
        for (n, place) in order.iter_mut().enumerate() {
            *place = n;
        }
        if let Some(late) = late {
            let mut at = 0;
            while at + late < count {
                // With fewer places to be late at, each is late the more often.
                let chance = LATE_ONE_IN * (count - late) as u32 / count as u32;
                if self.random(chance) == 0 {
                    order[at..=at + late].rotate_left(1);
                    at += late;
                }
                at += 1;
            }
        }
        match load.direction {
            Direction::Upload => self.upload(index, order),
            Direction::Download => self.download(index, order),
        }
    }

    fn upload(&mut self, index: u32, order: &[usize]) {
        let len = self.payload.len();
        let subflows = usize::from(self.shape.subflows);
        let first = if subflows > 1 && order.len() <= VISIT { self.random(2) as usize } else { 0 };
        let talk = &self.talks[index as usize];
        if talk.dsn + (len * order.len()) as u64 > talk.data_edge {
            return;
        }
        let start = *talk;
        // Where the segment with number `n` goes: two in a row on each subflow.
        let line_of = |n: usize| (first + n / VISIT) % subflows;
        for &n in order {
            let line = line_of(n);
            let ahead = (0..n).filter(|&m| line_of(m) == line).count() * len;
            let talk = &mut self.talks[index as usize];
            talk.client[line].seq = start.client[line].seq.wrapping_add(ahead as u32);
            let sum = self.shape.checksum.then_some(self.payload_sum);
            let dsn = start.dsn + (n * len) as u64;
            let maps = Maps { dsn, ssn: talk.client[line].ssn(), len: len as u16, sum, data_fin: false };
            let dss = talk::dss(talk.data_rcv, Some(maps));
            self.client_says(index, line, dss.as_slice(), ACK, len);
        }
        let talk = &mut self.talks[index as usize];
        talk.dsn = start.dsn + (order.len() * len) as u64;
        for line in 0..subflows {
            let sent = (0..order.len()).filter(|&n| line_of(n) == line).count() * len;
            talk.client[line].seq = start.client[line].seq.wrapping_add(sent as u32);
        }
    }

    fn download(&mut self, index: u32, order: &[usize]) {
        let len = self.payload.len();
        let talk = &self.talks[index as usize];
        let start = talk.server.seq;
        let end = start.wrapping_add((len * order.len()) as u32);
        if end.wrapping_sub(talk.server_edge) as i32 > 0 {
            return;
        }
        for &n in order {
            self.talks[index as usize].server.seq = start.wrapping_add((n * len) as u32);
            self.server_says(index, ACK, WINDOW, len);
        }
        self.talks[index as usize].server.seq = end;
    }

    /// Sends `count` acknowledgments that acknowledge nothing new: what is left is the cost of taking one.
    pub(super) fn bare_acks(&mut self, direction: Direction, count: u64, measured: bool) -> Tally {
        self.begin(measured);
        let mut done = 0;
        while done < count {
            for _ in 0..BATCH {
                let index = self.random(self.shape.conversions);
                match direction {
                    Direction::Upload => {
                        let dss = talk::dss(self.talks[index as usize].data_rcv, None);
                        self.client_says(index, 0, dss.as_slice(), ACK, 0);
                    }
                    Direction::Download => {
                        self.server_says(index, ACK, WINDOW - (done & 1) as u16, 0);
                    }
                }
                done += 1;
            }
            self.turn();
        }
        let tally = Tally { done, spent: self.watch.lap(), retransmits: 0 };
        self.begin(false);
        tally
    }
}
