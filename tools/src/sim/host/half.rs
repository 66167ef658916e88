//! A host's end of a connection: plain TCP, or MPTCP over several TCP connections.

use arrayvec::ArrayVec;
use mimbox_mptcp::{Connection, Event, HalfOutcome, MAX_SUBFLOWS};
use mimbox_stack::tcp::{ConnId, ConnTable, Outcome};
use mimbox_stack::{Env, FrameId, Instant, Outgoing, RxQueue, SegmentIn, TxSegment};

/// What a verb brought about, in the words that an application needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    pub(crate) established: bool,
    pub(crate) fin: bool,
    pub(crate) reset: bool,
    pub(crate) closed: bool,
    pub(crate) timed_out: bool,
}

impl Happened {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            established: self.established | other.established,
            fin: self.fin | other.fin,
            reset: self.reset | other.reset,
            closed: self.closed | other.closed,
            timed_out: self.timed_out | other.timed_out,
        }
    }
}

impl From<Outcome> for Happened {
    fn from(outcome: Outcome) -> Self {
        Self {
            established: outcome.contains(Outcome::ESTABLISHED),
            fin: outcome.contains(Outcome::FIN),
            reset: outcome.contains(Outcome::RESET),
            closed: outcome.contains(Outcome::CLOSED),
            timed_out: outcome.contains(Outcome::TIMED_OUT),
        }
    }
}

impl From<HalfOutcome> for Happened {
    fn from(outcome: HalfOutcome) -> Self {
        Self {
            established: outcome.contains(HalfOutcome::ESTABLISHED),
            fin: outcome.contains(HalfOutcome::FIN),
            reset: outcome.contains(HalfOutcome::RESET),
            closed: outcome.contains(HalfOutcome::CLOSED),
            timed_out: outcome.contains(HalfOutcome::TIMED_OUT),
        }
    }
}

/// The TCP connections of a half, by value.
pub(crate) type Ids = ArrayVec<ConnId, MAX_SUBFLOWS>;

/// One end of a connection.
#[derive(Debug)]
pub(crate) enum Half {
    /// Nothing yet, or nothing any more.
    None,
    /// One TCP connection.
    Tcp(ConnId),
    /// Multipath TCP.
    Mptcp(Box<Connection>),
}

impl Half {
    pub(crate) fn ids(&self) -> Ids {
        match self {
            Self::None => Ids::new(),
            Self::Tcp(id) => std::iter::once(*id).collect(),
            Self::Mptcp(connection) => connection.subflow_ids().take(MAX_SUBFLOWS).collect(),
        }
    }

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
    ) -> Happened {
        match self {
            Self::Mptcp(connection) => connection.on_segment(now, id, segment, frame, conns, out, env).into(),
            Self::Tcp(_) | Self::None => match conns.get(id) {
                Some(mut conn) => conn.on_segment(now, segment, frame, out, env).into(),
                None => {
                    if let Some(frame) = frame {
                        env.pool.release(frame);
                    }
                    Happened::default()
                }
            },
        }
    }

    pub(crate) fn on_timer(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) -> Happened {
        let mut happened = Happened::default();
        for id in self.ids() {
            let due = conns.get(id).and_then(|conn| conn.next_deadline()).is_some_and(|at| at <= now);
            if !due {
                continue;
            }
            happened = happened.and(match self {
                Self::Mptcp(connection) => connection.on_timer(now, Some(id), conns, env).into(),
                Self::Tcp(_) | Self::None => {
                    conns.get(id).map_or_else(Happened::default, |mut conn| conn.on_timer(now, env).into())
                }
            });
        }
        if let Self::Mptcp(connection) = self
            && connection.next_deadline().is_some_and(|at| at <= now)
        {
            happened = happened.and(connection.on_timer(now, None, conns, env).into());
        }
        happened
    }

    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) -> Option<(ConnId, Outgoing)> {
        match self {
            Self::None => None,
            Self::Tcp(id) => conns.get(*id)?.poll_transmit(now, env).map(|out| (*id, out)),
            Self::Mptcp(connection) => connection.poll_transmit(now, conns, env),
        }
    }

    pub(crate) fn next_deadline(&self, conns: &mut ConnTable) -> Option<Instant> {
        let own = match self {
            Self::Mptcp(connection) => connection.next_deadline(),
            Self::None | Self::Tcp(_) => None,
        };
        self.ids().into_iter().filter_map(|id| conns.get(id)?.next_deadline()).chain(own).min()
    }

    pub(crate) fn push(&mut self, segment: TxSegment, conns: &mut ConnTable, env: &mut Env<'_>) {
        match self {
            Self::Mptcp(connection) => connection.push(segment, env),
            Self::Tcp(id) => match conns.get(*id) {
                Some(mut conn) => conn.push(segment, env),
                None => env.pool.release(segment.frame),
            },
            Self::None => env.pool.release(segment.frame),
        }
    }

    pub(crate) fn shutdown(&mut self, conns: &mut ConnTable) {
        match self {
            Self::Mptcp(connection) => connection.shutdown(),
            Self::Tcp(id) => {
                if let Some(mut conn) = conns.get(*id) {
                    conn.shutdown();
                }
            }
            Self::None => {}
        }
    }

    pub(crate) fn abort(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        match self {
            Self::Mptcp(connection) => connection.abort(conns, env),
            Self::Tcp(id) => {
                if let Some(mut conn) = conns.get(*id) {
                    conn.abort(env);
                }
            }
            Self::None => {}
        }
    }

    pub(crate) fn set_receive_space(&mut self, bytes: u32, conns: &mut ConnTable) {
        match self {
            Self::Mptcp(connection) => {
                connection.set_receive_space(bytes);
            }
            Self::Tcp(id) => {
                if let Some(mut conn) = conns.get(*id) {
                    conn.set_receive_space(bytes);
                }
            }
            Self::None => {}
        }
    }

    pub(crate) fn queued_frames(&self, conns: &mut ConnTable) -> u32 {
        match self {
            Self::Mptcp(connection) => connection.queued_frames(),
            Self::Tcp(id) => conns.get(*id).map_or(0, |conn| conn.queued_frames()),
            Self::None => 0,
        }
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        match self {
            Self::Mptcp(connection) => connection.poll_event(),
            Self::Tcp(_) | Self::None => None,
        }
    }
}
