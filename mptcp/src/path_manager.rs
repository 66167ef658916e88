//! Addresses: what we announce and withdraw, and what the peer does (RFC 8684 §3.4, §3.3.8).

use std::net::IpAddr;

use arrayvec::ArrayVec;
use mimbox_stack::tcp::{ConnId, ConnTable};
use mimbox_stack::{Counter, Env, Instant};

use crate::connection::{Connection, Mode, ask_ack};
use crate::event::Event;
use crate::key::{Version, same_code};
use crate::limits::{ADD_ADDR_RETRIES, ADD_ADDR_TIMEOUT, MAX_ANNOUNCED};
use crate::option::{AddAddr, MptcpOption, ResetReason, Signals};
use crate::subflow::{ResetWith, Subflow};

/// An address of ours that the peer was told, or is to be told.
#[derive(Clone, Copy, Debug)]
struct Announced {
    addr_id: u8,
    addr: IpAddr,
    port: Option<u16>,
    echoed: bool,
    tries: u8,
    due: Instant,
}

/// What a connection knows of addresses.
#[derive(Debug)]
pub(crate) struct PathManager {
    ours: Vec<Announced>,
    /// Address IDs of ours that the peer is still to be told the end of: there was no subflow to say it on.
    leaving: ArrayVec<u8, MAX_ANNOUNCED>,
    /// The address of the first subflow, which has ID 0 without any announcement, was withdrawn.
    initial_withdrawn: bool,
    /// Address IDs of the peer that were reported to the owner.
    theirs: ArrayVec<u8, MAX_ANNOUNCED>,
    /// When something is due.
    pub(crate) deadline: Instant,
}

impl Default for PathManager {
    fn default() -> Self {
        Self {
            ours: Vec::new(),
            leaving: ArrayVec::new(),
            initial_withdrawn: false,
            theirs: ArrayVec::new(),
            deadline: Instant::MAX,
        }
    }
}

impl PathManager {
    /// The ID under which an address of ours was announced; 0, the first subflow's, when it was not.
    pub(crate) fn id_of(&self, addr: IpAddr, port: u16) -> u8 {
        let matches = |known: &&Announced| known.addr == addr && known.port.is_none_or(|known| known == port);
        self.ours.iter().find(matches).map_or(0, |known| known.addr_id)
    }

    pub(crate) fn clear(&mut self) {
        self.ours.clear();
        self.leaving.clear();
        self.deadline = Instant::MAX;
    }

    fn rearm(&mut self) {
        let waiting = self.ours.iter().filter(|known| !known.echoed && known.tries <= ADD_ADDR_RETRIES);
        self.deadline = waiting.map(|known| known.due).min().unwrap_or(Instant::MAX);
    }
}

impl Connection {
    /// Announces an address of ours; it is sent again until the peer echoes it, a few times at most. ID 0 is that of the
    /// first subflow's address: it is announced only after it was withdrawn (RFC 8684 §3.4.1). False when there is nothing
    /// to announce: the peer knows it, there are too many, or the connection has fallen back.
    pub fn announce(&mut self, addr_id: u8, addr: IpAddr, port: Option<u16>, env: &mut Env<'_>) -> bool {
        let known = self.paths.ours.iter().any(|known| known.addr_id == addr_id);
        if known || self.paths.ours.len() >= MAX_ANNOUNCED || matches!(self.mode, Mode::Plain(_)) {
            return false;
        }
        // What the peer has not heard yet would take the address away again.
        self.paths.leaving.retain(|leaving| *leaving != addr_id);
        self.forget_signals(|option| matches!(option, MptcpOption::RemoveAddr(ids) if ids.contains(&addr_id)));
        self.paths.initial_withdrawn &= addr_id != 0;
        env.counters.inc(Counter::MptcpAddAddrOut);
        self.paths.ours.push(Announced { addr_id, addr, port, echoed: false, tries: 0, due: Instant::ZERO });
        self.paths.deadline = Instant::ZERO;
        self.dirty = true;
        true
    }

    /// Withdraws an address of ours: the peer is told on every working subflow that does not use it, and those that do
    /// are reset. While there is none to tell it on, nothing happens to the others: one of them may come back.
    pub fn withdraw(&mut self, now: Instant, addr_id: u8, conns: &mut ConnTable, env: &mut Env<'_>) {
        self.paths.ours.retain(|known| known.addr_id != addr_id);
        self.paths.rearm();
        if !matches!(self.mode, Mode::Multipath) {
            return;
        }
        let version = self.version;
        self.forget_signals(|option| {
            let ours = |add: &AddAddr| add.addr_id == addr_id && (add.hmac.is_some() || version == Version::V0);
            matches!(option, MptcpOption::AddAddr(add) if ours(add))
        });
        self.paths.initial_withdrawn |= addr_id == 0;
        if !self.paths.leaving.contains(&addr_id) && self.paths.leaving.try_push(addr_id).is_err() {
            return;
        }
        self.dirty = true;
        self.say_withdrawals(now, conns, env);
    }

    /// Tells the peer of withdrawn addresses as soon as there is a subflow to do it on.
    pub(crate) fn say_withdrawals(&mut self, now: Instant, conns: &mut ConnTable, env: &mut Env<'_>) {
        if self.paths.leaving.is_empty() || self.over {
            return;
        }
        for addr_id in std::mem::take(&mut self.paths.leaving) {
            let works =
                |subflow: &Subflow| subflow.takes_signals() && !subflow.stale && subflow.local_addr_id != addr_id;
            if !self.subflows.iter().any(works) {
                // There were no more of them before.
                let _ = self.paths.leaving.try_push(addr_id);
                continue;
            }
            env.counters.inc(Counter::MptcpRemoveAddrOut);
            for index in 0..self.subflows.len() {
                if works(&self.subflows[index]) {
                    // Nothing repeats a REMOVE_ADDR, so that it goes wherever it may arrive.
                    self.signal(index, MptcpOption::RemoveAddr(std::iter::once(addr_id).collect()), conns);
                } else if self.subflows[index].local_addr_id == addr_id {
                    // RFC 8684 §3.4.2: sending REMOVE_ADDR should come with RSTs on the subflows concerned.
                    self.abort_subflow(now, index, Some(ResetReason::Prohibited), ResetWith::Nothing, conns, env);
                }
            }
        }
    }

    /// Takes back what waits to be said and matches.
    fn forget_signals(&mut self, matches: impl Fn(&MptcpOption) -> bool) {
        for subflow in &mut self.subflows {
            subflow.signals.retain(|option| !matches(option));
        }
    }

    /// Addresses of ours that the peer may open subflows to, with their IDs: that of the first subflow, and those announced.
    pub fn told_addresses(&self) -> impl Iterator<Item = (u8, IpAddr)> + '_ {
        let initial = (!self.paths.initial_withdrawn && !self.config.deny_join_initial_address)
            .then_some((0, self.local_address));
        initial.into_iter().chain(self.paths.ours.iter().map(|known| (known.addr_id, known.addr)))
    }

    /// True when the address of the first subflow was withdrawn.
    pub fn initial_is_withdrawn(&self) -> bool {
        self.paths.initial_withdrawn
    }

    /// The port by which subflow `id` goes has lost its link: the subflow gets no new data, and what it carries goes
    /// elsewhere at once, without waiting for a timeout (RFC 8684 §3.3.6).
    pub fn path_lost(&mut self, id: ConnId) {
        if let Some(index) = self.index_of(id) {
            self.subflows[index].down = true;
            self.on_silence(index);
            self.dirty = true;
        }
    }

    /// The link that subflow `id` goes by is there again. What it still carries is sent again at once, and its
    /// acknowledgment shows that the path works.
    pub fn path_back(&mut self, now: Instant, id: ConnId, conns: &mut ConnTable) {
        let Some(index) = self.index_of(id) else { return };
        let subflow = &mut self.subflows[index];
        if !std::mem::take(&mut subflow.down) {
            return;
        }
        if let Some(mut conn) = conns.get(id) {
            // Nothing would ever be acknowledged of a subflow that carries nothing.
            subflow.stale &= !conn.all_acked();
            conn.path_is_back(now);
        }
        self.dirty = true;
    }

    /// Asks the peer to use subflow `id` as backup only, or as any other from now on.
    pub fn set_backup(&mut self, id: ConnId, backup: bool, conns: &mut ConnTable, env: &mut Env<'_>) {
        let Some(index) = self.index_of(id) else { return };
        if self.subflows[index].backup_wish != backup && matches!(self.mode, Mode::Multipath) {
            self.subflows[index].backup_wish = backup;
            self.dirty = true;
            if !self.subflows[index].takes_signals() {
                // The MP_JOIN itself says it.
                return;
            }
            // An older wish that still waits would contradict it.
            self.subflows[index].signals.retain(|option| !matches!(option, MptcpOption::Prio { .. }));
            env.counters.inc(Counter::MptcpPrioOut);
            self.signal(index, MptcpOption::Prio { backup, addr_id: None }, conns);
        }
    }

    /// Puts `option` on the next ACKs of subflow `index`.
    fn signal(&mut self, index: usize, option: MptcpOption, conns: &mut ConnTable) {
        let subflow = &mut self.subflows[index];
        if !subflow.signals.contains(&option) {
            subflow.signals.push(option);
        }
        if subflow.may_signal() {
            ask_ack(conns.get(subflow.id));
        }
    }

    /// The working subflow with the lowest RTT, of those that do not use our address `not`.
    pub(crate) fn best_signaller(&self, conns: &mut ConnTable, not: Option<u8>) -> Option<usize> {
        let usable = self.subflows.iter().enumerate().filter(|(_, subflow)| {
            subflow.takes_signals() && not.is_none_or(|addr_id| subflow.local_addr_id != addr_id)
        });
        usable
            .min_by_key(|(_, subflow)| (subflow.stale, conns.get(subflow.id).map(|conn| conn.srtt())))
            .map(|(index, _)| index)
    }

    /// Sends the announcements that are due.
    pub(crate) fn announce_again(&mut self, now: Instant, conns: &mut ConnTable) {
        if !matches!(self.mode, Mode::Multipath) {
            // Before the keys are known nothing can be signed; the timer is armed anew once they are.
            self.paths.deadline = Instant::MAX;
            return;
        }
        let Some(index) = self.best_signaller(conns, None) else {
            self.paths.deadline = now + ADD_ADDR_TIMEOUT;
            return;
        };
        let keys = self.keys();
        let mut due: ArrayVec<MptcpOption, MAX_ANNOUNCED> = ArrayVec::new();
        for known in self.paths.ours.iter_mut().filter(|known| !known.echoed && known.due <= now) {
            if known.tries > ADD_ADDR_RETRIES {
                continue;
            }
            known.due = now + ADD_ADDR_TIMEOUT * (1 << known.tries);
            known.tries += 1;
            // RFC 6824 §3.4.1: version 0 does not sign.
            let signed = keys.version == Version::V1;
            let hmac = signed.then(|| keys.add_addr(known.addr_id, known.addr, known.port));
            due.push(MptcpOption::AddAddr(AddAddr {
                addr_id: known.addr_id,
                addr: known.addr,
                port: known.port,
                hmac,
                version: keys.version,
            }));
        }
        for option in due {
            self.signal(index, option, conns);
        }
        self.paths.rearm();
    }

    /// The keys are known: what was to be announced can be signed.
    pub(crate) fn arm_announcements(&mut self) {
        self.paths.rearm();
    }

    /// ADD_ADDR, REMOVE_ADDR and MP_PRIO of the peer.
    pub(crate) fn on_path_signals(
        &mut self,
        index: usize,
        signals: &Signals,
        conns: &mut ConnTable,
        env: &mut Env<'_>,
    ) {
        if let Some(add) = &signals.add_addr {
            self.on_add_addr(index, add, conns, env);
        }
        for &addr_id in signals.remove_addr.iter().flatten() {
            self.on_remove_addr(addr_id, env);
        }
        if let Some((backup, addr_id)) = signals.prio {
            self.on_prio(index, backup, addr_id, env);
        }
    }

    /// RFC 8684 §3.3.8: the peer changes what a subflow is for; in version 0 it can name another one by its address.
    fn on_prio(&mut self, index: usize, backup: bool, addr_id: Option<u8>, env: &mut Env<'_>) {
        if addr_id.is_some() && self.version == Version::V1 {
            return env.counters.inc(Counter::MptcpBadOption);
        }
        env.counters.inc(Counter::MptcpPrioIn);
        for at in 0..self.subflows.len() {
            let subflow = &mut self.subflows[at];
            let meant = addr_id.map_or(at == index, |id| subflow.remote_addr_id == id);
            if !meant || subflow.backup == backup {
                continue;
            }
            subflow.backup = backup;
            let subflow = subflow.id;
            self.event(Event::Priority { subflow, backup });
            if backup {
                self.reinjection.start_off_backup();
            }
        }
        self.dirty = true;
    }

    fn on_add_addr(&mut self, index: usize, add: &AddAddr, conns: &mut ConnTable, env: &mut Env<'_>) {
        if add.version != self.version {
            return env.counters.inc(Counter::MptcpBadOption);
        }
        if self.version == Version::V0 {
            // RFC 6824 §3.4.1: neither signed nor echoed.
            env.counters.inc(Counter::MptcpAddAddrIn);
            return self.report_address(add);
        }
        let Some(hmac) = add.hmac else {
            let ours = |known: &&mut Announced| known.addr_id == add.addr_id && known.addr == add.addr;
            if let Some(known) = self.paths.ours.iter_mut().find(ours)
                && !known.echoed
            {
                known.echoed = true;
                env.counters.inc(Counter::MptcpAddAddrEchoed);
                self.paths.rearm();
            }
            return;
        };
        let expected = self.keys().reversed().add_addr(add.addr_id, add.addr, add.port);
        if !same_code(&hmac.to_be_bytes(), &expected.to_be_bytes()) {
            // RFC 8684 §3.4.1: an announcement that cannot be verified is ignored in silence.
            env.counters.inc(Counter::MptcpAddAddrBadHmac);
            return;
        }
        env.counters.inc(Counter::MptcpAddAddrIn);
        // The same option goes back without HMAC.
        self.signal(index, MptcpOption::AddAddr(AddAddr { hmac: None, ..*add }), conns);
        self.report_address(add);
    }

    fn report_address(&mut self, add: &AddAddr) {
        if !self.paths.theirs.contains(&add.addr_id) && self.paths.theirs.try_push(add.addr_id).is_ok() {
            self.event(Event::PeerAnnounced { id: add.addr_id, addr: add.addr, port: add.port });
        }
    }

    /// RFC 8684 §3.4.2: a path that still answers is not removed by us. So its subflows count as silent until they do:
    /// they get no new data, what they carry goes elsewhere, and the peer's RST or the timeout ends them.
    fn on_remove_addr(&mut self, addr_id: u8, env: &mut Env<'_>) {
        env.counters.inc(Counter::MptcpRemoveAddrIn);
        let announced = self.paths.theirs.iter().position(|&known| known == addr_id);
        if let Some(at) = announced {
            self.paths.theirs.swap_remove(at);
        }
        // RFC 8684 §3.8: a request for an unknown address ID is ignored in silence.
        if announced.is_none() && self.subflows.iter().all(|subflow| subflow.remote_addr_id != addr_id) {
            return;
        }
        for index in 0..self.subflows.len() {
            if self.subflows[index].remote_addr_id == addr_id {
                self.on_silence(index);
            }
        }
        self.event(Event::PeerRemoved { id: addr_id });
        self.dirty = true;
    }
}
