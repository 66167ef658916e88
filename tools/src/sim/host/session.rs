//! One connection of a host: its protocol half, its application, and the paths that its packets take.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use mimbox_mptcp::Event;
use mimbox_stack::checksum;
use mimbox_stack::limits::PAYLOAD_OFFSET;
use mimbox_stack::tcp::{ConnId, ConnTable};
use mimbox_stack::{Duration, Env, FlowKey, Instant, RxQueue, RxSegment, TxFlags, TxSegment};

use super::half::{Half, Happened};
use crate::sim::draw::{between, chance};
use crate::sim::plan::{App, Ended, Wish};
use crate::sim::profile::HostOptions;

/// How often a slow reader looks whether it may read on.
const SLOW_READ: Duration = Duration::from_millis(5);
/// Payload of a write that is not cut short: one full segment with any options.
const FULL_WRITE: usize = 1400;

/// A path of a session's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(crate) id: ConnId,
    pub(crate) flow: FlowKey,
    pub(crate) port: u8,
}

/// One connection of a host.
#[derive(Debug)]
pub(crate) struct Session {
    /// The connection's number in the run.
    pub(crate) plan: usize,
    pub(crate) half: Half,
    pub(crate) app: App,
    pub(crate) lanes: Vec<Lane>,
    /// In-order payload that the application has not read.
    unread: VecDeque<RxSegment>,
    unread_bytes: u32,
    fin_seen: bool,
    both_closed: bool,
    /// A further subflow is opened at this time.
    pub(crate) join_at: Option<Instant>,
    /// The first address is given up at this time.
    pub(crate) leave_at: Option<Instant>,
    /// An address that the peer announced.
    pub(crate) announced: Option<(Ipv4Addr, Option<u16>)>,
    /// The deadline that the host's timer queue knows of.
    pub(crate) armed: Instant,
    /// The session stands in the host's list of those that have something to do.
    pub(crate) listed: bool,
    /// Nothing is left to be done but to take it apart.
    pub(crate) over: bool,
}

impl Session {
    pub(crate) fn new(plan: usize, app: App) -> Self {
        Self {
            plan,
            half: Half::None,
            app,
            lanes: Vec::new(),
            unread: VecDeque::new(),
            unread_bytes: 0,
            fin_seen: false,
            both_closed: false,
            join_at: None,
            leave_at: None,
            announced: None,
            armed: Instant::MAX,
            listed: false,
            over: false,
        }
    }

    /// Takes what a verb of the half brought about.
    pub(crate) fn note(&mut self, now: Instant, happened: Happened, delivered: &mut RxQueue) {
        for segment in delivered.drain(..) {
            self.unread_bytes += u32::from(segment.len);
            self.unread.push_back(segment);
        }
        if happened.established {
            self.app.opened.get_or_insert(now);
        }
        self.fin_seen |= happened.fin;
        if happened.reset || happened.timed_out {
            self.end(if self.app.opened.is_some() { Ended::Reset } else { Ended::Failed });
        }
    }

    /// Ends the application, unless it has ended before.
    pub(crate) fn end(&mut self, how: Ended) {
        self.app.ended.get_or_insert(how);
    }

    /// Lets the application read, write and close.
    pub(crate) fn serve(&mut self, now: Instant, options: &HostOptions, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.read(now, env);
        if self.app.ended.is_none() && self.app.opened.is_some() {
            self.write(options, conns, env);
        }
        match self.app.wish() {
            Wish::Nothing => {}
            Wish::Close => {
                self.app.closed = true;
                self.half.shutdown(conns);
            }
            Wish::Reset => {
                self.half.abort(conns, env);
                self.end(Ended::Reset);
            }
        }
        let room = options.receive_buffer.saturating_sub(self.unread_bytes);
        self.half.set_receive_space(room, conns);
    }

    /// The protocol is through with the connection. When both directions were closed, the application may still have
    /// to read what arrived; otherwise it was a reset.
    pub(crate) fn protocol_ended(&mut self) {
        self.both_closed = self.app.closed && self.fin_seen;
        if !self.both_closed {
            self.end(if self.app.opened.is_some() { Ended::Reset } else { Ended::Failed });
        } else if self.unread.is_empty() {
            self.end(Ended::Finished);
        }
    }

    fn read(&mut self, now: Instant, env: &mut Env<'_>) {
        if self.app.ended.is_some() {
            return self.release_unread(env);
        }
        while let Some(mut segment) = self.unread.pop_front() {
            let budget = self.app.may_have_read(now).saturating_sub(self.app.received);
            let take = u64::from(segment.len).min(budget) as u16;
            if take == 0 {
                self.unread.push_front(segment);
                break;
            }
            let start = usize::from(segment.offset);
            let bytes = env.pool.bytes(&segment.frame).get(start..start + usize::from(take)).unwrap_or(&[]);
            self.app.consume(bytes);
            self.unread_bytes -= u32::from(take);
            if take == segment.len {
                env.pool.release(segment.frame);
            } else {
                segment.offset += take;
                segment.len -= take;
                self.unread.push_front(segment);
            }
        }
        if self.fin_seen && self.unread.is_empty() {
            self.app.note_peer_closed();
            if self.both_closed {
                self.end(Ended::Finished);
            }
        }
    }

    fn write(&mut self, options: &HostOptions, conns: &mut ConnTable, env: &mut Env<'_>) {
        while self.app.left() > 0 && self.half.queued_frames(conns) < options.send_frames {
            let Some(frame) = env.pool.alloc() else { return };
            let most = if chance(env.rng, options.short_writes_ppm) {
                between(env.rng, 1, FULL_WRITE as u64) as usize
            } else {
                FULL_WRITE
            };
            let Some(room) = env.pool.bytes_mut(&frame).get_mut(PAYLOAD_OFFSET..PAYLOAD_OFFSET + most) else {
                env.pool.release(frame);
                return;
            };
            let wrote = self.app.produce(room);
            let sum = checksum::sum(&room[..wrote]);
            let mut segment = TxSegment::from_rx(RxSegment {
                dsn: 0,
                frame,
                seq: mimbox_stack::SeqNum(0),
                offset: PAYLOAD_OFFSET as u16,
                len: wrote as u16,
                sum,
                tag: 0,
            });
            if self.app.left() == 0 {
                segment.flags |= TxFlags::PUSH;
            }
            self.half.push(segment, conns, env);
        }
    }

    /// When the session wants to run again without input.
    pub(crate) fn next_deadline(&self, now: Instant, conns: &mut ConnTable) -> Option<Instant> {
        let reading = (!self.unread.is_empty()).then(|| now + SLOW_READ);
        [self.half.next_deadline(conns), reading, self.join_at, self.leave_at].into_iter().flatten().min()
    }

    /// The next event of an MPTCP half.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.half.poll_event()
    }

    /// Gives back what the application has not read.
    pub(crate) fn release_unread(&mut self, env: &mut Env<'_>) {
        for segment in self.unread.drain(..) {
            env.pool.release(segment.frame);
        }
        self.unread_bytes = 0;
    }
}
