//! What a TCP half and an MPTCP half have in common: the four verbs, and the few orders that a conversion gives.

use arrayvec::ArrayVec;
use bitflags::bitflags;
use mimbox_mptcp::{Connection, Event, HalfOutcome, MAX_SUBFLOWS};
use mimbox_stack::tcp::{Conn, ConnTable, Outcome};
use mimbox_stack::{ConnId, Duration, Env, FrameId, Instant, Outgoing, RxQueue, RxSegment, SegmentIn, TxSegment};

bitflags! {
    /// What a verb of a half brought about.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub(crate) struct HalfEvents: u8 {
        /// In-order data stands in the scratch queue.
        const DATA = 1;
        /// The peer has sent all its data: its FIN or DATA_FIN arrived in order.
        const FIN = 1 << 1;
        /// The peer has reset the connection.
        const RESET = 1 << 2;
        /// The handshake is complete.
        const ESTABLISHED = 1 << 3;
        /// Both directions have ended; nothing more will be sent.
        const CLOSED = 1 << 4;
        /// The peer has not answered for too long.
        const TIMED_OUT = 1 << 5;
        /// The segment was believed: its sender is the peer.
        const ACCEPTED = 1 << 6;
    }
}

const _: () = assert!(
    HalfEvents::all().bits() as u16 == HalfOutcome::all().difference(HalfOutcome::ACKED).bits()
        && HalfEvents::DATA.bits() as u16 == HalfOutcome::DATA.bits()
        && HalfEvents::FIN.bits() as u16 == HalfOutcome::FIN.bits()
        && HalfEvents::RESET.bits() as u16 == HalfOutcome::RESET.bits()
        && HalfEvents::ESTABLISHED.bits() as u16 == HalfOutcome::ESTABLISHED.bits()
        && HalfEvents::CLOSED.bits() as u16 == HalfOutcome::CLOSED.bits()
        && HalfEvents::TIMED_OUT.bits() as u16 == HalfOutcome::TIMED_OUT.bits()
        && HalfEvents::ACCEPTED.bits() as u16 == HalfOutcome::ACCEPTED.bits()
);

/// What segments of an open connection bring about.
const USUAL: Outcome = Outcome::ACCEPTED.union(Outcome::DATA).union(Outcome::ACKED).union(Outcome::WINDOW);

impl From<Outcome> for HalfEvents {
    fn from(outcome: Outcome) -> Self {
        let mut events = Self::empty();
        events.set(Self::DATA, outcome.contains(Outcome::DATA));
        events.set(Self::ACCEPTED, outcome.contains(Outcome::ACCEPTED));
        if !outcome.intersects(!USUAL) {
            return events;
        }
        events.set(Self::FIN, outcome.contains(Outcome::FIN));
        events.set(Self::RESET, outcome.contains(Outcome::RESET));
        events.set(Self::ESTABLISHED, outcome.contains(Outcome::ESTABLISHED));
        events.set(Self::CLOSED, outcome.contains(Outcome::CLOSED));
        events.set(Self::TIMED_OUT, outcome.contains(Outcome::TIMED_OUT));
        events
    }
}

impl From<HalfOutcome> for HalfEvents {
    fn from(outcome: HalfOutcome) -> Self {
        // The bits are the same, but for those that say nothing here.
        Self::from_bits_truncate(outcome.bits() as u8)
    }
}

/// One of the two connections of a conversion.
#[derive(Debug)]
pub(crate) enum Half {
    /// One TCP connection.
    Tcp(ConnId),
    /// A Multipath TCP connection of up to eight subflows.
    Mptcp(Box<Connection>),
}

impl Half {
    /// The TCP connections of the half.
    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnId> + use<> {
        let mut ids: ArrayVec<ConnId, MAX_SUBFLOWS> = ArrayVec::new();
        match self {
            Self::Tcp(id) => ids.push(*id),
            Self::Mptcp(mptcp) => ids.extend(mptcp.subflow_ids().take(MAX_SUBFLOWS)),
        }
        ids.into_iter()
    }

    /// Takes a segment of connection `id`; in-order payload goes to `out`.
    #[allow(clippy::too_many_arguments, reason = "the verb's own arguments beside the two borrowed tables")]
    pub(crate) fn on_segment(
        &mut self,
        now: Instant,
        id: ConnId,
        segment: &SegmentIn,
        frame: Option<FrameId>,
        conns: &mut ConnTable,
        out: &mut RxQueue,
        env: &mut Env<'_>,
    ) -> HalfEvents {
        match self {
            Self::Tcp(_) => match conns.get(id) {
                Some(mut conn) => conn.on_segment(now, segment, frame, out, env).into(),
                None => {
                    if let Some(frame) = frame {
                        env.pool.release(frame);
                    }
                    HalfEvents::empty()
                }
            },
            Self::Mptcp(mptcp) => mptcp.on_segment(now, id, segment, frame, conns, out, env).into(),
        }
    }

    /// Takes the payload of a data segment of connection `id` that follows another in a train.
    ///
    /// # Errors
    /// The frame, and nothing is changed, when [`Half::on_segment`] has to look at the segment.
    #[inline]
    pub(crate) fn on_train(
        &mut self,
        now: Instant,
        id: ConnId,
        segment: &SegmentIn,
        frame: FrameId,
        conns: &mut ConnTable,
    ) -> Result<RxSegment, FrameId> {
        match self {
            Self::Tcp(_) => match conns.get(id) {
                Some(mut conn) if conn.takes_train(segment) => {
                    conn.take_train(now, segment);
                    Ok(RxSegment::of(segment, frame))
                }
                _ => Err(frame),
            },
            Self::Mptcp(mptcp) => mptcp.on_train(now, id, segment, frame, conns),
        }
    }

    /// Runs what is due.
    pub(crate) fn on_timer(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) -> HalfEvents {
        match self {
            Self::Tcp(id) => match conns.get(*id) {
                Some(mut conn) if conn.next_deadline().is_some_and(|due| due <= now) => conn.on_timer(now, env).into(),
                _ => HalfEvents::empty(),
            },
            Self::Mptcp(mptcp) => {
                let mut events = HalfEvents::empty();
                let ids: ArrayVec<ConnId, MAX_SUBFLOWS> = mptcp.subflow_ids().take(MAX_SUBFLOWS).collect();
                for id in ids {
                    if conns.get(id).and_then(|conn| conn.next_deadline()).is_some_and(|due| due <= now) {
                        events |= mptcp.on_timer(now, Some(id), conns, env).into();
                    }
                }
                if mptcp.next_deadline().is_some_and(|due| due <= now) {
                    events |= mptcp.on_timer(now, None, conns, env).into();
                }
                events
            }
        }
    }

    /// Puts the next segment to send in `out`; the connection that sends it.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        out: &mut Outgoing,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Option<ConnId> {
        match self {
            Self::Tcp(id) => conns.get(*id)?.poll_transmit_into(now, out, env).then_some(*id),
            Self::Mptcp(mptcp) => mptcp.poll_transmit_into(now, out, conns, env),
        }
    }

    /// The next segment of a train: `out` is what connection `id` sent last, and nothing has happened since.
    #[inline]
    pub(crate) fn poll_train(
        &mut self,
        now: Instant,
        id: ConnId,
        out: &mut Outgoing,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> bool {
        match self {
            Self::Tcp(_) => conns.get(id).is_some_and(|mut conn| conn.poll_train(now, out, env)),
            Self::Mptcp(mptcp) => mptcp.poll_train(now, id, out, conns, env),
        }
    }

    /// When the half wants to be called again; [`Instant::MAX`] for never.
    #[inline]
    pub(crate) fn next_deadline(&self, conns: &mut ConnTable) -> Instant {
        match self {
            Self::Tcp(id) => conns.get(*id).map_or(Instant::MAX, |conn| conn.deadline()),
            Self::Mptcp(mptcp) => mptcp.deadline(conns),
        }
    }

    /// Queues payload to be sent.
    pub(crate) fn push(&mut self, segment: TxSegment, conns: &mut ConnTable, env: &mut Env<'_>) {
        match self {
            Self::Tcp(id) => match conns.get(*id) {
                Some(mut conn) => conn.push(segment, env),
                None => env.pool.release(segment.frame),
            },
            Self::Mptcp(mptcp) => mptcp.push(segment, env),
        }
    }

    /// Ends our direction once everything queued is sent: FIN, or DATA_FIN.
    pub(crate) fn shutdown(&mut self, conns: &mut ConnTable) {
        match self {
            Self::Tcp(id) => {
                if let Some(mut conn) = conns.get(*id) {
                    conn.shutdown();
                }
            }
            Self::Mptcp(mptcp) => mptcp.shutdown(),
        }
    }

    /// Resets the connection: RST, or MP_FASTCLOSE and RST.
    pub(crate) fn abort(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        match self {
            Self::Tcp(id) => {
                if let Some(mut conn) = conns.get(*id) {
                    conn.abort(env);
                }
            }
            Self::Mptcp(mptcp) => mptcp.abort(conns, env),
        }
    }

    /// Lets a half that was held back answer its peer.
    pub(crate) fn unhold(&mut self, conns: &mut ConnTable) {
        if let Self::Tcp(id) = self
            && let Some(mut conn) = conns.get(*id)
        {
            conn.unhold();
        }
    }

    /// Says how many bytes beyond those already delivered the conversion takes now. True when the peer is to be told.
    #[inline]
    pub(crate) fn set_receive_space(&mut self, bytes: u32, conns: &mut ConnTable) -> bool {
        match self {
            Self::Tcp(id) => match conns.get(*id) {
                Some(mut conn) if conn.state().is_synchronized() => conn.set_receive_space(bytes),
                _ => false,
            },
            Self::Mptcp(mptcp) => mptcp.set_receive_space(bytes),
        }
    }

    /// True when it has something to send that nothing since it was last polled has given it.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Mptcp(mptcp) => mptcp.has_more(),
        }
    }

    /// Frames that wait to be sent or acknowledged.
    pub(crate) fn queued_frames(&self, conns: &mut ConnTable) -> u32 {
        match self {
            Self::Tcp(id) => conns.get(*id).map_or(0, |conn| conn.queued_frames()),
            Self::Mptcp(mptcp) => mptcp.queued_frames(),
        }
    }

    /// True when [`Half::poll_event`] has something to say.
    pub(crate) fn has_event(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Mptcp(mptcp) => mptcp.has_event(),
        }
    }

    /// Bytes that the peer has acknowledged, modulo 2^32, counted from anywhere.
    pub(crate) fn delivered(&self, conns: &mut ConnTable) -> u32 {
        match self {
            Self::Tcp(id) => conns.get(*id).map_or(0, |conn| conn.bytes_acked() as u32),
            Self::Mptcp(mptcp) => mptcp.data_acknowledged() as u32,
        }
    }

    /// How long what is sent takes to be acknowledged, by the slowest of the half's connections.
    pub(crate) fn srtt(&self, conns: &mut ConnTable) -> Duration {
        self.slowest(conns, |conn| conn.srtt())
    }

    /// How long the peer takes to answer an acknowledgment with data, by the slowest of the half's connections.
    pub(crate) fn receiver_rtt(&self, conns: &mut ConnTable) -> Duration {
        self.slowest(conns, |conn| conn.receiver_rtt())
    }

    /// The shift of the windows that the half shows its peer (RFC 7323 §2.2); all its connections offer the same.
    pub(crate) fn receive_scale(&self, conns: &mut ConnTable) -> u8 {
        self.connections().filter_map(|id| conns.get(id).map(|conn| conn.receive_scale())).max().unwrap_or_default()
    }

    fn slowest(&self, conns: &mut ConnTable, rtt: impl Fn(&Conn<'_>) -> Duration) -> Duration {
        self.connections().filter_map(|id| conns.get(id).map(|conn| rtt(&conn))).max().unwrap_or_default()
    }

    /// Shows every frame that the half holds, one that stands in several places several times.
    pub(crate) fn frames(&self, conns: &mut ConnTable, visit: &mut dyn FnMut(&FrameId)) {
        for id in self.connections() {
            if let Some(conn) = conns.get(id) {
                conn.frames(visit);
            }
        }
        if let Self::Mptcp(mptcp) = self {
            mptcp.frames(visit);
        }
    }

    /// The next event of an MPTCP half.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Tcp(_) => None,
            Self::Mptcp(mptcp) => mptcp.poll_event(),
        }
    }

    /// True for an MPTCP half of which nothing is left. The end of a TCP half is in its verbs' results.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            Self::Mptcp(mptcp) => mptcp.is_closed(),
        }
    }

    /// What it speaks.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Mptcp(mptcp) if mptcp.has_fallen_back() => "fallback",
            Self::Mptcp(_) => "mptcp",
        }
    }

    /// The token of its MPTCP connection.
    pub(crate) fn token(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Mptcp(mptcp) => Some(mptcp.local_token()),
        }
    }

    /// Gives back every frame that the half holds beside its connections.
    pub(crate) fn release(&mut self, env: &mut Env<'_>) {
        if let Self::Mptcp(mptcp) = self {
            mptcp.release(env);
        }
    }
}
