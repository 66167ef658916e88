//! The engine of one worker: frames in, frames out, deadlines. Sans-IO; the same inputs give the same bytes.
//!
//! A client's data segment goes this way: [`Shard::on_frames`] parses it and finds its connection in the flow table;
//! the conversion's half takes it (`Half::on_segment`) and hands in-order payload out;
//! `splice::forward` pushes that on the other half's send ring; and once the batch is through,
//! [`Shard::poll_transmit`] polls every conversion that was touched for what its halves want sent.

use std::collections::{BTreeMap, VecDeque};

use mimbox_dataplane::neighbor::Neighbors;
use mimbox_dataplane::{Engine, Order};
use mimbox_stack::flow::HashKey;
use mimbox_stack::tcp::ConnTable;
use mimbox_stack::timer::TimerWheel;
use mimbox_stack::wire::{self, Following, HeaderImage, IpInfo, LinkHeader, Parsed, Verify};
use mimbox_stack::{
    ConnId, Counter, Counters, Env, FlowKey, FrameId, FramePool, Instant, Outgoing, PortId, RingPool, Rng, RxFrame,
    RxQueue, RxSegment, SegmentIn, TxFrame, TxSegment,
};

use crate::closing::time_wait::TimeWaitTable;
use crate::config::Config;
use crate::conversion::{ConversionId, ConversionTable, Side};
use crate::events::{ConversionEnd, EventRing};
use crate::flows::{FlowEntry, Flows, Member};
use crate::half::{Half, HalfEvents};
use crate::icmp::IcmpBudget;
use crate::isn::IsnGenerator;
use crate::links::LinkTable;
use crate::opening::table::{OpeningId, OpeningTable};
use crate::path::PathTable;
use crate::settings::Settings;
use crate::train::{Train, Trains};
use crate::{splice, window};

/// What an entry of the timing wheel names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// A conversion: one of its connections may be due.
    Conversion(ConversionId),
    /// A half-open record.
    Opening(OpeningId),
}

/// Frames, rings, counters and randomness: what the verbs below are lent.
#[derive(Debug)]
pub(crate) struct Resources {
    pub pool: FramePool,
    rx_rings: RingPool<RxSegment>,
    tx_rings: RingPool<TxSegment>,
    pub counters: Counters,
    pub rng: Rng,
}

impl Resources {
    /// The loan.
    pub(crate) fn env(&mut self) -> Env<'_> {
        let Self { pool, rx_rings, tx_rings, counters, rng } = self;
        Env { pool, rx_rings, tx_rings, counters, rng }
    }
}

/// Everything one worker owns.
#[derive(Debug)]
pub struct Shard {
    pub(crate) settings: Settings,
    pub(crate) res: Resources,
    pub(crate) conns: ConnTable,
    pub(crate) paths: PathTable,
    pub(crate) flows: Flows,
    /// Conversions whose client speaks MPTCP, by the box's token.
    pub(crate) tokens: BTreeMap<u32, ConversionId>,
    pub(crate) conversions: ConversionTable,
    pub(crate) openings: OpeningTable,
    pub(crate) time_waits: TimeWaitTable,
    pub(crate) timers: TimerWheel<Timer>,
    pub(crate) neighbours: Neighbors,
    /// Which ports have a link.
    pub(crate) links: LinkTable,
    /// What happened and nobody has read yet.
    pub(crate) events: EventRing,
    pub(crate) isn: IsnGenerator,
    /// Conversions that may have something to send, each at most once.
    pub(crate) ready: VecDeque<ConversionId>,
    /// True when the conversion at the front of `ready` has had its windows updated.
    prepared: bool,
    /// Its half that is being polled.
    polled: Side,
    /// The packets that came last, while a batch is taken; kept for its place between batches.
    trains: Option<Box<Trains>>,
    /// The segment that was polled last.
    outgoing: Outgoing,
    /// The connection that sent it, and when, if the next one may follow in a train: nothing but polling has happened since.
    sending: Option<(ConnId, Instant)>,
    /// The headers that it was sent with.
    image: HeaderImage,
    /// No new conversion is opened: the box is about to stop.
    pub(crate) draining: bool,
    /// Segments with an unfinished checksum, by port.
    pub(crate) checksum_partial: Vec<u64>,
    /// ICMP errors that may still be sent in this second.
    pub(crate) icmp_budget: IcmpBudget,
    /// Packets that belong to no established conversion: handshakes, resets, forwarded packets, ARP.
    pub(crate) outbox: VecDeque<TxFrame>,
    /// In-order payload on its way from one half to the other.
    pub(crate) scratch: RxQueue,
}

impl Shard {
    /// A shard over `pool`, configured by `config`; `seed` decides its keys, nonces and sequence numbers.
    pub fn new(config: &Config, pool: FramePool, seed: u64, neighbours: Neighbors) -> Self {
        let mut rng = Rng::from_u64(seed);
        let settings = Settings::new(config);
        Self {
            conns: ConnTable::with_capacity(settings.max_connections()),
            paths: PathTable::default(),
            flows: Flows::with_capacity(HashKey::new(rng.next_u64(), rng.next_u64()), 2 * settings.max_conversions),
            tokens: BTreeMap::new(),
            conversions: ConversionTable::default(),
            openings: OpeningTable::new(settings.half_open, settings.half_open_per_source),
            time_waits: TimeWaitTable::new(settings.time_wait_records),
            timers: TimerWheel::new(),
            neighbours,
            links: LinkTable::default(),
            events: EventRing::default(),
            isn: IsnGenerator::new(&mut rng),
            ready: VecDeque::new(),
            prepared: false,
            polled: Side::Server,
            trains: None,
            outgoing: Outgoing::blank(),
            sending: None,
            image: HeaderImage::default(),
            draining: false,
            checksum_partial: vec![0; config.ports.len()],
            icmp_budget: IcmpBudget::default(),
            outbox: VecDeque::new(),
            scratch: RxQueue::new(),
            res: Resources {
                pool,
                rx_rings: RingPool::default(),
                tx_rings: RingPool::default(),
                counters: Counters::default(),
                rng,
            },
            settings,
        }
    }

    /// The short way of a packet with the usual layout that belongs to a connection, and the shorter one of a packet that
    /// follows another of its connection.
    fn on_frame(&mut self, now: Instant, rx: RxFrame, trains: &mut Trains) {
        let start = usize::from(rx.offset);
        let whole = self.res.pool.bytes(&rx.frame).get(start..).unwrap_or_default();
        let changes = self.flows.changes();
        if let Some(bytes) = whole.get(..usize::from(rx.len)) {
            if let Some((member, next)) = trains.last().follow(&rx, bytes, changes) {
                return self.on_following(now, rx, trains.last(), member, next);
            }
            if let Some((member, next)) = trains.other().follow(&rx, bytes, changes) {
                self.look_at_held(now, trains.last());
                trains.turn();
                return self.on_following(now, rx, trains.last(), member, next);
            }
        }
        self.look_at_held(now, trains.last());
        self.on_first(now, rx, trains);
    }

    /// A packet that follows none before it: it may be the first of a train.
    fn on_first(&mut self, now: Instant, rx: RxFrame, trains: &mut Trains) {
        let train = trains.next();
        let start = usize::from(rx.offset);
        let whole = self.res.pool.bytes(&rx.frame).get(start..).unwrap_or_default();
        let bytes = whole.get(..usize::from(rx.len));
        let mut looked_up = None;
        let known = |flow: &FlowKey| {
            let found = self.flows.find_connection(flow);
            found.map_err(|other| looked_up = Some(other)).ok()
        };
        match bytes.and_then(|bytes| wire::parse_expected(bytes, rx.offset, &mut train.segment, known)) {
            Some((link, found)) => {
                trains.note(rx.port, link, whole, found, self.flows.changes());
                self.on_parsed(now, rx, trains.last(), found);
            }
            None => self.on_any_frame(now, rx, looked_up),
        }
    }

    /// A packet of a train.
    #[inline]
    fn on_following(&mut self, now: Instant, rx: RxFrame, train: &mut Train, member: Member, next: Following) {
        if train.held {
            if train.is_outdone_by(&next) {
                self.count_segment(0);
                self.res.counters.inc(Counter::TcpAcksOutdone);
                next.put_in(&mut train.segment);
                return self.res.pool.release(rx.frame);
            }
            self.look_at_held(now, train);
        }
        let repeats = train.taken && next.payload_len > 0 && next.repeats(&train.segment);
        next.put_in(&mut train.segment);
        if !repeats {
            return self.on_parsed(now, rx, train, member);
        }
        let (id, conversion, side) = member;
        let Some(state) = self.conversions.get_mut(conversion) else {
            return self.drop_frame(rx, Counter::DropNoConnection);
        };
        let RxFrame { port, frame, .. } = rx;
        match state.half_mut(side).on_train(now, id, &train.segment, frame, &mut self.conns) {
            Ok(payload) => {
                let mut env = self.res.env();
                state.half_mut(side.other()).push(TxSegment::from_rx(payload), &mut self.conns, &mut env);
                state.carried(side);
                if !state.ready {
                    state.ready = true;
                    self.ready.push_back(conversion);
                }
                self.count_segment(train.segment.payload_len);
            }
            Err(frame) => train.taken = self.on_connection(now, port, Some(frame), &train.link, &train.segment, member),
        }
    }

    /// The train's segment belongs to connection `member`, and its packet is `rx`.
    #[inline]
    fn on_parsed(&mut self, now: Instant, rx: RxFrame, train: &mut Train, member: Member) {
        if train.segment.payload_len == 0 {
            self.res.pool.release(rx.frame);
            if train.member.is_some() && train.is_bare_ack() {
                train.held = true;
                return;
            }
            train.taken = self.on_connection(now, rx.port, None, &train.link, &train.segment, member);
        } else {
            train.taken = self.on_connection(now, rx.port, Some(rx.frame), &train.link, &train.segment, member);
        }
    }

    /// The acknowledgment that was held back is the last one of its train.
    #[inline]
    fn look_at_held(&mut self, now: Instant, train: &mut Train) {
        if std::mem::take(&mut train.held)
            && let Some(member) = train.member
        {
            train.taken = self.on_connection(now, train.port, None, &train.link, &train.segment, member);
        }
    }

    #[inline]
    fn count_segment(&mut self, payload_len: u16) {
        self.res.counters.inc(Counter::TcpSegmentsIn);
        self.res.counters.add(Counter::TcpBytesIn, u64::from(payload_len));
    }

    /// The way of any other packet. `looked_up` is what its 4-tuple belongs to, if that is known already.
    fn on_any_frame(&mut self, now: Instant, rx: RxFrame, looked_up: Option<Option<FlowEntry>>) {
        let start = usize::from(rx.offset);
        let parsed = match self.res.pool.bytes(&rx.frame).get(start..start + usize::from(rx.len)) {
            Some(bytes) => wire::parse(bytes, rx.offset, Verify::All),
            None => Err(wire::Drop::Truncated),
        };
        match parsed {
            Ok(Parsed::Tcp(info, segment)) => {
                let entry = looked_up.unwrap_or_else(|| self.flows.find(&segment.flow));
                self.on_tcp(now, rx, &info, &segment, entry);
            }
            Ok(Parsed::Arp(info)) => self.on_arp(now, rx, &info),
            Ok(Parsed::Ndp(info)) => self.on_ndp(now, rx, &info),
            Ok(Parsed::Icmp(info)) => self.on_icmp(now, rx, &info),
            Ok(Parsed::OtherIp(info)) => self.on_other_ip(now, rx, &info),
            Err(reason) => {
                if reason == wire::Drop::TcpChecksumPartial
                    && let Some(count) = self.checksum_partial.get_mut(usize::from(rx.port.0))
                {
                    *count += 1;
                }
                self.drop_frame(rx, reason.counter());
            }
        }
    }

    /// Gives the frame back and counts why.
    pub(crate) fn drop_frame(&mut self, rx: RxFrame, why: Counter) {
        self.res.counters.inc(why);
        self.res.pool.release(rx.frame);
    }

    fn on_tcp(&mut self, now: Instant, rx: RxFrame, info: &IpInfo, segment: &SegmentIn, entry: Option<FlowEntry>) {
        match entry {
            Some(FlowEntry::Connection { id, conversion, side }) => {
                let frame = if segment.payload_len > 0 {
                    Some(rx.frame)
                } else {
                    self.res.pool.release(rx.frame);
                    None
                };
                self.on_connection(now, rx.port, frame, &info.link, segment, (id, conversion, side));
            }
            Some(FlowEntry::Opening(id, Side::Client)) => self.on_client_again(now, rx, info, segment, id),
            Some(FlowEntry::Opening(id, Side::Server)) => self.on_server_answer(now, rx, info, segment, id),
            Some(FlowEntry::TimeWait(id)) => self.on_time_wait(now, rx, info, segment, id),
            None => self.on_unknown(now, rx, info, segment),
        }
    }

    /// A segment of a connection, with its frame when it has payload. True when it was accepted, and brought about nothing
    /// but what data and acknowledgments do.
    fn on_connection(
        &mut self,
        now: Instant,
        port: PortId,
        frame: Option<FrameId>,
        link: &LinkHeader,
        segment: &SegmentIn,
        (id, conversion, side): Member,
    ) -> bool {
        let Some(state) = self.conversions.get_mut(conversion) else {
            self.res.counters.inc(Counter::DropNoConnection);
            if let Some(frame) = frame {
                self.res.pool.release(frame);
            }
            return false;
        };
        self.res.counters.inc(Counter::TcpSegmentsIn);
        self.res.counters.add(Counter::TcpBytesIn, u64::from(segment.payload_len));
        let mut env = self.res.env();
        let half = state.half_mut(side);
        let events = half.on_segment(now, id, segment, frame, &mut self.conns, &mut self.scratch, &mut env);
        if events.contains(HalfEvents::ACCEPTED)
            && let Some(path) = self.paths.get_mut(id)
            && path.follow(port, link)
            && self.links.is_up(port)
            && let Half::Mptcp(mptcp) = state.half_mut(side)
        {
            mptcp.path_back(now, id, &mut self.conns);
        }
        state.stirred |= side.into();
        if !self.scratch.is_empty() {
            splice::forward(&mut self.scratch, state.half_mut(side.other()), &mut self.conns, &mut env);
            state.carried(side);
        }
        if !state.ready {
            state.ready = true;
            self.ready.push_back(conversion);
        }
        // Data and acknowledgments have nothing else to be carried across.
        let usual = !events.intersects(!(HalfEvents::DATA | HalfEvents::ACCEPTED)) && !state.half(side).has_event();
        if !usual {
            self.advance(now, conversion, side, events);
        }
        usual && events.contains(HalfEvents::ACCEPTED)
    }

    /// Puts the conversion on the list of those that may have something to send, on either side.
    pub(crate) fn touch(&mut self, id: ConversionId) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        conversion.stir();
        if !conversion.ready {
            conversion.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Carries what happened on one side across to the other.
    pub(crate) fn advance(&mut self, now: Instant, id: ConversionId, side: Side, events: HalfEvents) {
        if let Some(conversion) = self.conversions.get_mut(id) {
            conversion.stir();
            let mut env = self.res.env();
            splice::forward(&mut self.scratch, conversion.half_mut(side.other()), &mut self.conns, &mut env);
        }
        self.on_half_events(now, id, side);
        if events.contains(HalfEvents::ESTABLISHED) && side == Side::Client {
            self.on_client_established(now, id);
        }
        if events.contains(HalfEvents::FIN) {
            self.carry_fin(id, side);
        }
        if events.contains(HalfEvents::RESET) {
            self.carry_reset(id, side, Counter::ConversionsReset, ConversionEnd::reset_by(side));
        }
        if events.contains(HalfEvents::TIMED_OUT) {
            let vanished = side == Side::Client && self.conversions.get(id).is_some_and(|c| !c.established);
            let why = if vanished { Counter::ClientsVanished } else { Counter::ConversionsReset };
            self.carry_reset(id, side, why, ConversionEnd::lost(side));
        }
        if events.contains(HalfEvents::CLOSED)
            && let Some(conversion) = self.conversions.get_mut(id)
        {
            conversion.progress_mut(side).ended = true;
        }
    }

    fn on_conversion_timer(&mut self, now: Instant, id: ConversionId) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        conversion.armed = Instant::MAX;
        for side in Side::BOTH {
            let Some(conversion) = self.conversions.get_mut(id) else { return };
            let events = conversion.half_mut(side).on_timer(now, &mut self.conns, &mut self.res.env());
            self.advance(now, id, side, events);
        }
        self.touch(id);
    }

    /// The next segment of the conversion at the front of `ready`.
    fn poll_conversion(&mut self, now: Instant, id: ConversionId) -> Option<TxFrame> {
        let conversion = self.conversions.get_mut(id)?;
        if !self.prepared {
            self.prepared = true;
            self.polled = Side::Server;
            window::update(now, conversion, &self.settings.windows, &mut self.conns, &self.res.pool);
        }
        loop {
            if conversion.half(self.polled).has_more() {
                conversion.stirred |= self.polled.into();
            }
            let stirred = conversion.stirred.contains(self.polled.into());
            let half = conversion.half_mut(self.polled);
            let out = &mut self.outgoing;
            if let Some((id, at)) = self.sending {
                if at == now && half.poll_train(now, id, out, &mut self.conns, &mut self.res.env()) {
                    let Resources { pool, counters, .. } = &mut self.res;
                    match self.paths.get_mut(id) {
                        Some(path) => {
                            if let Some(frame) = path.emit_train(pool, counters, out, &self.image) {
                                return Some(frame);
                            }
                        }
                        None => give_up(pool, out),
                    }
                }
                self.sending = None;
            }
            while stirred && let Some(id) = half.poll_transmit(now, out, &mut self.conns, &mut self.res.env()) {
                let Resources { pool, counters, .. } = &mut self.res;
                match self.paths.get_mut(id) {
                    Some(path) => {
                        let is_new_data = out.payload.is_some() && !out.retransmit;
                        if let Some(frame) = path.emit(pool, counters, out) {
                            if is_new_data && path.keep(pool, &frame, out, &mut self.image) {
                                self.sending = Some((id, now));
                            }
                            return Some(frame);
                        }
                    }
                    None => give_up(pool, out),
                }
            }
            // What one half is polled for gives the other nothing to send.
            match self.polled {
                Side::Server => self.polled = Side::Client,
                Side::Client => return None,
            }
        }
    }

    /// After a conversion has sent all it may: it ends, or its next deadline goes on the wheel.
    fn settle(&mut self, now: Instant, id: ConversionId) {
        self.on_transmit_done(now, id);
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        conversion.ready = false;
        // What a half waits for comes no earlier while nothing happens to it.
        let stirred = std::mem::take(&mut conversion.stirred);
        let mut deadline = conversion.armed;
        for side in Side::BOTH {
            if stirred.contains(side.into()) {
                deadline = deadline.min(conversion.half(side).next_deadline(&mut self.conns));
            }
        }
        if deadline < conversion.armed {
            conversion.armed = deadline;
            self.timers.schedule(deadline, Timer::Conversion(id));
        }
    }
}

/// A segment that has no way to go.
#[cold]
fn give_up(pool: &mut FramePool, out: &mut Outgoing) {
    if let Some(payload) = out.payload.take() {
        pool.release(payload.frame);
    }
}

impl Engine for Shard {
    fn on_frames(&mut self, now: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.iter() {
            self.res.pool.prefetch(&rx.frame, usize::from(rx.offset));
            self.res.pool.prefetch(&rx.frame, usize::from(rx.offset) + 64);
        }
        self.res.counters.add(Counter::RxFrames, batch.len() as u64);
        self.sending = None;
        self.res.counters.add(Counter::RxBytes, batch.iter().map(|rx| u64::from(rx.len)).sum());
        let mut trains = self.trains.take().unwrap_or_else(|| Box::new(Trains::none()));
        trains.forget();
        for rx in batch.drain(..) {
            self.on_frame(now, rx, &mut trains);
        }
        self.look_at_held(now, trains.last());
        self.trains = Some(trains);
    }

    fn on_timer(&mut self, now: Instant) {
        self.sending = None;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Conversion(id) => self.on_conversion_timer(now, id),
                Timer::Opening(id) => self.on_opening_timer(now, id),
            }
        }
        self.expire_time_waits(now);
        self.neighbours.on_timer(now);
        self.on_neighbour_events(now);
    }

    fn obey(&mut self, now: Instant, order: Order) {
        self.sending = None;
        match order {
            Order::RefuseOpenings => self.draining = true,
            Order::ResetAll => self.reset_all(),
            Order::Link { port, up } => self.on_link(now, port, up),
        }
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<TxFrame> {
        let frame = loop {
            // While a conversion is polled nothing else is given anything to send.
            if !self.prepared {
                if let Some(frame) = self.outbox.pop_front() {
                    break frame;
                }
                if let Some(frame) = self.neighbours.poll_transmit(&mut self.res.pool, &mut self.res.counters) {
                    break frame;
                }
            }
            let id = *self.ready.front()?;
            if let Some(frame) = self.poll_conversion(now, id) {
                break frame;
            }
            self.ready.pop_front();
            self.prepared = false;
            self.settle(now, id);
        };
        self.res.counters.inc(Counter::TxFrames);
        self.res.counters.add(Counter::TxBytes, u64::from(frame.len));
        Some(frame)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let wheel = self.timers.next_deadline();
        let neighbours = self.neighbours.next_deadline();
        let resting = self.time_waits.next_deadline();
        [wheel, neighbours, resting].into_iter().flatten().min()
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.res.pool
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.res.counters
    }
}
