//! Data-level retransmission: what only dead or silent subflows carry goes to another one, a bounded number of segments
//! a step (RFC 8684 §3.3.6).

use mimbox_stack::tcp::ConnTable;
use mimbox_stack::{Counter, Duration, Env, Instant};

use crate::connection::{Connection, DataFin, Mode, holders, set_holders};
use crate::fallback::Reason;
use crate::limits::{DATA_TIMEOUT_SEGMENTS, MAX_UNHEARD, OPPORTUNISTIC_SEGMENTS, REINJECT_SCAN};
use crate::scheduler::{Candidates, lowest_rtt};
use crate::subflow::{ResetWith, Subflow};

/// How far the search for data to send again has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reinjection {
    /// Index in the retained ring of the next entry to look at; `None` when there is nothing to look for.
    cursor: Option<usize>,
    /// Every holder bit that entries of the ring may have.
    pub(crate) used: u32,
    /// What only backup subflows carry is to go elsewhere as well.
    off_backup: bool,
}

impl Reinjection {
    /// A subflow died or went silent, or a new one is there: look at all that is in flight.
    pub(crate) fn start(&mut self) {
        self.cursor = Some(0);
    }

    /// The peer made a subflow a backup: look at all that is in flight, and take it off such subflows too.
    pub(crate) fn start_off_backup(&mut self) {
        self.cursor = Some(0);
        self.off_backup = true;
    }

    /// `gone` entries left the ring's front.
    pub(crate) fn shift(&mut self, gone: usize) {
        if let Some(cursor) = &mut self.cursor {
            *cursor = cursor.saturating_sub(gone);
        }
    }

    /// True while there is something to look for.
    pub(crate) const fn is_running(&self) -> bool {
        self.cursor.is_some()
    }
}

impl Connection {
    /// Nothing was acknowledged on subflow `index` for a retransmission timeout: it counts as silent until something is.
    pub(crate) fn on_silence(&mut self, index: usize) {
        if !matches!(self.mode, Mode::Multipath) {
            return;
        }
        let subflow = &mut self.subflows[index];
        // A handshake that needs several tries says nothing of data. Of a subflow that carries none nothing would ever be
        // acknowledged either: it would be left alone for good.
        if !subflow.stale && (subflow.takes_signals() || subflow.down) {
            subflow.stale = true;
            self.reinjection.start();
        }
    }

    /// Puts data that no working subflow carries on one that works.
    pub(crate) fn reinject(
        &mut self,
        now: Instant,
        candidates: &mut Candidates,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        let Some(start) = self.reinjection.cursor else { return };
        if !matches!(self.mode, Mode::Multipath) {
            self.reinjection.cursor = None;
            return;
        }
        let good = self.working();
        if good == 0 {
            return;
        }
        let end = self.snd.next.min(start + REINJECT_SCAN);
        for at in start..end {
            let Some(entry) = self.snd.retained.get(at) else { break };
            if holders(entry) & good != 0 {
                continue;
            }
            let Some(pick) = lowest_rtt(candidates, u32::from(entry.len), 0) else {
                self.reinjection.cursor = Some(at);
                return;
            };
            self.put_on(now, at, &mut candidates[pick], conns, env);
            env.counters.inc(Counter::MptcpReinjections);
            self.repeat();
        }
        self.reinjection.cursor = (end < self.snd.next).then_some(end);
        self.reinjection.off_backup &= self.reinjection.is_running();
        // The rest of a long ring is looked at in the next step.
        self.dirty |= self.reinjection.is_running();
    }

    /// Holder bits of the subflows that are thought to work, and that data may stay on.
    fn working(&self) -> u32 {
        let fit = |subflow: &&Subflow| subflow.takes_signals() && !subflow.stale;
        let bits = |backup: bool| {
            let which = self.subflows.iter().filter(fit).filter(|subflow| backup || !subflow.backup);
            which.fold(0, |bits, subflow| bits | subflow.holder)
        };
        let regular = if self.reinjection.off_backup { bits(false) } else { 0 };
        if regular != 0 { regular } else { bits(true) }
    }

    /// The peer's window lets nothing new out while `candidates` have room: the data at its left edge is what it waits
    /// for. Sends a little of it again on a faster subflow than the one that has it, and slows that one down, once in its
    /// round-trip time (Raiciu et al., "How Hard Can It Be?", NSDI 2012, §4.2: opportunistic retransmission with
    /// penalisation; RFC 8684 §3.3.6 leaves such retransmissions to the sender).
    pub(crate) fn unblock_window(
        &mut self,
        now: Instant,
        candidates: &mut Candidates,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if candidates.len() < 2 || !matches!(self.mode, Mode::Multipath) {
            return;
        }
        for at in 0..OPPORTUNISTIC_SEGMENTS.min(self.snd.next) {
            let Some(entry) = self.snd.retained.get(at) else { return };
            let (len, held_by) = (u32::from(entry.len), holders(entry));
            let waited = Duration::from_micros(u64::from((now.as_micros() as u32).wrapping_sub(entry.sent_us)));
            let Some(fast) = lowest_rtt(candidates, len, held_by) else { continue };
            let srtt = candidates[fast].srtt;
            // What is in better hands already, or in none that can be compared, is not sent twice; nor is what will have
            // arrived before a copy could.
            let mut slow = candidates.iter().filter(|candidate| candidate.holder & held_by != 0);
            let Some(slowest) = slow.clone().map(|candidate| candidate.index).next() else { continue };
            if !slow.all(|candidate| waited + srtt < candidate.srtt) {
                continue;
            }
            self.put_on(now, at, &mut candidates[fast], conns, env);
            self.repeat();
            env.counters.inc(Counter::MptcpOpportunistic);
            self.penalise(now, slowest, conns, env);
        }
    }

    /// Halves the congestion window of a subflow that holds the others up, at most once in its round-trip time.
    fn penalise(&mut self, now: Instant, index: usize, conns: &mut ConnTable, env: &mut Env<'_>) {
        let subflow = &mut self.subflows[index];
        let Some(mut conn) = conns.get(subflow.id) else { return };
        if now >= subflow.penalised_until {
            subflow.penalised_until = now + conn.srtt();
            conn.penalise();
            env.counters.inc(Counter::MptcpPenalties);
        }
    }

    /// Data that the subflows have delivered is not DATA_ACKed.
    ///
    /// RFC 8684 §3.3.6: this guards against middleboxes that acknowledge what they do not deliver, and against receivers
    /// that dropped what they had acknowledged on the subflow.
    pub(crate) fn on_data_timeout(&mut self, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.deadlines.data = Instant::MAX;
        if !matches!(self.mode, Mode::Multipath) {
            return;
        }
        env.counters.inc(Counter::MptcpDataTimeouts);
        self.data_tries = self.data_tries.saturating_add(1);
        if self.options_are_lost(conns) {
            return self.fall_back(0, Reason::NoOption, conns, env);
        }
        if self.is_unheard(conns) {
            env.counters.inc(Counter::MptcpDataUnheard);
            self.reset_all(ResetWith::FastClose, conns, env);
            return self.reset_by_peer(env);
        }
        let first_holders = self.snd.retained.front().map_or(0, holders);
        let busy = self.subflows.iter().any(|subflow| {
            let carries = subflow.holder & first_holders != 0 && subflow.takes_signals();
            carries && conns.get(subflow.id).is_some_and(|conn| !conn.all_acked())
        });
        // A subflow that is still at work on the first segment retransmits it by itself; not for ever, though, when another
        // could take it.
        let elsewhere = self.subflows.iter().any(|subflow| subflow.takes_data() && subflow.holder & first_holders == 0);
        if !busy || self.data_tries > 1 && elsewhere {
            let count = DATA_TIMEOUT_SEGMENTS.min(self.snd.next);
            for entry in self.snd.retained.iter_mut().take(count) {
                set_holders(entry, 0);
            }
            self.reinjection.start();
        }
        if self.snd.fin == DataFin::Sent {
            self.say_data_fin_everywhere(conns);
        }
    }

    /// True when everything has arrived on every subflow for so many timeouts, and the peer acknowledges nothing of it.
    fn is_unheard(&mut self, conns: &mut ConnTable) -> bool {
        let mut working = self.subflows.iter().filter(|subflow| subflow.takes_signals()).peekable();
        let there = working.peek().is_some();
        if there && working.all(|subflow| conns.get(subflow.id).is_some_and(|conn| conn.all_acked())) {
            self.unheard = self.unheard.saturating_add(1);
        }
        self.unheard >= MAX_UNHEARD
    }
}
