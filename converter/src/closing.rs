//! FIN, DATA_FIN, RST and FASTCLOSE carried across, and what remains when both sides are done.

pub(crate) mod time_wait;

use mimbox_mptcp::Event;
use mimbox_stack::tcp::State;
use mimbox_stack::wire::IpInfo;
use mimbox_stack::{ConnId, Counter, FlowKey, Instant, Outgoing, PortId, RxFrame, SegmentIn, TcpFlags};

use crate::closing::time_wait::{Rest, Resting, TimeWaitId};
use crate::conversion::{ConversionId, Side};
use crate::events::{By, ConversionEnd, Happening};
use crate::flows::FlowEntry;
use crate::path::{Origin, Path};
use crate::shard::Shard;

impl Shard {
    /// The peer on `side` has sent all it had: so have we towards the other side.
    pub(crate) fn carry_fin(&mut self, id: ConversionId, side: Side) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        conversion.progress_mut(side).fin_received = true;
        let across = conversion.progress_mut(side.other());
        if !across.shut_down {
            across.shut_down = true;
            conversion.half_mut(side.other()).shutdown(&mut self.conns);
        }
    }

    /// The peer on `side` is gone: the other side is told so by a reset.
    pub(crate) fn carry_reset(&mut self, id: ConversionId, side: Side, why: Counter, end: ConversionEnd) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        if conversion.aborted {
            return;
        }
        conversion.aborted = true;
        conversion.end = end;
        self.res.counters.inc(why);
        conversion.half_mut(side.other()).abort(&mut self.conns, &mut self.res.env());
        self.touch(id);
    }

    /// What an MPTCP half says beside its verbs' results: subflows that are over are removed.
    pub(crate) fn on_half_events(&mut self, now: Instant, id: ConversionId, side: Side) {
        loop {
            let Some(conversion) = self.conversions.get_mut(id) else { return };
            let Some(event) = conversion.half_mut(side).poll_event() else { return };
            match event {
                Event::SubflowEnded(conn, end) => {
                    self.note_subflow(now, id, conn, |flow, port| Happening::SubflowClosed { flow, port, end });
                    self.remove_connection(now, conn);
                }
                Event::SubflowEstablished(conn) => {
                    self.note_subflow(now, id, conn, |flow, port| Happening::SubflowJoined { flow, port });
                }
                Event::Priority { subflow, backup } => {
                    self.note_subflow(now, id, subflow, |flow, _| Happening::Priority { by: By::Client, flow, backup });
                }
                Event::AskedPriority { subflow, backup } => {
                    let asked = |flow, _| Happening::Priority { by: By::Box, flow, backup };
                    self.note_subflow(now, id, subflow, asked);
                }
                Event::Fallback(reason) => self.events.note(now, Some(id.number()), Happening::FellBack(reason)),
                Event::PeerAnnounced { id: addr_id, addr, port } => {
                    let announced = Happening::Announced { by: By::Client, id: addr_id, addr, port };
                    self.events.note(now, Some(id.number()), announced);
                }
                Event::PeerRemoved { id: addr_id } => {
                    let withdrawn = Happening::Withdrawn { by: By::Client, id: addr_id };
                    self.events.note(now, Some(id.number()), withdrawn);
                }
                // What ends a connection while it is polled is told by this event alone: no verb follows that could say it.
                Event::Closed => conversion.progress_mut(side).ended = true,
                Event::Established | Event::DataFin | Event::Reset => {}
            }
        }
    }

    /// Notes what happened to a subflow, while its connection is still there to say which it is.
    fn note_subflow(
        &mut self,
        now: Instant,
        id: ConversionId,
        conn: ConnId,
        what: impl FnOnce(FlowKey, Option<PortId>) -> Happening,
    ) {
        let port = self.paths.get(conn).map(|path| path.origin().port);
        if let Some(conn) = self.conns.get(conn) {
            self.events.note(now, Some(id.number()), what(*conn.flow(), port));
        }
    }

    /// Everything that the conversion may send has been sent: if it is over, nothing of it stays but TIME-WAIT records.
    #[inline]
    pub(crate) fn on_transmit_done(&mut self, now: Instant, id: ConversionId) {
        if self.conversions.get(id).is_some_and(|conversion| !conversion.goes_on()) {
            self.end_what_is_over(now, id);
        }
    }

    fn end_what_is_over(&mut self, now: Instant, id: ConversionId) {
        for side in Side::BOTH {
            self.on_half_events(now, id, side);
            // An end that came about while the half was polled is in no verb's result.
            if let Some(conversion) = self.conversions.get_mut(id)
                && conversion.half(side).is_closed()
            {
                conversion.progress_mut(side).ended = true;
            }
        }
        let Some(conversion) = self.conversions.get(id) else { return };
        let over = conversion.client_progress.ended && conversion.server_progress.ended;
        if conversion.aborted || over {
            if !conversion.aborted {
                self.res.counters.inc(Counter::ConversionsClosed);
            }
            self.remove_conversion(now, id);
        }
    }

    /// Forgets the conversion and gives back all it held.
    pub(crate) fn remove_conversion(&mut self, now: Instant, id: ConversionId) {
        let Some(mut conversion) = self.conversions.remove(id) else { return };
        if conversion.established {
            self.events.note(now, Some(id.number()), Happening::Closed(conversion.end));
        }
        for side in Side::BOTH {
            let half = conversion.half_mut(side);
            for conn in half.connections() {
                self.remove_connection(now, conn);
            }
            if let Some(token) = half.token() {
                self.tokens.remove(&token);
            }
            half.release(&mut self.res.env());
        }
    }

    /// Forgets one connection. One that the box closed first leaves a TIME-WAIT record; so does one that had another
    /// host's address, or the box would forward what still arrives of it, MPTCP options and all.
    pub(crate) fn remove_connection(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let flow = *conn.flow();
        let rest = if conn.state() == State::TimeWait {
            Some(Rest::TimeWait)
        } else {
            (!self.neighbours.is_own(flow.local)).then_some(Rest::Gone)
        };
        let rest = rest.map(|rest| (rest, conn.time_wait_record(now)));
        self.flows.unbind(&flow);
        if let (Some((rest, record)), Some(path)) = (rest, self.paths.get(id)) {
            let resting = Resting { rest, record, origin: path.origin() };
            self.rest(now, resting);
        }
        self.paths.remove(id);
        self.conns.remove(id, &mut self.res.env());
    }

    fn rest(&mut self, now: Instant, resting: Resting) {
        if self.time_waits.is_full()
            && let Some((evicted, flow)) = self.time_waits.evict()
        {
            self.res.counters.inc(Counter::TimeWaitEvicted);
            self.unbind_resting(evicted, &flow);
        }
        let flow = *resting.record.flow();
        let id = self.time_waits.insert(now, resting);
        self.flows.bind(flow, FlowEntry::TimeWait(id));
    }

    /// Records whose time is over go.
    pub(crate) fn expire_time_waits(&mut self, now: Instant) {
        while let Some((due, flow)) = self.time_waits.pop_due(now) {
            self.unbind_resting(due, &flow);
        }
    }

    /// Forgets the 4-tuple of a record, unless a new connection has it by now.
    fn unbind_resting(&mut self, id: TimeWaitId, flow: &FlowKey) {
        if matches!(self.flows.find(flow), Some(FlowEntry::TimeWait(bound)) if bound == id) {
            self.flows.unbind(flow);
        }
    }

    /// A segment for a connection that is over: a new connection's SYN takes its place, anything else is acknowledged in
    /// TIME-WAIT and refused after a reset.
    pub(crate) fn on_time_wait(
        &mut self,
        now: Instant,
        rx: RxFrame,
        info: &IpInfo,
        segment: &SegmentIn,
        id: TimeWaitId,
    ) {
        let Some(resting) = self.time_waits.get(id) else {
            return self.drop_frame(rx, Counter::DropNoConnection);
        };
        let (rest, new) = (resting.rest, resting.record.gives_way_to(segment));
        // RFC 6191 §2: a SYN that is newer by its timestamp or sequence number ends TIME-WAIT.
        if new {
            self.res.counters.inc(Counter::TcpTimeWaitReused);
            self.flows.unbind(&segment.flow);
            self.time_waits.remove(id);
            return self.on_unknown(now, rx, info, segment);
        }
        if rest == Rest::Gone {
            // A SYN that is no newer is an old one that was held up; a newer one will follow if it was none.
            return if segment.flags.contains(TcpFlags::SYN) {
                self.drop_frame(rx, Counter::DropNoConnection);
            } else {
                // Who sends a reset is not in doubt. Without an end its record would keep what a transparent box should
                // forward by then: the reset that a server waits for which did not hear the box's own.
                if !segment.flags.contains(TcpFlags::RST) {
                    self.time_waits.note_heard(id);
                }
                self.refuse(rx, info, segment, Counter::DropNoConnection);
            };
        }
        // RFC 9293 §3.10.7.4: a retransmitted FIN is acknowledged again; resets do not end TIME-WAIT (RFC 1337).
        let answer = resting.record.answer(now, segment);
        let origin = resting.origin;
        if answer.is_some() && segment.flags.contains(TcpFlags::FIN) {
            self.time_waits.note_heard(id);
        }
        self.res.pool.release(rx.frame);
        if let Some(out) = answer {
            self.send_once(&segment.flow, origin, out);
        }
    }

    /// Sends one segment that belongs to no established connection.
    pub(crate) fn send_once(&mut self, flow: &FlowKey, origin: Origin, mut out: Outgoing) {
        let mut path = Path::new(flow, origin);
        if let Some(frame) = path.emit(&mut self.res.pool, &mut self.res.counters, &mut out) {
            self.outbox.push_back(frame);
        }
    }

    /// Answers a segment with a reset, unless it is one itself (RFC 9293 §3.10.7.1).
    pub(crate) fn refuse(&mut self, rx: RxFrame, info: &IpInfo, segment: &SegmentIn, why: Counter) {
        let origin = Origin { port: rx.port, link: info.link.reply() };
        self.drop_frame(rx, why);
        if let Some(out) = Outgoing::reset_for(segment) {
            self.res.counters.inc(Counter::TcpResetsOut);
            self.send_once(&segment.flow, origin, out);
        }
    }
}
