//! Explicit congestion notification (RFC 3168), as sender and as receiver.

use super::conn::{Conn, ConnFlags};
use crate::counters::Counter;
use crate::env::Env;
use crate::wire::{Ecn, SegmentIn, TcpFlags};

impl Conn<'_> {
    /// RFC 3168 §6.1.3: a mark is echoed on every acknowledgment until the sender says that it has slowed down.
    #[cold]
    pub(super) fn receive_ecn(&mut self, segment: &SegmentIn, env: &mut Env<'_>) {
        if segment.flags.contains(TcpFlags::CWR) {
            self.hot.flags.remove(ConnFlags::ECHO_MARK);
        }
        if segment.ecn == Ecn::Ce {
            env.counters.inc(Counter::TcpMarksIn);
            self.hot.flags |= ConnFlags::ECHO_MARK;
        }
    }

    /// RFC 3168 §6.1.2: an echoed mark reduces the window once a round trip, as a loss would.
    pub(super) fn on_congestion_echo(&mut self, segment: &SegmentIn, echo: bool, env: &mut Env<'_>) {
        let over = segment.ack.at_or_after(self.cold.ecn_end);
        if self.hot.flags.contains(ConnFlags::ECN_REDUCED) && over {
            self.hot.flags.remove(ConnFlags::ECN_REDUCED);
        }
        if !echo || self.hot.flags.contains(ConnFlags::ECN_REDUCED) {
            return;
        }
        if !self.in_recovery() {
            env.counters.inc(Counter::TcpMarkReductions);
            self.congestion();
            // There is nothing that an undo could find out about a mark.
            self.cold.undo = None;
            self.hot.cwnd = self.hot.cwnd.min(self.cold.cc.ssthresh);
            self.cold.ecn_end = self.hot.snd_nxt;
            self.hot.flags |= ConnFlags::ECN_REDUCED;
        }
        self.hot.flags |= ConnFlags::CWR_DUE;
    }

    /// What new data says about ECN; data that is sent again says nothing (RFC 3168 §6.1.5).
    #[inline]
    pub(super) fn mark_new_data(&mut self, flags: &mut TcpFlags) -> Ecn {
        if !self.hot.flags.contains(ConnFlags::ECN) {
            return Ecn::NotEct;
        }
        if self.hot.flags.contains(ConnFlags::CWR_DUE) {
            self.hot.flags.remove(ConnFlags::CWR_DUE);
            *flags |= TcpFlags::CWR;
        }
        Ecn::Ect0
    }
}
