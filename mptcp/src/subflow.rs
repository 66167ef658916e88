//! A TCP connection with its MPTCP state.

use mimbox_stack::tcp::ConnId;
use mimbox_stack::{FlowKey, Instant, SeqNum};

use crate::coupled::LossHistory;
use crate::event::SubflowEnd;
use crate::limits::SIGNALS_IN_A_ROW;
use crate::mapping::Mapper;
use crate::option::{MptcpOption, TcpReset};
use crate::relief::Burden;

/// How a subflow came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The first subflow, by MP_CAPABLE.
    Initial,
    /// By an MP_JOIN that the peer sent.
    JoinedByPeer {
        /// Our nonce.
        local_nonce: u32,
        /// The peer's nonce.
        remote_nonce: u32,
    },
    /// By an MP_JOIN that we sent.
    JoinedByUs {
        /// Our nonce.
        local_nonce: u32,
        /// The peer's nonce, from its SYN/ACK.
        remote_nonce: u32,
    },
}

/// How far a subflow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The handshake is under way.
    Opening,
    /// Our third ACK with its HMAC is sent, the fourth is not here (RFC 8684 §3.2): no data yet.
    AwaitingFourthAck,
    /// Data may flow.
    Open,
    /// A FIN was sent or received: no new data goes here.
    Closing,
    /// A reset is to be sent; nothing else matters.
    Aborted,
}

/// What goes on the RST of a subflow beside its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum ResetWith {
    /// Nothing.
    #[default]
    Nothing,
    /// MP_FASTCLOSE: the whole connection ends.
    FastClose,
    /// MP_FAIL with this data sequence number.
    Fail(u64),
}

/// One subflow.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) id: ConnId,
    pub(crate) flow: FlowKey,
    pub(crate) origin: Origin,
    pub(crate) phase: Phase,
    /// The bit that marks what this subflow holds in the retained ring.
    pub(crate) holder: u32,
    /// Sequence number that our relative subflow sequence numbers count from.
    pub(crate) snd_origin: SeqNum,
    pub(crate) mapper: Mapper,
    /// Where `snd_una` stood when it was last looked at; for fallback, which counts with subflow ACKs.
    pub(crate) last_una: SeqNum,
    pub(crate) local_addr_id: u8,
    pub(crate) remote_addr_id: u8,
    /// We asked the peer to use the subflow as backup.
    pub(crate) backup_wish: bool,
    /// The peer asked us to use it as backup.
    pub(crate) backup: bool,
    /// A retransmission timeout fired and nothing was acknowledged since.
    pub(crate) stale: bool,
    /// Its port has no link: it is stale whatever still arrives.
    pub(crate) down: bool,
    /// Until when its window is not halved again for holding up the others.
    pub(crate) penalised_until: Instant,
    /// A DSS with a DATA_ACK arrived on it: options pass both ways.
    pub(crate) confirmed: bool,
    /// The peer has acknowledged something without any MPTCP option since the last one came.
    pub(crate) bare_acks: bool,
    /// The third ACK of our MP_CAPABLE or MP_JOIN was sent at least once.
    pub(crate) third_ack_sent: bool,
    /// When the third ACK of our MP_JOIN is sent again.
    pub(crate) third_ack_due: Instant,
    pub(crate) third_ack_tries: u8,
    /// Options that wait for an ACK to carry them.
    pub(crate) signals: Vec<MptcpOption>,
    /// What it acknowledged last, and how many acknowledgments in a row said no more than that but for a signal.
    pub(crate) last_ack: SeqNum,
    pub(crate) signal_acks: u8,
    /// When the next of these may be sent; [`Instant::MAX`] while nothing waits for that.
    pub(crate) signals_due: Instant,
    /// The DATA_FIN is to be said on the next ACK.
    pub(crate) fin_due: bool,
    /// Its connection is over; what it has queued is still sent.
    pub(crate) ended: bool,
    /// How it ended.
    pub(crate) end: SubflowEnd,
    /// What coupled congestion control remembers of it.
    pub(crate) loss_history: LossHistory,
    /// What waits for it at data level.
    pub(crate) burden: Burden,
    pub(crate) reset: Option<TcpReset>,
    pub(crate) reset_with: ResetWith,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Subflow {
    pub(crate) fn new(id: ConnId, flow: FlowKey, origin: Origin, holder: u32) -> Self {
        Self {
            id,
            flow,
            origin,
            phase: Phase::Opening,
            holder,
            snd_origin: SeqNum(0),
            mapper: Mapper::default(),
            last_una: SeqNum(0),
            local_addr_id: 0,
            remote_addr_id: 0,
            backup_wish: false,
            backup: false,
            stale: false,
            down: false,
            penalised_until: Instant::ZERO,
            confirmed: false,
            bare_acks: false,
            third_ack_sent: false,
            third_ack_due: Instant::MAX,
            third_ack_tries: 0,
            signals: Vec::new(),
            last_ack: SeqNum(0),
            signal_acks: 0,
            signals_due: Instant::MAX,
            fin_due: false,
            ended: false,
            end: SubflowEnd::Closed,
            loss_history: LossHistory::default(),
            burden: Burden::default(),
            reset: None,
            reset_with: ResetWith::Nothing,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// True when new data may be put on it.
    pub(crate) fn takes_data(&self) -> bool {
        self.phase == Phase::Open
    }

    /// True when signals may be sent on it.
    pub(crate) fn takes_signals(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Closing)
    }

    /// True when a signal waits that may be sent on an acknowledgment of its own.
    pub(crate) fn may_signal(&self) -> bool {
        !self.signals.is_empty() && self.signal_acks < SIGNALS_IN_A_ROW
    }

    /// Signals may be sent on acknowledgments of their own again.
    pub(crate) fn end_signal_pause(&mut self) {
        self.signal_acks = 0;
        self.signals_due = Instant::MAX;
    }

    /// When what waits for a pause between signals may be sent; [`Instant::MAX`] when nothing does.
    pub(crate) fn resumes_at(&self) -> Instant {
        if self.signals.is_empty() { Instant::MAX } else { self.signals_due }
    }

    /// True when data was sent or received on it.
    pub(crate) fn has_carried(&self) -> bool {
        self.bytes_sent + self.bytes_received > 0
    }

    /// True for the subflow of the MP_CAPABLE handshake.
    pub(crate) fn is_initial(&self) -> bool {
        self.origin == Origin::Initial
    }
}

/// What `mimbox connections` shows of a subflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubflowStats {
    /// The TCP connection.
    pub id: ConnId,
    /// Its addresses.
    pub flow: FlowKey,
    /// Payload bytes sent, retransmissions on the subflow not counted.
    pub bytes_sent: u64,
    /// Payload bytes received in order on the subflow.
    pub bytes_received: u64,
    /// The peer wants it as backup.
    pub backup: bool,
    /// It has gone silent.
    pub stale: bool,
    /// Data may flow on it.
    pub open: bool,
}
