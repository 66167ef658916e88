//! The short way of the segment that an open connection expects: one DSS, its mapping for the payload beside it, and the
//! payload next in order. It does what `take_accepted` does with such a segment, and nothing that this one has no need of.

use mimbox_stack::tcp::{Conn, ConnId, ConnTable, Outcome, State};
use mimbox_stack::{Env, FrameId, Instant, RxQueue, RxSegment, SegmentIn};

use super::{Connection, DataFin, Mode};
use crate::dsn::Width;
use crate::event::HalfOutcome;
use crate::mapping::Mapping;
use crate::option::{Dss, DssMapping, expected_dss};
use crate::subflow::Phase;

/// What an expected segment brings about on its subflow.
const EXPECTED: Outcome = Outcome::ACCEPTED.union(Outcome::ACKED).union(Outcome::DATA).union(Outcome::WINDOW);

impl Connection {
    /// The DSS of a segment that may go the short way: the connection is open in both directions, the subflow has taken
    /// the segment, and a DSS without DATA_FIN, with a DATA_ACK and with a checksum just when there should be one is the
    /// only MPTCP option.
    #[inline]
    pub(super) fn expects(&self, index: usize, segment: &SegmentIn, result: Outcome, conn: &Conn<'_>) -> Option<Dss> {
        let open = self.mode == Mode::Multipath
            && self.subflows[index].phase == Phase::Open
            && self.snd.fin == DataFin::NotYet
            && self.rcv.fin.is_none()
            && !self.over;
        let usual = result.contains(Outcome::ACCEPTED) && EXPECTED.contains(result);
        if !open || !usual || conn.state() != State::Established {
            return None;
        }
        let dss = expected_dss(segment)?;
        let mapped = dss.mapping.is_none_or(|mapping| mapping.len > 0 && mapping.checksum.is_some() == self.checksum);
        (dss.data_ack.is_some() && !dss.data_fin && mapped).then_some(dss)
    }

    /// Acts on a segment that [`Connection::expects`] has let through; what the subflow made of it stands in `out` behind
    /// the first `before`, and `window` is the peer's. False, and nothing is changed, when its payload is not next in order
    /// or not placed by its own mapping alone.
    #[allow(clippy::too_many_arguments, reason = "one step of on_segment")]
    #[inline]
    pub(super) fn on_expected(
        &mut self,
        index: usize,
        result: Outcome,
        (dss, window): (&Dss, u32),
        before: usize,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> bool {
        let placed = match (&dss.mapping, out.len() - before) {
            (Some(mapping), 1) => out.back_mut().is_some_and(|segment| self.place_next(index, mapping, segment)),
            (None, 0) => self.subflows[index].mapper.pending_frames() == 0,
            _ => false,
        };
        if !placed {
            return false;
        }
        self.outcome |= HalfOutcome::ACCEPTED;
        if result.contains(Outcome::ACKED) {
            self.subflows[index].stale = self.subflows[index].down;
            self.outcome |= HalfOutcome::ACKED;
            self.recouple(index, conns);
        }
        let subflow = &mut self.subflows[index];
        subflow.bare_acks = false;
        if let Some(ack) = dss.data_ack {
            self.on_confirmed(index, conns);
            self.on_data_ack(ack.expand(self.snd.una), window, false, env);
        }
        if let (Some(mapping), Some(segment)) = (&dss.mapping, out.back()) {
            self.note_placed(index, mapping, segment.len);
        }
        true
    }

    /// Takes the payload of a data segment of subflow `id` that follows another in a train: the one before it was accepted
    /// at the same time, and had the same acknowledgment number, window and timestamps.
    ///
    /// # Errors
    /// The frame, and nothing is changed, when the segment is not what this one expects: [`Connection::on_segment`] has to
    /// look at it.
    #[inline]
    pub fn on_train(
        &mut self,
        now: Instant,
        id: ConnId,
        segment: &SegmentIn,
        frame: FrameId,
        conns: &mut ConnTable,
    ) -> Result<RxSegment, FrameId> {
        let (Some(index), Some(mut conn)) = (self.index_of(id), conns.get(id)) else { return Err(frame) };
        let taken = Outcome::ACCEPTED | Outcome::DATA;
        let Some(dss) = self.expects(index, segment, taken, &conn).filter(|_| conn.takes_train(segment)) else {
            return Err(frame);
        };
        let (Some(ack), Some(mapping)) = (dss.data_ack, &dss.mapping) else { return Err(frame) };
        // Of the data level's windows there is nothing to learn either.
        let ack = ack.expand(self.snd.una);
        if ack.after(self.snd.una) || (ack + u64::from(conn.peer_window())).after(self.snd.edge) {
            return Err(frame);
        }
        let mut payload = RxSegment::of(segment, frame);
        if !self.place_next(index, mapping, &mut payload) {
            return Err(payload.frame);
        }
        conn.take_train(now, segment);
        self.note_placed(index, mapping, payload.len);
        self.dirty = true;
        self.outcome = HalfOutcome::empty();
        Ok(payload)
    }

    /// A segment's payload has got its place.
    #[inline]
    fn note_placed(&mut self, index: usize, mapping: &DssMapping, len: u16) {
        if mapping.dsn.width() == Width::Long {
            // RFC 8684 §3.3.2, as for every mapping.
            self.rcv.width = Width::Long;
        }
        let subflow = &mut self.subflows[index];
        subflow.bytes_received += u64::from(len);
        self.last_rx = Some(subflow.id);
        self.pass_by(len);
    }

    /// Gives payload that is next on its subflow its place in the data sequence space, if it is next there as well.
    #[inline]
    fn place_next(&mut self, index: usize, wire: &DssMapping, segment: &mut RxSegment) -> bool {
        let mapper = &mut self.subflows[index].mapper;
        let mapping = Mapping {
            dsn: wire.dsn.expand(self.rcv.nxt),
            start: mapper.absolute(wire.ssn),
            len: u32::from(wire.len),
            checksum: wire.checksum,
            fin: false,
        };
        let next = self.rcv.nxt == mapping.dsn + u64::from(segment.seq.distance_from(mapping.start));
        let end = self.rcv.nxt + u64::from(segment.len);
        let room = end.at_or_before(self.rcv.edge + u64::from(self.config.window_slack));
        next && room && self.rcv.reorder.is_empty() && mapper.map_next(&mapping, segment)
    }
}
