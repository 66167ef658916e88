//! What the operator sees of a shard, and the orders that an operator gives.

use std::net::SocketAddr;

use mimbox_dataplane::Engine;
use mimbox_stack::{Counter, FlowKey, Instant};

use crate::conversion::{Conversion, ConversionId, Side};
use crate::events::{ConversionEnd, Event};
use crate::metrics::{ConnectionList, ConnectionRow, ConversionCounts, Heaviest, Operated, Snapshot, SubflowRow};
use crate::shard::Shard;

impl Operated for Shard {
    fn observe(&self, snapshot: &mut Snapshot) {
        snapshot.counters = self.res.counters.clone();
        // Who reads when is no input of the engine's: its own counters must be the same in a replay.
        snapshot.counters.add(Counter::EventsUnread, self.events.unread());
        snapshot.conversions = ConversionCounts {
            live: self.conversions.len() as u64,
            half_open: u64::from(self.openings.len()),
            time_wait: self.time_waits.len() as u64,
        };
        for (port, partial) in snapshot.ports.iter_mut().zip(&self.checksum_partial) {
            port.checksum_partial = *partial;
        }
    }

    fn connections(&mut self, now: Instant, limit: usize) -> ConnectionList {
        let ids: Vec<ConversionId> = self.conversions.ids().take(limit).collect();
        let rows = ids.into_iter().filter_map(|id| self.row(now, id)).collect();
        ConnectionList { total: self.conversions.len() as u64, connections: rows }
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.next()
    }

    fn timer_fault(&mut self, now: Instant) -> Option<String> {
        let ids: Vec<ConversionId> = self.conversions.ids().collect();
        ids.into_iter().find_map(|id| {
            let conversion = self.conversions.get(id).filter(|conversion| !conversion.ready)?;
            for side in Side::BOTH {
                let half = conversion.half(side);
                for conn in half.connections() {
                    if let Some(fault) = self.conns.get(conn).and_then(|conn| conn.timer_fault(now)) {
                        return Some(format!("conversion {}, {side:?}: {fault}", id.number()));
                    }
                }
                let due = half.next_deadline(&mut self.conns);
                if due < conversion.armed {
                    let (number, armed) = (id.number(), conversion.armed);
                    return Some(format!("conversion {number}, {side:?}: due at {due:?}, woken at {armed:?}"));
                }
            }
            None
        })
    }

    fn heaviest(&mut self) -> Option<Heaviest> {
        let limit = self.settings.windows.most_frames();
        let mut held = Vec::new();
        let mut heaviest: Option<Heaviest> = None;
        for id in self.conversions.ids() {
            let Some(conversion) = self.conversions.get(id) else { continue };
            held.clear();
            for side in Side::BOTH {
                conversion.half(side).frames(&mut self.conns, &mut |frame| held.push(frame.index()));
            }
            held.sort_unstable();
            held.dedup();
            let frames = held.len() as u32;
            if heaviest.is_none_or(|before| frames > before.frames) {
                heaviest = Some(Heaviest { conversion: id.number(), frames, limit });
            }
        }
        heaviest
    }

    fn release_all(&mut self, now: Instant) {
        let ids: Vec<ConversionId> = self.conversions.ids().collect();
        for id in ids {
            self.remove_conversion(now, id);
        }
        while let Some(frame) = self.outbox.pop_front() {
            self.pool().tx_complete(frame.frame);
        }
        self.neighbours.release_all(&mut self.res.pool);
    }
}

impl Shard {
    /// Resets every conversion and half-open record.
    pub(crate) fn reset_all(&mut self) {
        while let Some(id) = self.openings.oldest() {
            if let Some(record) = self.forget_opening(id)
                && record.mode == crate::conversion::Mode::Explicit
            {
                self.refuse_client(&record);
            }
        }
        let ids: Vec<ConversionId> = self.conversions.ids().collect();
        for id in ids {
            let Some(conversion) = self.conversions.get_mut(id) else { continue };
            if !conversion.aborted {
                conversion.aborted = true;
                conversion.end = ConversionEnd::Stopped;
                self.res.counters.inc(Counter::ConversionsReset);
            }
            for side in Side::BOTH {
                conversion.half_mut(side).abort(&mut self.conns, &mut self.res.env());
            }
            self.touch(id);
        }
    }

    fn row(&mut self, now: Instant, id: ConversionId) -> Option<ConnectionRow> {
        let conversion = self.conversions.get(id)?;
        let mut row = ConnectionRow {
            id: id.number(),
            mode: conversion.mode.name().to_owned(),
            client: SocketAddr::from(([0, 0, 0, 0], 0)),
            server: SocketAddr::from(([0, 0, 0, 0], 0)),
            client_protocol: conversion.client.protocol().to_owned(),
            server_protocol: conversion.server.protocol().to_owned(),
            token: conversion.client.token(),
            age_s: now.since(conversion.opened).as_secs_f64(),
            bytes_to_server: 0,
            bytes_to_client: 0,
            frames: 0,
            subflows: Vec::new(),
        };
        for side in Side::BOTH {
            row.frames += conversion.half(side).queued_frames(&mut self.conns);
        }
        let connections: Vec<_> = members(conversion).collect();
        for (side, conn) in connections {
            let port = self.paths.get(conn).map_or(0, |path| path.origin().port.0);
            let Some(conn) = self.conns.get(conn) else { continue };
            let flow: FlowKey = *conn.flow();
            let remote = SocketAddr::new(flow.remote, flow.remote_port);
            match side {
                Side::Client => {
                    if row.client.port() == 0 {
                        row.client = remote;
                    }
                    row.bytes_to_client += conn.bytes_acked();
                }
                Side::Server => {
                    row.server = remote;
                    row.bytes_to_server += conn.bytes_acked();
                }
            }
            row.subflows.push(SubflowRow {
                side: if side == Side::Client { "client" } else { "server" }.to_owned(),
                port,
                local: SocketAddr::new(flow.local, flow.local_port),
                remote,
                state: format!("{:?}", conn.state()),
                bytes_in: conn.bytes_received(),
                bytes_out: conn.bytes_acked(),
                retransmits: conn.retransmits(),
                srtt_us: conn.srtt().as_micros(),
                cwnd: conn.cwnd(),
                backup: false,
            });
        }
        Some(row)
    }
}

fn members(conversion: &Conversion) -> impl Iterator<Item = (Side, mimbox_stack::ConnId)> + '_ {
    Side::BOTH.into_iter().flat_map(|side| conversion.half(side).connections().map(move |id| (side, id)))
}
