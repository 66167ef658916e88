//! Where a connection's packets go: link-layer header, port and header template, kept beside the connection.

use mimbox_stack::wire::{self, HeaderImage, HeaderTemplate, IpInfo, LinkHeader};
use mimbox_stack::{ConnId, Counter, Counters, FlowKey, FramePool, Outgoing, PortId, RxFrame, TxFrame};

/// TTL or hop limit of what the box sends.
pub(crate) const TTL: u8 = 64;

/// A port and the link-layer header that reaches the neighbour behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Origin {
    /// The port.
    pub port: PortId,
    /// From the box's MAC address to the neighbour's.
    pub link: LinkHeader,
}

impl Origin {
    /// The way back to where a packet came from.
    pub(crate) const fn of(rx: &RxFrame, info: &IpInfo) -> Self {
        Self { port: rx.port, link: info.link.reply() }
    }
}

/// What is needed to send a connection's segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    origin: Origin,
    template: HeaderTemplate,
    ip_id: u16,
}

impl Path {
    /// The path of `flow` by way of `origin`.
    pub(crate) fn new(flow: &FlowKey, origin: Origin) -> Self {
        Self { origin, template: HeaderTemplate::new(flow, TTL), ip_id: 0 }
    }

    /// The port and neighbour that it goes to.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Symmetric return: answers go where the peer's last believed packet came from. True when that is another port than
    /// before.
    #[inline]
    pub(crate) fn follow(&mut self, port: PortId, link: &LinkHeader) -> bool {
        let Origin { port: old, link: own } = &self.origin;
        let same = *old == port && own.dst == link.src && own.src == link.dst && own.vlan == link.vlan;
        if !same {
            let moved = *old != port;
            self.origin = Origin { port, link: link.reply() };
            return moved;
        }
        false
    }

    /// Builds the packet for `out`. `None`, and a counter, when no frame is free.
    #[inline]
    pub(crate) fn build(
        &mut self,
        pool: &mut FramePool,
        counters: &mut Counters,
        out: &mut Outgoing,
    ) -> Option<TxFrame> {
        let payload = out.payload.as_ref().map_or(0, |payload| u64::from(payload.len));
        self.ip_id = self.ip_id.wrapping_add(1);
        let emitted = wire::emit_tcp_from(pool, &self.origin.link, &self.template, out, self.ip_id, counters);
        let Some((frame, offset, len)) = emitted else {
            counters.inc(Counter::TxNoFrame);
            return None;
        };
        counters.inc(Counter::TcpSegmentsOut);
        counters.add(Counter::TcpBytesOut, payload);
        Some(TxFrame { port: self.origin.port, frame, offset, len })
    }

    /// [`Path::build`], and the frame is marked as on its way to the NIC.
    #[inline]
    pub(crate) fn emit(
        &mut self,
        pool: &mut FramePool,
        counters: &mut Counters,
        out: &mut Outgoing,
    ) -> Option<TxFrame> {
        let frame = self.build(pool, counters, out)?;
        pool.tx_begin(&frame.frame);
        Some(frame)
    }

    /// Keeps the headers of `frame`, which was just built of `out`, for the train that it may be the first of. False when
    /// they are of a kind that is not kept.
    #[inline]
    pub(crate) fn keep(&self, pool: &FramePool, frame: &TxFrame, out: &Outgoing, image: &mut HeaderImage) -> bool {
        image.keep(pool, &frame.frame, frame.offset, out, &self.template)
    }

    /// [`Path::emit`] of the next segment of the train that `image` is of.
    #[inline]
    pub(crate) fn emit_train(
        &mut self,
        pool: &mut FramePool,
        counters: &mut Counters,
        out: &mut Outgoing,
        image: &HeaderImage,
    ) -> Option<TxFrame> {
        let payload = out.payload.as_ref().map_or(0, |payload| u64::from(payload.len));
        self.ip_id = self.ip_id.wrapping_add(1);
        let Some((frame, offset, len)) = image.emit(pool, &self.template, out, self.ip_id, counters) else {
            counters.inc(Counter::TxNoFrame);
            return None;
        };
        counters.inc(Counter::TcpSegmentsOut);
        counters.add(Counter::TcpBytesOut, payload);
        pool.tx_begin(&frame);
        Some(TxFrame { port: self.origin.port, frame, offset, len })
    }
}

/// The paths of all connections, by the connection's place in its table.
#[derive(Debug, Default)]
pub(crate) struct PathTable {
    paths: Vec<Option<Path>>,
}

impl PathTable {
    /// Keeps the path of connection `id`.
    pub(crate) fn insert(&mut self, id: ConnId, path: Path) {
        let index = id.index() as usize;
        if index >= self.paths.len() {
            self.paths.resize(index + 1, None);
        }
        if let Some(slot) = self.paths.get_mut(index) {
            *slot = Some(path);
        }
    }

    /// The path of connection `id`, to send by or to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Path> {
        self.paths.get_mut(id.index() as usize)?.as_mut()
    }

    /// The path of connection `id`.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Path> {
        self.paths.get(id.index() as usize)?.as_ref()
    }

    /// Forgets the path of connection `id`.
    pub(crate) fn remove(&mut self, id: ConnId) {
        if let Some(slot) = self.paths.get_mut(id.index() as usize) {
            *slot = None;
        }
    }
}
