//! Ports that lose their links and get them back: what MPTCP connections are told of it (RFC 8684 §3.4.1, §3.4.2).
//!
//! A box accepts packets for any of its addresses on any of its ports. So what dies with a port's link are the subflows
//! that go by it, whatever their addresses; and what is withdrawn are the port's addresses, unless a subflow by another
//! port shows that one of them is reached all the same.

use arrayvec::ArrayVec;
use mimbox_mptcp::MAX_SUBFLOWS;
use mimbox_mptcp::limits::MAX_ANNOUNCED;
use mimbox_stack::{ConnId, Counter, Instant, PortId};

use crate::conversion::{ConversionId, Side};
use crate::events::{By, Happening};
use crate::half::Half;
use crate::shard::Shard;

/// Addresses with their IDs: at most those announced, and the first subflow's.
type Addresses = ArrayVec<(u8, std::net::IpAddr), { MAX_ANNOUNCED + 1 }>;

/// Which ports have a link. Each has one until something else is heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkTable {
    down: Vec<PortId>,
}

impl LinkTable {
    /// True when the port has a link.
    pub(crate) fn is_up(&self, port: PortId) -> bool {
        !self.down.contains(&port)
    }

    /// Notes how the port's link is; false when that is no news.
    fn set(&mut self, port: PortId, up: bool) -> bool {
        if up == self.is_up(port) {
            return false;
        }
        if up {
            self.down.retain(|known| *known != port);
        } else {
            self.down.push(port);
        }
        true
    }
}

impl Shard {
    /// A port has lost its link, or has it back. The work goes over all conversions, once in a change of a link.
    pub(crate) fn on_link(&mut self, now: Instant, port: PortId, up: bool) {
        if !self.links.set(port, up) {
            return;
        }
        self.events.note(now, None, Happening::Link { port, up });
        self.res.counters.inc(if up { Counter::LinksBack } else { Counter::LinksLost });
        let ids: Vec<ConversionId> = self.conversions.ids().collect();
        for id in ids {
            if up {
                self.link_back(now, id, port);
            } else {
                self.link_lost(now, id, port);
            }
        }
    }

    /// The half's connections that go by `port`.
    fn by_port(&self, half: &Half, port: PortId) -> ArrayVec<ConnId, MAX_SUBFLOWS> {
        half.connections().filter(|id| self.paths.get(*id).is_some_and(|path| path.origin().port == port)).collect()
    }

    fn link_lost(&mut self, now: Instant, id: ConversionId, port: PortId) {
        let Some(Half::Mptcp(mptcp)) = self.conversions.get(id).map(|conversion| &conversion.client) else { return };
        let settings = &self.settings;
        let gone: Addresses =
            mptcp.told_addresses().filter(|(_, addr)| settings.port_of(*addr) == Some(port)).collect();
        let reached = |addr| {
            mptcp.subflow_stats().any(|subflow| {
                let path = self.paths.get(subflow.id);
                subflow.open
                    && subflow.flow.local == addr
                    && path.is_some_and(|path| self.links.is_up(path.origin().port))
            })
        };
        let gone: Addresses = gone.into_iter().filter(|(_, addr)| !reached(*addr)).collect();
        let Some(half) = self.conversions.get(id).map(|conversion| &conversion.client) else { return };
        let dead = self.by_port(half, port);
        if dead.is_empty() && gone.is_empty() {
            return;
        }
        let Some(Half::Mptcp(mptcp)) = self.conversions.get_mut(id).map(|conversion| &mut conversion.client) else {
            return;
        };
        for conn in dead {
            mptcp.path_lost(conn);
        }
        for (addr_id, _) in gone {
            mptcp.withdraw(now, addr_id, &mut self.conns, &mut self.res.env());
            self.events.note(now, Some(id.number()), Happening::Withdrawn { by: By::Box, id: addr_id });
        }
        self.touch(id);
    }

    fn link_back(&mut self, now: Instant, id: ConversionId, port: PortId) {
        for side in Side::BOTH {
            let Some(conversion) = self.conversions.get(id) else { return };
            let back = self.by_port(conversion.half(side), port);
            let Some(conversion) = self.conversions.get_mut(id) else { return };
            for conn in back {
                match conversion.half_mut(side) {
                    Half::Mptcp(mptcp) => mptcp.path_back(now, conn, &mut self.conns),
                    Half::Tcp(_) => {
                        if let Some(mut conn) = self.conns.get(conn) {
                            conn.path_is_back(now);
                        }
                    }
                }
            }
        }
        if let Some(conversion) = self.conversions.get_mut(id)
            && conversion.established
        {
            self.announce(now, id, Some(port));
        }
        self.touch(id);
    }

    /// Announces to the client of a conversion the box's further addresses that can be reached: those on `port`, or all.
    /// What it knows already is not said again.
    pub(crate) fn announce(&mut self, now: Instant, id: ConversionId, port: Option<PortId>) {
        let Some(conversion) = self.conversions.get_mut(id) else { return };
        let (mode, ipv4) = (conversion.mode, conversion.client_ipv4);
        let (Half::Mptcp(mptcp), Some(terms)) = (&mut conversion.client, conversion.client_terms) else { return };
        let initial = mptcp.local_address();
        let further = self.settings.announced(mode).iter().enumerate();
        // An address's ID is its place in the configuration. The one that the client used already has ID 0.
        let further = further.filter(|(_, addr)| addr.is_ipv4() == ipv4 && **addr != initial);
        let further = further.take(usize::from(terms.announce)).map(|(index, addr)| (index as u8 + 1, *addr));
        let again = mptcp.initial_is_withdrawn().then_some((0, initial));
        for (addr_id, addr) in again.into_iter().chain(further) {
            let on = self.settings.port_of(addr);
            let reached = on.is_none_or(|on| self.links.is_up(on)) && (port.is_none() || on == port);
            if reached && mptcp.announce(addr_id, addr, None, &mut self.res.env()) {
                let announced = Happening::Announced { by: By::Box, id: addr_id, addr, port: None };
                self.events.note(now, Some(id.number()), announced);
            }
        }
    }
}

#[cfg(test)]
mod tests;
