//! How fast packets are forwarded between two namespaces: by the kernel as a router, and by a small router over AF_XDP.
//!
//! `cargo bench -p mimbox-dataplane` (root, iperf3). Absolute figures depend on the machine and its neighbours; compare
//! the lines of one run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mimbox_dataplane::af_xdp::{self, AfXdpConfig, AfXdpPortConfig, AttachMode, BusyPoll, Take};
use mimbox_dataplane::memory::{MemoryConfig, with_end};
use mimbox_dataplane::worker::{Tick, Verdict, Wait, Worker, WorkerConfig};
use mimbox_dataplane::{MonotonicClock, Port};
use mimbox_stack::mem::Region;
use mimbox_stack::{FramePool, PoolConfig};

#[path = "../tests/common/mod.rs"]
mod common;
use common::router::{Router, addresses, port};
use common::{Lab, privileged, sh};

/// Seconds of each measurement.
const SECONDS: u32 = 3;

fn pool() -> FramePool {
    FramePool::new(Region::map(16384, 2048).unwrap(), PoolConfig { rx_reserve: 4096 })
}

/// Gbit/s at the receiver, as iperf3 saw it.
fn iperf(lab: &Lab, arguments: &str) -> f64 {
    sh(&format!("ip netns exec {} iperf3 -s -1 -D --forceflush", lab.netns("right")));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let report = lab.sh("left", &format!("iperf3 -c 10.77.2.2 -t {SECONDS} -f m {arguments}"));
    let line = report.lines().rfind(|line| line.contains("receiver")).unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| word.ends_with("bits/sec")).unwrap_or(1);
    words.get(at - 1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

fn measure(lab: &Lab, what: &str) {
    let tcp = iperf(lab, "");
    let udp = iperf(lab, "-u -b 0 -l 1400");
    println!("{what:<34} TCP {tcp:5.2} Gbit/s   UDP {udp:5.2} Gbit/s ({:.0} kpps)", udp * 1e6 / 8.0 / 1400.0);
}

/// CPU time of the calling thread.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn kernel_router() {
    let lab = Lab::new();
    let middle = lab.netns("box");
    sh(&format!(
        "ip -n {middle} addr add 10.77.1.1/24 dev p0; ip -n {middle} addr add 10.77.2.1/24 dev p1
         ip netns exec {middle} sysctl -qw net.ipv4.ip_forward=1
         ip netns exec {middle} ethtool -K p0 tx off tso off gso off gro off >/dev/null
         ip netns exec {middle} ethtool -K p1 tx off tso off gso off gro off >/dev/null"
    ));
    measure(&lab, "kernel router");
}

fn af_xdp_router(what: &str, attach: AttachMode, wait: Wait, busy_poll: Option<BusyPoll>) {
    let lab = Lab::new();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = lab.spawn("box", move || {
        let interface = |n: u8| AfXdpPortConfig {
            id: port(n),
            interface: format!("p{n}"),
            queue: 0,
            mac: None,
            attach,
            take: Take::Routed,
        };
        let config = AfXdpConfig { busy_poll, ..AfXdpConfig::new(vec![interface(0), interface(1)], addresses()) };
        let mut pool = pool();
        let ports = af_xdp::open(&mut pool, &config).unwrap();
        let infos: Vec<_> = ports.iter().map(|port| port.info().clone()).collect();
        let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
        let config = WorkerConfig { wait, ..WorkerConfig::default() };
        let mut worker = Worker::new(Router::new(pool, &infos), ports, MonotonicClock::start(), config).unwrap();
        ready.send(()).unwrap();
        worker.run(&stopped, &mut |_: Tick<'_, Router>| Verdict::Continue);
        let stats = worker.stats();
        for report in worker.ports().iter() {
            eprintln!("  {}: {:?}", report.info.interface, report.stats);
        }
        eprintln!("  {stats:?}");
        // The kernel's work on both sides of the sockets is in it, the receiving host's TCP included.
        let spent = thread_seconds() * 1e6 / stats.sent.max(1) as f64;
        println!(
            "{:<34} {spent:.2} µs of CPU a frame, {:.1} frames a batch",
            "",
            stats.sent as f64 / stats.batches.max(1) as f64
        );
        let mut router = worker.close();
        router.neighbors.release_all(&mut router.pool);
        assert_eq!(router.pool.in_use(), 0, "frames leaked");
    });
    started.recv().unwrap();
    measure(&lab, what);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

/// What the loop and the small router cost without a kernel: nanoseconds for each frame, the memory port's copies included.
fn memory_router() {
    const FRAMES: u32 = 2_000_000;
    let (a, end_a) = with_end(port(0), MemoryConfig::default()).unwrap();
    let (b, end_b) = with_end(port(1), MemoryConfig::default()).unwrap();
    let infos = [a.info().clone(), b.info().clone()];
    let mut router = Router::new(pool(), &infos);
    let now = mimbox_stack::Instant::from_millis(1);
    // The peer behind port 1 is known beforehand.
    let reply: &[u8] = &[
        2, 77, 66, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 10, 77, 2, 2, 2, 77, 66,
        0, 0, 1, 10, 77, 2, 1,
    ];
    let link = mimbox_stack::wire::LinkHeader::default();
    router.neighbors.resolve(now, "10.77.2.2".parse().unwrap(), None);
    router.neighbors.on_arp(now, port(1), &link, &reply[14..]);
    let mut packet = vec![0u8; 1514];
    packet[..12].copy_from_slice(&[2, 77, 66, 0, 0, 0, 2, 0, 0, 0, 0, 8]);
    packet[12..34].copy_from_slice(&[8, 0, 0x45, 0, 5, 220, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 1, 2, 10, 77, 2, 2]);
    let sum = mimbox_stack::checksum::sum(&packet[14..34]);
    packet[24..26].copy_from_slice(&(!sum).to_be_bytes());
    let ports: Vec<Box<dyn Port>> = vec![Box::new(a), Box::new(b)];
    let mut worker = Worker::new(router, ports, MonotonicClock::start(), WorkerConfig::default()).unwrap();
    let (mut got, mut spent) = (0, std::time::Duration::ZERO);
    while got < FRAMES {
        for _ in 0..64 {
            end_a.push(&packet);
        }
        let started = Instant::now();
        worker.turn();
        spent += started.elapsed();
        while let Some(packet) = end_b.pop() {
            got += u32::from(packet.len() == 1514);
            end_b.recycle(packet);
        }
    }
    println!("{:<34} {:.0} ns a frame", "memory ports", spent.as_nanos() as f64 / f64::from(got));
}

fn main() {
    // `cargo test --all-targets` runs this too, and wants nothing of it.
    if !std::env::args().any(|argument| argument == "--bench") || !privileged() {
        return;
    }
    let sleep = Wait::Sleep { spin: mimbox_stack::Duration::from_micros(20) };
    let at_once = Wait::Sleep { spin: mimbox_stack::Duration::ZERO };
    memory_router();
    kernel_router();
    af_xdp_router("AF_XDP native, sleep", AttachMode::Native, sleep, None);
    af_xdp_router("AF_XDP native, sleep at once", AttachMode::Native, at_once, None);
    af_xdp_router("AF_XDP native, busy", AttachMode::Native, Wait::BusyPoll, None);
    af_xdp_router("AF_XDP native, kernel busy poll", AttachMode::Native, Wait::BusyPoll, Some(BusyPoll::default()));
    af_xdp_router("AF_XDP generic, sleep", AttachMode::Generic, sleep, None);
}
