//! Tells what the link does, while it does it and at the end.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use mimbox_dataplane::worker::{PortsView, Tick, Verdict, WorkerStats};
use mimbox_stack::{Duration, Instant};

use super::command::{LinkArgs, Wishes};
use super::engine::{LinkEngine, WayOptions};
use super::report::{Event, Lateness, OwnLosses, Statistics, WayReport};
use super::values::{Chance, Held, Runs, Span};
use crate::lab::Rate;
use crate::lab::process::cpu_time;

/// Prints statistics and events, as text or as JSON.
pub(super) struct Teller {
    names: [String; 2],
    seed: u64,
    json: bool,
    wishes: Wishes,
    every: Option<Duration>,
    limit: Option<Duration>,
    began: Instant,
    next: Instant,
    /// When the last statistics were told, and what had been delivered by then.
    last: (Instant, [u64; 2]),
    late: [Lateness; 2],
}

impl Teller {
    pub(super) fn new(args: &LinkArgs, wishes: &Wishes, now: Instant) -> Self {
        let every = (args.every.0 > Duration::ZERO).then_some(args.every.0);
        Self {
            names: [args.first.clone(), args.second.clone()],
            seed: args.seed,
            json: args.json,
            wishes: wishes.clone(),
            every,
            limit: args.seconds.map(|seconds| Duration::from_nanos(seconds.saturating_mul(1_000_000_000))),
            began: now,
            next: every.map_or(now, |every| now + every),
            last: (now, [0; 2]),
            late: Default::default(),
        }
    }

    fn say(&self, event: &Event) {
        let line = match event {
            _ if self.json => serde_json::to_string(event).unwrap_or_default(),
            Event::Statistics(statistics) | Event::End(statistics) => statistics.to_string(),
            Event::Cut { cut: true, .. } => "cut: every packet is lost until the next SIGUSR2".to_owned(),
            Event::Cut { cut: false, .. } => "mended".to_owned(),
            Event::Ready { mode, seed } => format!("{} <-> {}: {mode}, seed {seed}", self.names[0], self.names[1]),
        };
        // Whoever reads this may have gone; the link goes on.
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Says that packets pass from now on, and what happens to them.
    pub(super) fn ready(&self, mode: &str, ways: &[WayOptions; 2]) {
        self.say(&Event::Ready { mode: mode.to_owned(), seed: self.seed });
        if !self.json {
            for (index, way) in ways.iter().enumerate() {
                println!("{} -> {}: {}", self.names[index], self.names[1 - index], describe(way));
            }
        }
    }

    /// Looks after signals and statistics that are due.
    pub(super) fn tick(&mut self, tick: Tick<'_, LinkEngine>) -> Verdict {
        let now = tick.now;
        let mut verdict = Verdict::Continue;
        if self.wishes.toggle.swap(false, Ordering::Relaxed) {
            let cut = !tick.engine.is_cut();
            tick.engine.set_cut(cut);
            let unix_nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            self.say(&Event::Cut { cut, unix_nanos: u64::try_from(unix_nanos).unwrap_or(u64::MAX) });
            verdict = Verdict::Touched;
        }
        let due = self.every.filter(|_| now >= self.next);
        if let Some(every) = due {
            self.next = (self.next + every).max(now);
        }
        if self.wishes.print.swap(false, Ordering::Relaxed) || due.is_some() {
            let losses = OwnLosses::of(tick.ports, tick.worker);
            let late = [0, 1].map(|way| tick.engine.take_lateness(way));
            for (total, late) in self.late.iter_mut().zip(&late) {
                total.add(late);
            }
            self.say(&Event::Statistics(self.statistics(now, tick.engine, losses, self.last, &late)));
            self.last = (now, [0, 1].map(|way| tick.engine.totals(way).delivered_bytes));
        }
        let over = self.limit.is_some_and(|limit| now.since(self.began) >= limit);
        if over { Verdict::Stop } else { verdict }
    }

    /// Tells everything once more, over the whole time.
    pub(super) fn end(&mut self, now: Instant, engine: &mut LinkEngine, losses: OwnLosses) {
        for (way, total) in self.late.iter_mut().enumerate() {
            total.add(&engine.take_lateness(way));
        }
        self.say(&Event::End(self.statistics(now, engine, losses, (self.began, [0; 2]), &self.late)));
    }

    fn statistics(
        &self,
        now: Instant,
        engine: &LinkEngine,
        mut own_losses: OwnLosses,
        (since, before): (Instant, [u64; 2]),
        late: &[Lateness; 2],
    ) -> Statistics {
        let interval = (now.since(since).as_nanos() as f64 / 1e9).max(1e-9);
        let mut finished_checksums = 0;
        let ways = [0, 1].map(|index| {
            let totals = engine.totals(index);
            let (waiting_bytes, held) = engine.held(index, now);
            finished_checksums += totals.finished_checksums;
            own_losses.no_free_frame += totals.no_frame;
            WayReport {
                from: self.names[index].clone(),
                to: self.names[1 - index].clone(),
                packets: totals.link.packets,
                bytes: totals.link.bytes,
                delivered: totals.delivered,
                delivered_bytes: totals.delivered_bytes,
                rate_bps: (totals.delivered_bytes - before[index]) as f64 * 8.0 / interval,
                lost: totals.link.lost,
                overflowed: totals.link.overflowed,
                oversized: totals.link.oversized,
                cut: totals.cut,
                reordered: totals.link.reordered,
                duplicated: totals.link.duplicated,
                corrupted: totals.link.corrupted,
                waiting_bytes,
                held: held as u64,
                late_p50_ms: late[index].percentile_ms(50),
                late_p99_ms: late[index].percentile_ms(99),
                late_max_ms: late[index].max_ms(),
            }
        });
        let seconds = now.since(self.began).as_nanos() as f64 / 1e9;
        let cpu_seconds = cpu_time("self").unwrap_or_default().as_secs_f64();
        Statistics { seconds, ways, own_losses, finished_checksums, cpu_seconds }
    }
}

impl OwnLosses {
    /// What the ports and the worker counted.
    pub(super) fn of(ports: PortsView<'_>, worker: WorkerStats) -> Self {
        let mut losses = Self { transmit: worker.stalled, ..Self::default() };
        for port in ports.iter() {
            losses.no_free_frame += port.stats.rx_fill_empty;
            losses.ring_full += port.stats.rx_ring_full;
            losses.receive += port.stats.rx_dropped + port.stats.invalid_descriptors;
            losses.transmit += port.stats.tx_dropped;
        }
        losses
    }
}

/// What a direction does, in the words of the command line.
fn describe(way: &WayOptions) -> String {
    let WayOptions { link, overhead } = way;
    let rate = match link.rate_bps {
        u64::MAX => Rate::Unlimited,
        bits => Rate::Bits(bits),
    };
    let mut text = format!("{rate}, delay {}", Span(link.delay));
    if rate != Rate::Unlimited {
        text.push_str(&format!(", queue {} bytes", link.queue_bytes));
    }
    let chance = |ppm| Chance { ppm };
    for (name, ppm) in [("loss", link.loss_ppm), ("duplicate", link.duplicate_ppm), ("corrupt", link.corrupt_ppm)] {
        if ppm > 0 {
            text.push_str(&format!(", {name} {}", chance(ppm)));
        }
    }
    if link.burst.is_some() {
        text.push_str(&format!(", burst {}", Runs(link.burst)));
    }
    if link.reorder_ppm > 0 {
        text.push_str(&format!(", reorder {}", Held { chance: chance(link.reorder_ppm), by: Span(link.reorder_by) }));
    }
    text.push_str(&format!(", MTU {}", link.mtu));
    if *overhead > 0 {
        text.push_str(&format!(", {overhead} bytes beside each IP packet"));
    }
    text
}
