//! `mimbox-lab link`.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Args;
use mimbox_dataplane::af_xdp::{self, AfXdpConfig, AfXdpPortConfig, AttachMode, Take};
use mimbox_dataplane::worker::{Tick, Verdict, Wait, Worker, WorkerConfig, run_in_real_time};
use mimbox_dataplane::{Clock, MonotonicClock, Notify, Port, PortMode};
use mimbox_stack::mem::Region;
use mimbox_stack::{Duration, FramePool, PoolConfig, PortId};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::LinkOptions;
use super::engine::{LinkEngine, WayOptions, frames_for};
use super::report::OwnLosses;
use super::teller::Teller;
use super::values::{Both, Chance, Held, QueueSize, Runs, Span};
use crate::lab::Rate;

/// Among what keeps time: above what a measurement may run in the same way.
const PRIORITY: u8 = 20;
/// Descriptors of each ring.
const RING: u32 = 1024;
/// Fewest and most frames that are taken by themselves.
const FRAMES: (u64, u64) = (8 * RING as u64, 1 << 18);
/// The least queue that is taken by itself: twenty full packets.
const LEAST_QUEUE: u32 = 30_000;
/// What such a queue holds.
const USUAL_QUEUE: Span = Span::millis(50);

/// Which interfaces to join, and how badly.
///
/// Every option takes one value for both directions, or two with a comma: from FIRST to SECOND, then back.
#[derive(Clone, Debug, Args)]
pub struct LinkArgs {
    /// One end.
    pub first: String,
    /// The other end.
    pub second: String,
    /// Bits a second, like 100mbit or 1gbit, of IP packets (see --overhead).
    #[arg(long, default_value = "unlimited")]
    pub rate: Both<Rate>,
    /// One-way delay, like 10ms.
    #[arg(long, default_value = "0ms")]
    pub delay: Both<Span>,
    /// What may wait for the wire: bytes like 64k, or a time at the rate like 50ms. Without it: 50ms, at least 30000
    /// bytes.
    #[arg(long)]
    pub queue: Option<Both<QueueSize>>,
    /// Chance that a packet is lost, like 1%.
    #[arg(long, default_value = "0%")]
    pub loss: Both<Chance>,
    /// Losses in runs: the chances that a run begins and that it ends, like 0.1%/25%; a third one loses only so many
    /// packets of a run.
    #[arg(long, default_value = "0", value_name = "BEGIN/END[/LOSS]")]
    pub burst: Both<Runs>,
    /// Packets that are held back, and for how long at most, like 5%/10ms.
    #[arg(long, default_value = "0%/0ms", value_name = "SHARE/TIME")]
    pub reorder: Both<Held>,
    /// Chance that a packet arrives twice.
    #[arg(long, default_value = "0%")]
    pub duplicate: Both<Chance>,
    /// Chance that one bit of an IP packet changes.
    #[arg(long, default_value = "0%")]
    pub corrupt: Both<Chance>,
    /// Largest IP packet that passes; larger ones are lost without a word. Without it: what the interfaces carry.
    #[arg(long)]
    pub mtu: Option<u16>,
    /// Bytes that the rate counts for each packet besides the IP packet: 14 as tc does, 38 as on an Ethernet.
    #[arg(long, default_value_t = 0)]
    pub overhead: u16,
    /// Seed of everything that is left to chance. The packets of each direction are numbered, and a number is lost (or
    /// not) in every run with the same seed and chances.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often to print statistics; 0 prints them at the end only. SIGUSR1 prints them at any time.
    #[arg(long, default_value = "0")]
    pub every: Span,
    /// Stops by itself after this many seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    pub seconds: Option<u64>,
    /// Packets that can be held. Without it: as rate, delay and queue need them.
    #[arg(long)]
    pub frames: Option<u32>,
    /// Pause after each look while packets pass, up to which they may leave late: what comes meanwhile is taken together,
    /// which halves the CPU time at 100 Mbit/s.
    #[arg(long, default_value = "100us")]
    pub rest: Span,
    /// Prints statistics as JSON, a line each.
    #[arg(long)]
    pub json: bool,
}

impl LinkArgs {
    /// What one direction does: 0 from the first interface, 1 from the second.
    fn way(&self, index: usize, mtu: u16) -> WayOptions {
        let rate = self.rate.of(index);
        let queue_bytes = match self.queue {
            Some(queue) => queue.of(index).bytes(rate),
            None => QueueSize::Time(USUAL_QUEUE).bytes(rate).max(LEAST_QUEUE),
        };
        let (held, Runs(burst)) = (self.reorder.of(index), self.burst.of(index));
        let rate_bps = match rate {
            Rate::Unlimited => u64::MAX,
            Rate::Bits(bits) => bits,
        };
        let link = LinkOptions {
            rate_bps,
            delay: self.delay.of(index).0,
            queue_bytes,
            loss_ppm: self.loss.of(index).ppm,
            burst,
            reorder_ppm: held.chance.ppm,
            reorder_by: held.by.0,
            duplicate_ppm: self.duplicate.of(index).ppm,
            corrupt_ppm: self.corrupt.of(index).ppm,
            mtu: self.mtu.unwrap_or(mtu),
        };
        WayOptions { link, overhead: self.overhead }
    }
}

/// What signals ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) print: Arc<AtomicBool>,
    pub(super) toggle: Arc<AtomicBool>,
}

impl Wishes {
    /// Notes signals from now on, and wakes the worker at each.
    fn listen(&self, waker: Notify) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2]).context("cannot catch signals")?;
        let Self { stop, print, toggle } = self.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => print.store(true, Ordering::Relaxed),
                    SIGUSR2 => toggle.store(true, Ordering::Relaxed),
                    _ => stop.store(true, Ordering::Relaxed),
                }
                waker.raise();
            }
        });
        Ok(())
    }
}

/// Carries packets until it is told to stop.
///
/// # Errors
/// When an interface is missing, down, taken or unfit, or the process lacks privileges.
pub fn command(args: &LinkArgs) -> Result<ExitCode> {
    let (mut pool, config, ways) = prepare(args)?;
    let opened = af_xdp::open(&mut pool, &config)?;
    let generic = opened.iter().any(|port| port.info().mode == PortMode::CopyGeneric);
    let mode = opened.iter().map(|port| port.info().mode.to_string()).next().unwrap_or_default();
    keep_time();
    let ports = opened.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    let engine = LinkEngine::new(pool, ways, args.seed);
    let wait = Wait::Sleep { spin: Duration::ZERO };
    let rest = args.rest.0;
    // While packets pass, a tick is due whenever the last pause is over.
    let tick = if rest > Duration::ZERO { rest } else { WorkerConfig::default().tick };
    let settings = WorkerConfig { wait, tick, ..WorkerConfig::default() };
    let clock = MonotonicClock::start();
    let mut worker = Worker::new(engine, ports, clock, settings)?;
    let wishes = Wishes::default();
    wishes.listen(worker.waker())?;

    let mut teller = Teller::new(args, &wishes, clock.now());
    teller.ready(&mode, &ways);
    if generic {
        eprintln!(
            "mimbox-lab link: a driver here has no XDP: switch segmentation off at whatever sends into {} and {} \
             (ethtool -K DEVICE tso off gso off gro off), or its large segments do not get through",
            args.first, args.second
        );
    }
    let rest = std::time::Duration::from_nanos(rest.as_nanos());
    worker.run(&wishes.stop, &mut |tick: Tick<'_, LinkEngine>| {
        let verdict = teller.tick(tick);
        if verdict == Verdict::Continue {
            std::thread::sleep(rest);
        }
        verdict
    });
    let losses = OwnLosses::of(worker.ports(), worker.stats());
    teller.end(clock.now(), worker.engine(), losses);
    let mut engine = worker.close();
    let audit = engine.release_all().audit();
    if audit.held > 0 || audit.broken > 0 {
        bail!("frames are missing at the end, which is a bug: {audit:?}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Frames, ports and what each direction does.
fn prepare(args: &LinkArgs) -> Result<(FramePool, AfXdpConfig, [WayOptions; 2])> {
    let names = [&args.first, &args.second];
    let facts = [af_xdp::interface_facts(names[0])?, af_xdp::interface_facts(names[1])?];
    for (name, facts) in names.iter().zip(&facts) {
        if !facts.up {
            bail!("the interface `{name}` is down: `ip link set dev {name} up`");
        }
    }
    let largest = facts.iter().map(|facts| facts.mtu).max().unwrap_or_default();
    let mtu = u16::try_from(largest).unwrap_or(u16::MAX);
    let ways = [args.way(0, mtu), args.way(1, mtu)];
    let frame_size = if largest <= af_xdp::largest_mtu(2048) { 2048 } else { 4096 };
    let wanted = ways.iter().map(frames_for).sum::<u64>() + FRAMES.0;
    let frames = args.frames.unwrap_or(wanted.min(FRAMES.1) as u32).max(FRAMES.0 as u32);
    let region = Region::map(frames, frame_size).with_context(|| format!("no memory for {frames} packets"))?;
    let pool = FramePool::new(region, PoolConfig { rx_reserve: 2 * RING });
    let port = |(n, name): (u8, &&String)| AfXdpPortConfig {
        id: PortId(n),
        interface: name.to_string(),
        queue: 0,
        mac: None,
        attach: AttachMode::Auto,
        take: Take::All,
    };
    let ports = (0..).zip(&names).map(port).collect();
    Ok((pool, AfXdpConfig { ring: RING, ..AfXdpConfig::new(ports, Vec::new()) }, ways))
}

/// Asks the system to wake this thread at the instant that it asks for, and before ordinary threads. Without the privilege
/// the link is less exact, as its own numbers will show.
fn keep_time() {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let _ = run_in_real_time(PRIORITY);
}
