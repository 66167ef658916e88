//! The half-open stage: the client's SYN is carried to the server, and the server's answer decides (DESIGN: Opening).

pub(crate) mod join;
pub(crate) mod table;

use std::net::IpAddr;

use mimbox_mptcp::{AcceptParams, CapableSyn, Connection, MptcpConfig, capable_in_syn, key};
use mimbox_stack::tcp::{ConnSetup, Offer, Opening, SynSeen, TcpConfig, TsOffer};
use mimbox_stack::wire::{IcmpKind, IpInfo};
use mimbox_stack::{ConnId, Counter, FlowKey, Instant, Outgoing, RxFrame, SegmentIn, SeqNum, TcpFlags};

use crate::conversion::{Conversion, ConversionId, Mode, Progress, Side, Sides};
use crate::events::{ConversionEnd, Happening};
use crate::flows::FlowEntry;
use crate::half::Half;
use crate::mss;
use crate::opening::table::{HalfOpen, OpeningId, Refused};
use crate::path::{Origin, Path};
use crate::routing::Routed;
use crate::settings::MptcpTerms;
use crate::shard::{Shard, Timer};
use crate::window::Autotune;

/// Source ports that are tried before an opening is refused.
const PORT_ATTEMPTS: u32 = 512;

/// A client's SYN that passed every check.
pub(crate) struct Wanted {
    /// Box and client.
    pub client: FlowKey,
    /// Box and server; in transparent mode the client's own 4-tuple seen from the server.
    pub server: FlowKey,
    /// How it came.
    pub mode: Mode,
    /// Where from.
    pub origin: Origin,
}

impl Shard {
    /// Keeps a half-open record for a SYN, evicting the oldest when slots have run out.
    pub(crate) fn open(&mut self, now: Instant, wanted: &Wanted, segment: &SegmentIn) -> Result<OpeningId, Refused> {
        match self.openings.admit(wanted.client.remote) {
            Ok(()) => {}
            Err(Refused::Full) if wanted.mode == Mode::Explicit => {
                if let Some(oldest) = self.openings.oldest() {
                    self.res.counters.inc(Counter::OpeningsEvicted);
                    self.forget_opening(oldest);
                }
            }
            Err(refused) => return Err(refused),
        }
        let capable = self.capable(segment);
        let record = HalfOpen {
            client: wanted.client,
            server: wanted.server,
            mode: wanted.mode,
            origin: wanted.origin,
            syn: SynSeen::of(segment),
            capable,
            server_iss: self.server_iss(now, wanted, segment),
            offer: self.server_offer(now, wanted, segment, capable.is_some()),
            deadline: now + self.settings.half_open_timeout,
        };
        let deadline = record.deadline;
        let id = self.openings.insert(record);
        self.flows.bind(wanted.client, FlowEntry::Opening(id, Side::Client));
        self.flows.bind(wanted.server, FlowEntry::Opening(id, Side::Server));
        self.timers.schedule(deadline, Timer::Opening(id));
        self.res.counters.inc(Counter::OpeningsStarted);
        Ok(id)
    }

    /// The MP_CAPABLE of a SYN, if it has one and MPTCP is switched on.
    pub(crate) fn capable(&mut self, segment: &SegmentIn) -> Option<CapableSyn> {
        let capable = capable_in_syn(segment)?;
        self.res.counters.inc(Counter::MptcpCapableIn);
        self.settings.answers(&capable).then_some(capable)
    }

    fn server_iss(&self, now: Instant, wanted: &Wanted, segment: &SegmentIn) -> SeqNum {
        match wanted.mode {
            Mode::Explicit => self.isn.isn(now, &wanted.server),
            Mode::Transparent => segment.seq,
        }
    }

    /// What the server is offered: the box's own terms, or in transparent mode what stands in the client's SYN.
    fn server_offer(&self, now: Instant, wanted: &Wanted, segment: &SegmentIn, mptcp: bool) -> Offer {
        let client = mss::Side {
            mtu: self.settings.mtu(wanted.origin.port),
            address: wanted.client.remote,
            announced: segment.options.syn.mss,
            mptcp,
        };
        let server = mss::Side {
            mtu: self.mtu_towards(wanted.server.remote),
            address: wanted.server.remote,
            announced: None,
            mptcp: false,
        };
        let announced = mss::towards_server(&client, &server);
        match wanted.mode {
            Mode::Explicit => Offer {
                mss: announced,
                window_scale: Some(self.settings.window_scale),
                sack: self.settings.sack,
                timestamps: self
                    .settings
                    .timestamps
                    .then(|| TsOffer { offset: self.isn.timestamp_offset(&wanted.server) }),
                ecn: self.settings.ecn,
                rcv_wnd: self.settings.initial_window(announced),
            },
            Mode::Transparent => Offer {
                mss: segment.options.syn.mss.unwrap_or(announced).min(announced),
                window_scale: segment.options.syn.window_scale,
                sack: segment.options.syn.sack_permitted,
                // The server half goes on with the client's clock.
                timestamps: segment
                    .options
                    .timestamps
                    .map(|ts| TsOffer { offset: ts.value.wrapping_sub(now.as_millis() as u32) }),
                ecn: segment.flags.contains(TcpFlags::ECE | TcpFlags::CWR),
                rcv_wnd: u32::from(segment.window),
            },
        }
    }

    /// The MTU of the port towards `address`.
    fn mtu_towards(&self, address: IpAddr) -> u16 {
        self.neighbours.route(address).map_or(self.settings.default_mtu(), |route| self.settings.mtu(route.port))
    }

    /// A source address and port of the box towards `server`, on a 4-tuple that nothing uses.
    pub(crate) fn pick_source(&mut self, server: std::net::SocketAddr) -> Option<FlowKey> {
        let sources = &self.settings.sources;
        let usable = sources.iter().filter(|source| source.is_ipv4() == server.is_ipv4()).count() as u64;
        let span = u64::from(self.settings.source_ports.1 - self.settings.source_ports.0) + 1;
        for _ in 0..PORT_ATTEMPTS {
            let nth = self.res.rng.below(usable) as usize;
            let local = *sources.iter().filter(|source| source.is_ipv4() == server.is_ipv4()).nth(nth)?;
            let local_port = self.settings.source_ports.0 + self.res.rng.below(span) as u16;
            let flow = FlowKey { local, remote: server.ip(), local_port, remote_port: server.port() };
            if self.flows.find(&flow).is_none() {
                return Some(flow);
            }
        }
        None
    }

    /// Sends the record's SYN to the server, or waits for the next hop's link-layer address first.
    pub(crate) fn send_server_syn(&mut self, now: Instant, id: OpeningId) {
        let Some(record) = self.openings.get(id) else { return };
        let flow = record.server;
        let offer = record.offer;
        let out = offer.syn(record.server_iss, now);
        self.res.counters.inc(Counter::TcpSegmentsOut);
        if self.send_routed(now, &flow, out) == Routed::NoRoute {
            self.opening_unreachable(now, id, IcmpKind::NetUnreachable);
        }
    }

    /// The client of a half-open record says something more.
    pub(crate) fn on_client_again(
        &mut self,
        now: Instant,
        rx: RxFrame,
        info: &IpInfo,
        segment: &SegmentIn,
        id: OpeningId,
    ) {
        let Some(record) = self.openings.get(id) else { return self.drop_frame(rx, Counter::DropNoConnection) };
        let (mode, old_seq) = (record.mode, record.syn.seq);
        if segment.flags.contains(TcpFlags::RST) {
            // The client gave up before the server answered. Nothing was promised to the server.
            if segment.seq == old_seq || segment.seq == old_seq + 1 {
                self.forget_opening(id);
            }
            return self.pass_on_or_release(now, rx, info, mode);
        }
        if !segment.flags.contains(TcpFlags::SYN) || segment.flags.contains(TcpFlags::ACK) {
            return self.pass_on_or_release(now, rx, info, mode);
        }
        if mode == Mode::Transparent || segment.seq != old_seq {
            // The newest SYN decides everything: what it asks for, and whether it is MPTCP.
            self.forget_opening(id);
            return self.on_unknown(now, rx, info, segment);
        }
        let capable = self.capable(segment);
        let deadline = now + self.settings.half_open_timeout;
        if let Some(record) = self.openings.get_mut(id) {
            record.capable = capable;
            record.syn = SynSeen::of(segment);
            record.origin = Origin { port: rx.port, link: info.link.reply() };
            record.deadline = deadline;
        }
        self.res.pool.release(rx.frame);
        self.res.counters.inc(Counter::TcpSynRetransmits);
        self.send_server_syn(now, id);
    }

    fn pass_on_or_release(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, mode: Mode) {
        match mode {
            Mode::Explicit => self.res.pool.release(rx.frame),
            Mode::Transparent => self.forward(now, rx, info),
        }
    }

    /// The server answers the SYN of a half-open record.
    pub(crate) fn on_server_answer(
        &mut self,
        now: Instant,
        rx: RxFrame,
        info: &IpInfo,
        segment: &SegmentIn,
        id: OpeningId,
    ) {
        let Some(record) = self.openings.get(id) else { return self.drop_frame(rx, Counter::DropNoConnection) };
        let mode = record.mode;
        let acceptable = segment.flags.contains(TcpFlags::ACK) && segment.ack == record.server_iss + 1;
        if segment.flags.contains(TcpFlags::RST) {
            // RFC 9293 §3.10.7.3: in SYN-SENT a reset counts only when it acknowledges the SYN.
            if acceptable {
                self.on_server_refused(now, rx, info, id);
            } else {
                self.res.pool.release(rx.frame);
            }
            return;
        }
        if !acceptable {
            return match mode {
                Mode::Explicit if segment.flags.contains(TcpFlags::ACK) => {
                    self.refuse(rx, info, segment, Counter::DropNoConnection);
                }
                Mode::Explicit => self.res.pool.release(rx.frame),
                Mode::Transparent => self.forward(now, rx, info),
            };
        }
        if !segment.flags.contains(TcpFlags::SYN) {
            return self.pass_on_or_release(now, rx, info, mode);
        }
        if mode == Mode::Transparent && segment.options.mptcp_slices().next().is_some() {
            // Both ends speak MPTCP: they need no converter.
            self.res.counters.inc(Counter::ForwardedFlows);
            self.forget_opening(id);
            return self.forward(now, rx, info);
        }
        let origin = Origin { port: rx.port, link: info.link.reply() };
        self.res.pool.release(rx.frame);
        self.establish(now, id, segment, origin);
    }

    fn on_server_refused(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, id: OpeningId) {
        self.res.counters.inc(Counter::OpeningsRefused);
        let Some(record) = self.forget_opening(id) else { return self.res.pool.release(rx.frame) };
        match record.mode {
            Mode::Explicit => {
                self.res.pool.release(rx.frame);
                self.refuse_client(&record);
            }
            Mode::Transparent => self.forward(now, rx, info),
        }
    }

    /// Tells the client of a record that there is no connection to be had.
    pub(crate) fn refuse_client(&mut self, record: &HalfOpen) {
        self.res.counters.inc(Counter::TcpResetsOut);
        let out = Outgoing::bare(SeqNum(0), record.syn.seq + 1, TcpFlags::RST | TcpFlags::ACK);
        self.send_once(&record.client, record.origin, out);
    }

    /// The server is there: both halves are made, and the client gets its SYN+ACK.
    fn establish(&mut self, now: Instant, id: OpeningId, answer: &SegmentIn, origin: Origin) {
        let Some(record) = self.forget_opening(id) else { return };
        let full = self.conversions.len() >= self.settings.max_conversions;
        let server = if full { None } else { self.insert_server(now, &record, answer, origin) };
        let Some(server) = server else {
            self.res.counters.inc(Counter::ConversionsLimit);
            self.refuse_client(&record);
            let reset = Outgoing::bare(record.server_iss + 1, SeqNum(0), TcpFlags::RST);
            return self.send_once(&record.server, origin, reset);
        };
        let terms = record.capable.and_then(|_| self.settings.mptcp_terms(record.client.remote, &record.server));
        let Some(client) = self.insert_client(now, &record, answer, terms) else {
            self.res.counters.inc(Counter::ConversionsLimit);
            self.refuse_client(&record);
            let reset = Outgoing::bare(record.server_iss + 1, SeqNum(0), TcpFlags::RST);
            self.send_once(&record.server, origin, reset);
            return self.remove_connection(now, server);
        };
        let client_half = match (record.capable, terms) {
            (Some(capable), Some(terms)) => self.mptcp_half(now, &record, capable, terms.mptcp, client),
            _ => Half::Tcp(client),
        };
        let token = client_half.token();
        let conversion = self.conversions.insert(Conversion {
            client: client_half,
            server: Half::Tcp(server),
            client_progress: Progress::default(),
            server_progress: Progress::default(),
            mode: record.mode,
            established: false,
            client_offer: self.client_offer(&record, answer),
            client_terms: terms,
            client_ipv4: record.client.remote.is_ipv4(),
            aborted: false,
            end: ConversionEnd::Finished,
            ready: false,
            stirred: Sides::all(),
            armed: Instant::MAX,
            opened: now,
            client_window: Autotune::new(now),
            server_window: Autotune::new(now),
            segment_bytes: record.offer.mss.saturating_sub(mss::TIMESTAMPS).max(1),
        });
        if let Some(token) = token {
            self.tokens.insert(token, conversion);
        }
        let entry = |id, side| FlowEntry::Connection { id, conversion, side };
        self.flows.bind(record.client, entry(client, Side::Client));
        self.flows.bind(record.server, entry(server, Side::Server));
        self.touch(conversion);
    }

    /// The server half adopts the SYN that was sent for it, and says nothing until the client has proved itself.
    fn insert_server(&mut self, now: Instant, record: &HalfOpen, answer: &SegmentIn, origin: Origin) -> Option<ConnId> {
        let setup = ConnSetup {
            owner: 0,
            flow: record.server,
            opening: Opening::Adopt {
                iss: record.server_iss,
                peer: SynSeen::of(answer),
                offered: record.offer,
                hold: true,
            },
            config: self.settings.tcp,
        };
        let id = self.conns.insert(now, setup, &mut self.res.env())?;
        self.paths.insert(id, Path::new(&record.server, origin));
        Some(id)
    }

    fn insert_client(
        &mut self,
        now: Instant,
        record: &HalfOpen,
        answer: &SegmentIn,
        terms: Option<MptcpTerms>,
    ) -> Option<ConnId> {
        let offer = self.client_offer(record, answer);
        self.insert_accepted(now, record.client, record.syn, offer, record.origin, terms)
    }

    /// What the client's first connection is offered, and in its image every further subflow.
    fn client_offer(&self, record: &HalfOpen, answer: &SegmentIn) -> Offer {
        let client = mss::Side {
            mtu: self.settings.mtu(record.origin.port),
            address: record.client.remote,
            announced: record.syn.options.mss,
            mptcp: record.capable.is_some(),
        };
        let server = mss::Side {
            mtu: self.mtu_towards(record.server.remote),
            address: record.server.remote,
            announced: answer.options.syn.mss,
            mptcp: false,
        };
        let announced = mss::towards_client(&client, &server);
        // The client gets timestamps exactly when the server took them: so a full segment of one side is one of the other.
        let agreed = record.offer.timestamps.is_some() && answer.options.timestamps.is_some();
        Offer {
            mss: announced,
            window_scale: Some(self.settings.window_scale),
            sack: self.settings.sack,
            timestamps: agreed.then(|| TsOffer { offset: self.isn.timestamp_offset(&record.client) }),
            // In transparent mode the client's own wish went to the server, and is granted here as well.
            ecn: self.settings.ecn || record.mode == Mode::Transparent,
            rcv_wnd: self.settings.initial_window(announced),
        }
    }

    /// Makes the connection that answers `syn`; with `terms` it is a subflow.
    pub(crate) fn insert_accepted(
        &mut self,
        now: Instant,
        flow: FlowKey,
        syn: SynSeen,
        offer: Offer,
        origin: Origin,
        terms: Option<MptcpTerms>,
    ) -> Option<ConnId> {
        let config = match terms {
            Some(terms) => TcpConfig { upper_reserve: MptcpConfig::UPPER_RESERVE, cc: terms.cc, ..self.settings.tcp },
            None => self.settings.tcp,
        };
        let setup = ConnSetup {
            owner: 0,
            flow,
            opening: Opening::Accept { iss: self.isn.isn(now, &flow), syn, offer },
            config,
        };
        let id = self.conns.insert(now, setup, &mut self.res.env())?;
        self.paths.insert(id, Path::new(&flow, origin));
        Some(id)
    }

    fn mptcp_half(
        &mut self,
        now: Instant,
        record: &HalfOpen,
        capable: CapableSyn,
        mut config: MptcpConfig,
        conn: ConnId,
    ) -> Half {
        let mut local_key = self.res.rng.next_u64();
        while self.tokens.contains_key(&key::token(local_key, capable.version())) {
            local_key = self.res.rng.next_u64();
        }
        // The server's address is not the box's: joins must come to an address that the box announces (RFC 8684 §3.1).
        config.deny_join_initial_address = record.mode == Mode::Transparent;
        let params = AcceptParams {
            local_key,
            peer: capable,
            conn,
            config,
            local: record.client.local,
            local_port: record.client.local_port,
            remote: record.client.remote,
            remote_port: record.client.remote_port,
        };
        Half::Mptcp(Box::new(Connection::accept(now, params, &mut self.conns, &mut self.res.env())))
    }

    /// The client's third ACK is here: the server may be answered, and further addresses announced.
    pub(crate) fn on_client_established(&mut self, now: Instant, id: ConversionId) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        if conversion.established {
            return;
        }
        conversion.established = true;
        conversion.server.unhold(&mut self.conns);
        self.res.counters.inc(Counter::ConversionsOpened);
        self.note_opened(now, id);
        self.announce(now, id, None);
    }

    fn note_opened(&mut self, now: Instant, id: ConversionId) {
        let Some(conversion) = self.conversions.get(id) else { return };
        let mut flow = |side| {
            let conn = conversion.half(side).connections().next();
            conn.and_then(|conn| self.conns.get(conn).map(|conn| *conn.flow()))
        };
        if let (Some(client), Some(server)) = (flow(Side::Client), flow(Side::Server)) {
            let (mode, protocol) = (conversion.mode, conversion.client.protocol());
            let opened = Happening::Opened { mode, client, server, protocol };
            self.events.note(now, Some(id.number()), opened);
        }
    }

    /// A half-open record's time may be over.
    pub(crate) fn on_opening_timer(&mut self, now: Instant, id: OpeningId) {
        let Some(record) = self.openings.get(id) else { return };
        if record.deadline > now {
            let deadline = record.deadline;
            return self.timers.schedule(deadline, Timer::Opening(id));
        }
        // Nobody is told: the client's own SYN timer ends its attempt, as it would without the box.
        self.res.counters.inc(Counter::OpeningsTimedOut);
        self.forget_opening(id);
    }

    /// Takes a record and its two flows out.
    pub(crate) fn forget_opening(&mut self, id: OpeningId) -> Option<HalfOpen> {
        let record = self.openings.remove(id)?;
        self.flows.unbind(&record.client);
        self.flows.unbind(&record.server);
        Some(record)
    }
}

#[cfg(test)]
mod tests;
