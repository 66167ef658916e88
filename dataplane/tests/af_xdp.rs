//! AF_XDP on veth pairs between namespaces, against the kernel's own ARP, NDP, ICMP and TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mimbox_dataplane::af_xdp::{self, AfXdpConfig, AfXdpPortConfig, AttachMode, BusyPoll, CopyMode, Take};
use mimbox_dataplane::worker::{Tick, Verdict, Wait, Worker, WorkerConfig, run_in_real_time};
use mimbox_dataplane::{Feature, MonotonicClock, Notify, Port, PortError, PortMode};
use mimbox_stack::mem::Region;
use mimbox_stack::{Counter, Counters, FramePool, PoolConfig};

mod common;
use common::router::{Router, addresses, port};
use common::{Lab, privileged};

fn pool() -> FramePool {
    FramePool::new(Region::map(8192, 2048).unwrap(), PoolConfig { rx_reserve: 1024 })
}

fn port_config(n: u8, take: Take) -> AfXdpPortConfig {
    AfXdpPortConfig { id: port(n), interface: format!("p{n}"), queue: 0, mac: None, attach: AttachMode::Auto, take }
}

fn config() -> AfXdpConfig {
    AfXdpConfig {
        ring: 1024,
        ..AfXdpConfig::new(vec![port_config(0, Take::Routed), port_config(1, Take::Routed)], addresses())
    }
}

/// A router that runs in the box's namespace until it is told to stop.
struct Running {
    stop: Arc<AtomicBool>,
    waker: Notify,
    thread: JoinHandle<Outcome>,
    modes: Vec<PortMode>,
    features: Vec<Vec<Feature>>,
}

#[derive(Debug)]
struct Outcome {
    in_use: u32,
    forwarded: u64,
    malformed: u64,
    turns: u64,
    counters: Counters,
    invalid: u64,
}

fn start(lab: &Lab, config: AfXdpConfig, wait: Wait) -> Running {
    start_at(lab, config, wait, None)
}

/// As `start`, at a real-time priority.
fn start_at(lab: &Lab, config: AfXdpConfig, wait: Wait, real_time: Option<u8>) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = lab.spawn("box", move || {
        let _ = real_time.map(run_in_real_time);
        let mut pool = pool();
        let ports = af_xdp::open(&mut pool, &config).unwrap();
        let infos: Vec<_> = ports.iter().map(|port| port.info().clone()).collect();
        let features = ports.iter().map(Port::features).collect();
        let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
        let mut router = Router::new(pool, &infos);
        router.neighbors.announce();
        let config = WorkerConfig { wait, ..WorkerConfig::default() };
        let mut worker = Worker::new(router, ports, MonotonicClock::start(), config).unwrap();
        ready.send((worker.waker(), infos.iter().map(|info| info.mode).collect(), features)).unwrap();
        worker.run(&stopped, &mut |_: Tick<'_, Router>| Verdict::Continue);
        let (turns, invalid) =
            (worker.stats().turns, worker.ports().iter().map(|port| port.stats.invalid_descriptors).sum());
        let mut router = worker.close();
        router.neighbors.release_all(&mut router.pool);
        let Router { pool, forwarded, malformed, counters, .. } = router;
        Outcome { in_use: pool.in_use(), forwarded, malformed, turns, counters, invalid }
    });
    let (waker, modes, features) = started.recv().expect("the box starts");
    Running { stop, waker, thread, modes, features }
}

impl Running {
    fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.raise();
        let outcome = self.thread.join().unwrap();
        assert_eq!(outcome.in_use, 0, "frames leaked: {outcome:?}");
        assert_eq!(outcome.invalid, 0, "the kernel refused descriptors: {outcome:?}");
        outcome
    }
}

const SLEEP: Wait = Wait::Sleep { spin: mimbox_stack::Duration::from_micros(20) };

/// An unprivileged ICMP socket in the calling thread's namespace, and the type of its echo requests.
fn icmp_socket(dst: std::net::IpAddr) -> (std::net::UdpSocket, u8) {
    let (family, protocol, kind) = if dst.is_ipv4() {
        (libc::AF_INET, libc::IPPROTO_ICMP, 8)
    } else {
        (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128)
    };
    // SAFETY: takes no pointers; the descriptor is owned at once.
    let socket = unsafe {
        use std::os::fd::FromRawFd;
        let fd = libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol);
        assert!(fd >= 0, "ICMP socket: {}", std::io::Error::last_os_error());
        std::net::UdpSocket::from_raw_fd(fd)
    };
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    (socket, kind)
}

/// Pings `dst` from the calling thread's namespace.
fn ping(dst: &str) -> bool {
    let dst: std::net::IpAddr = dst.parse().unwrap();
    let (socket, kind) = icmp_socket(dst);
    for sequence in 0..10u8 {
        let request = [kind, 0, 0, 0, 0, 0, 0, sequence, 1, 2, 3, 4, 5, 6, 7, 8];
        if socket.send_to(&request, SocketAddr::new(dst, 0)).is_err() {
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let mut reply = [0; 64];
        if let Ok(len) = socket.recv(&mut reply) {
            return reply[8..len] == request[8..];
        }
    }
    false
}

fn allow_ping(lab: &Lab) {
    for name in ["left", "right"] {
        lab.sh(name, "sysctl -qw net.ipv4.ping_group_range='0 2147483647'");
    }
}

/// Sends `bytes` from right to left over TCP and says how long it took.
fn transfer(lab: &Lab, listen: &'static str, bytes: usize) -> Duration {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = lab.spawn("right", move || {
        let listener = TcpListener::bind(listen).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let chunk: Vec<u8> = (0..65536u32).map(|n| (n % 251) as u8).collect();
        let mut left = bytes;
        while left > 0 {
            let n = left.min(chunk.len());
            stream.write_all(&chunk[..n]).unwrap();
            left -= n;
        }
    });
    listening.recv().unwrap();
    let took = lab.within("left", move || {
        let started = Instant::now();
        let mut stream = TcpStream::connect_timeout(&listen.parse().unwrap(), Duration::from_secs(5)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = vec![0; 65536];
        let mut at = 0;
        while at < bytes {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the connection ended after {at} of {bytes} bytes");
            let right = buffer[..n].iter().enumerate().all(|(i, byte)| *byte == (((at + i) % 65536) % 251) as u8);
            assert!(right, "wrong bytes after {at}");
            at += n;
        }
        started.elapsed()
    });
    server.join().unwrap();
    took
}

#[test]
fn the_box_answers_ping_and_forwards_it_over_ipv4_and_ipv6() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    let running = start(&lab, config(), SLEEP);
    assert_eq!(running.modes, [PortMode::Copy; 2]);
    for dst in ["10.77.1.1", "fd77:1::1", "10.77.2.1", "fd77:2::1", "10.77.2.2", "fd77:2::2"] {
        assert!(lab.within("left", move || ping(dst)), "no answer from {dst}");
    }
    let outcome = running.stop();
    assert!(outcome.counters.get(Counter::PingReplies) >= 4, "{outcome:?}");
    assert!(outcome.counters.get(Counter::ArpReplies) >= 1 && outcome.counters.get(Counter::NdpReplies) >= 1);
    assert!(outcome.forwarded >= 4 && outcome.malformed == 0, "{outcome:?}");
}

#[test]
fn tcp_crosses_two_ports_unharmed_in_native_and_in_generic_mode() {
    if !privileged() {
        return;
    }
    for attach in [AttachMode::Native, AttachMode::Generic] {
        let lab = Lab::new();
        let mut config = config();
        for port in &mut config.ports {
            port.attach = attach;
        }
        let running = start(&lab, config, SLEEP);
        let mode = if attach == AttachMode::Native { PortMode::Copy } else { PortMode::CopyGeneric };
        assert_eq!(running.modes, [mode; 2]);
        for listen in ["10.77.2.2:5001", "[fd77:2::2]:5001"] {
            transfer(&lab, listen, 20_000_000);
        }
        running.stop();
    }
}

#[test]
fn an_idle_box_sleeps() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let running = start(&lab, config(), SLEEP);
    std::thread::sleep(Duration::from_millis(1_500));
    let outcome = running.stop();
    assert!(outcome.turns < 100_000, "{} turns in a second and a half of nothing", outcome.turns);
}

/// The round-trip time to the box that three of four pings take at least, when it has had nothing to do for a while.
fn usual_round_trip(lab: &Lab, wait: Wait) -> Duration {
    let running = start_at(lab, config(), wait, Some(10));
    let times = lab.within("left", || {
        // Both ends come before what else the machine does.
        let _ = run_in_real_time(20);
        let dst: std::net::IpAddr = "10.77.1.1".parse().unwrap();
        let (socket, kind) = icmp_socket(dst);
        let mut times: Vec<Duration> = (0..200u8)
            .filter_map(|sequence| {
                std::thread::sleep(Duration::from_millis(3));
                let sent = Instant::now();
                socket.send_to(&[kind, 0, 0, 0, 0, 0, 0, sequence, 9], SocketAddr::new(dst, 0)).ok()?;
                socket.recv(&mut [0; 64]).ok()?;
                Some(sent.elapsed())
            })
            .collect();
        times.sort_unstable();
        times
    });
    running.stop();
    assert!(times.len() > 150, "only {} of 200 pings were answered", times.len());
    times[times.len() / 4]
}

/// What the system itself takes to wake a thread that waits for a descriptor: the usual time from a request to its answer,
/// less that of a thread that looks without pause.
fn usual_wake() -> Duration {
    let round_trip = |sleeps: bool| {
        let (request, answer) = (Notify::new().unwrap(), Notify::new().unwrap());
        let (asked, answering) = (request.clone(), answer.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let _ = run_in_real_time(10);
            while !stopped.load(Ordering::Relaxed) {
                if sleeps {
                    wait_for(&asked);
                }
                if asked.take() {
                    answering.raise();
                }
            }
        });
        let times = std::thread::spawn(move || {
            let _ = run_in_real_time(20);
            let mut times: Vec<Duration> = (0..200)
                .map(|_| {
                    std::thread::sleep(Duration::from_millis(3));
                    let sent = Instant::now();
                    request.raise();
                    while !answer.take() {
                        wait_for(&answer);
                    }
                    sent.elapsed()
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            request.raise();
            times.sort_unstable();
            times
        });
        let times = times.join().unwrap();
        thread.join().unwrap();
        times[times.len() / 4]
    };
    let looking = round_trip(false);
    round_trip(true).saturating_sub(looking)
}

/// Sleeps until a notification is raised.
fn wait_for(notify: &Notify) {
    let mut poll = libc::pollfd { fd: notify.fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: reads and writes one live entry.
    unsafe { libc::poll(&raw mut poll, 1, 1_000) };
}

#[test]
fn a_box_that_slept_answers_no_more_than_50_microseconds_later_than_the_system_wakes_it() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    // Other work on the machine spoils a comparison of microseconds; a box that is slow to wake is so every time.
    let mut told = String::new();
    let holds = (0..5).any(|_| {
        let (wake, looking) = (usual_wake(), usual_round_trip(&lab, Wait::BusyPoll));
        let sleeping = usual_round_trip(&lab, SLEEP);
        told =
            format!("{looking:?} while it looks without pause, {sleeping:?} when it sleeps; a bare wake is {wake:?}");
        println!("{told}");
        sleeping <= looking + wake + Duration::from_micros(50)
    });
    assert!(holds, "{told}");
}

#[test]
fn a_port_tells_what_it_got_and_why_not_the_rest() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let told = |config: AfXdpConfig| {
        let running = start(&lab, config, SLEEP);
        let features = running.features.clone();
        running.stop();
        move |port: usize, name: &str| {
            let feature = features[port].iter().find(|feature| feature.name == name).unwrap();
            (feature.got, feature.detail.clone())
        }
    };
    let feature = told(config());
    for port in 0..2 {
        // A veth pair has no zero-copy, and every kernel that this runs on keeps flags on its rings.
        let (got, why) = feature(port, "zero_copy");
        assert!(!got && why.contains("the driver of p0 has it not"), "{why}");
        assert!(feature(port, "native_xdp").0 && feature(port, "need_wakeup").0);
        let (got, why) = feature(port, "busy_poll");
        assert!(!got && why.contains("kernel-busy-poll"), "{why}");
        let (got, budget) = feature(port, "tx_budget");
        assert!(budget.starts_with(if got { "1024 frames" } else { "32 frames" }), "{budget}");
    }
    let mut other = AfXdpConfig { busy_poll: Some(BusyPoll::default()), copy: CopyMode::Copy, ..config() };
    other.ports[1].attach = AttachMode::Generic;
    let feature = told(other);
    assert_eq!(feature(0, "zero_copy"), (false, "`copy` asks for copies".to_owned()));
    assert_eq!(feature(1, "native_xdp"), (false, "`mode` asks for generic XDP".to_owned()));
    let (got, how) = feature(0, "busy_poll");
    assert!(got && how.contains("64 packets") && how.contains("napi_defer_hard_irqs"), "{how}");
}

#[test]
fn what_is_not_the_boxs_goes_on_to_the_kernel() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    let middle = lab.netns("box");
    common::sh(&format!(
        "ip -n {middle} addr add 10.77.1.9/24 dev p0; ip -n {middle} addr add fd77:1::9/64 dev p0 nodad"
    ));
    let mut config = config();
    for port in &mut config.ports {
        port.take = Take::Own;
    }
    let running = start(&lab, config, SLEEP);
    for dst in ["10.77.1.1", "10.77.1.9", "fd77:1::1", "fd77:1::9"] {
        assert!(lab.within("left", move || ping(dst)), "no answer from {dst}");
    }
    let outcome = running.stop();
    assert_eq!((outcome.counters.get(Counter::PingReplies), outcome.forwarded), (2, 0), "{outcome:?}");
}

#[test]
fn a_second_box_starts_at_once_after_the_first_stopped() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    for _ in 0..5 {
        let running = start(&lab, config(), SLEEP);
        assert!(lab.within("left", || ping("10.77.1.1")));
        running.stop();
    }
}

#[test]
fn an_interface_that_goes_down_and_comes_back_is_used_again() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    let middle = lab.netns("box");
    let running = start(&lab, config(), SLEEP);
    assert!(lab.within("left", || ping("10.77.2.2")));
    common::sh(&format!("ip -n {middle} link set p1 down"));
    assert!(lab.within("left", || ping("10.77.1.1")), "the other port goes on");
    assert!(!lab.within("left", || ping("10.77.2.2")));
    common::sh(&format!("ip -n {middle} link set p1 up"));
    assert!(lab.within("left", || ping("10.77.2.2")), "it is used again");
    let outcome = running.stop();
    assert!(outcome.turns < 500_000, "{} turns: a port that is down keeps the box from sleeping", outcome.turns);
}

#[test]
fn an_interface_that_vanishes_does_not_stop_the_others() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    let running = start(&lab, config(), SLEEP);
    assert!(lab.within("left", || ping("10.77.2.2")));
    common::sh(&format!("ip -n {} link del p1", lab.netns("box")));
    assert!(!lab.within("left", || ping("10.77.2.2")));
    assert!(lab.within("left", || ping("10.77.1.1")), "the other port goes on");
    let outcome = running.stop();
    assert!(outcome.turns < 500_000, "{} turns: a port that is gone keeps the box from sleeping", outcome.turns);
}

#[test]
fn trouble_is_named_with_what_to_do() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let open = |change: fn(&mut AfXdpConfig)| {
        let mut config = config();
        config.patience = Duration::from_millis(50);
        change(&mut config);
        lab.within("box", move || {
            let mut pool = pool();
            let error = af_xdp::open(&mut pool, &config).err();
            assert!(error.is_none() || pool.in_use() == 0, "frames leaked");
            error.map(|error| (error.to_string(), std::mem::discriminant(&error)))
        })
    };
    let (text, _) = open(|config| config.ports[0].interface = "nosuch0".into()).unwrap();
    assert!(text.contains("no interface `nosuch0`"), "{text}");
    let (text, _) = open(|config| config.ports[1].interface = "p0".into()).unwrap();
    assert!(text.contains("stands in two ports"), "{text}");
    let (text, kind) = open(|config| config.copy = CopyMode::ZeroCopy).unwrap();
    assert!(text.contains("p0") && kind != std::mem::discriminant(&PortError::NoAfXdp), "{text}");
    let running = start(&lab, config(), SLEEP);
    let (text, _) = open(|_| ()).unwrap();
    assert!(text.contains("`p0` is taken"), "{text}");
    running.stop();
    common::sh(&format!("ip -n {} link set p0 mtu 3000", lab.netns("box")));
    let (text, _) = open(|_| ()).unwrap();
    assert!(text.contains("mtu 1774") && text.contains("frame_size = 4096"), "{text}");
    let many = lab.netns("box");
    common::sh(&format!(
        "ip -n {many} link add q0 numrxqueues 4 numtxqueues 4 type veth peer name q1; ip -n {many} link set q0 up"
    ));
    let (text, _) = open(|config| config.ports[0].interface = "q0".into()).unwrap();
    assert!(text.contains("has 4 receive queues") && text.contains("ethtool -L q0 rx 1"), "{text}");
}

#[test]
fn busy_polling_forwards_too() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let config = AfXdpConfig { busy_poll: Some(BusyPoll::default()), ..config() };
    let running = start(&lab, config, Wait::BusyPoll);
    transfer(&lab, "10.77.2.2:5002", 10_000_000);
    running.stop();
}

/// Says to the test below that it is the process to be killed, and where.
const VICTIM: &str = "MIMBOX_TEST_VICTIM";

/// Not a test by itself: run again by the next one as a process of its own, it is a box until it is killed.
#[test]
fn a_process_to_be_killed() {
    let Some(netns) = std::env::var_os(VICTIM) else { return };
    common::enter(&netns.to_string_lossy());
    let mut pool = pool();
    let ports = af_xdp::open(&mut pool, &config()).unwrap();
    let infos: Vec<_> = ports.iter().map(|port| port.info().clone()).collect();
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect();
    let router = Router::new(pool, &infos);
    let config = WorkerConfig { wait: SLEEP, ..WorkerConfig::default() };
    let mut worker = Worker::new(router, ports, MonotonicClock::start(), config).unwrap();
    worker.run(&AtomicBool::new(false), &mut |_: Tick<'_, Router>| Verdict::Continue);
}

fn victim(lab: &Lab) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_to_be_killed", "--nocapture"])
        .env(VICTIM, format!("/run/netns/{}", lab.netns("box")))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_box_leaves_its_interfaces_to_the_kernel_and_the_next_one_starts_at_once() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    allow_ping(&lab);
    let middle = lab.netns("box");
    common::sh(&format!("ip -n {middle} addr add 10.77.1.9/24 dev p0"));
    for _ in 0..3 {
        let mut child = victim(&lab);
        assert!(lab.within("left", || ping("10.77.2.2")), "the box forwards");
        assert!(common::sh(&format!("ip -n {middle} link show dev p0")).contains("prog/xdp"));
        child.kill().unwrap();
        child.wait().unwrap();
        let started = Instant::now();
        let running = start(&lab, config(), SLEEP);
        assert!(started.elapsed() < Duration::from_millis(1_500), "the next box took {:?}", started.elapsed());
        assert!(lab.within("left", || ping("10.77.2.2")), "the next box forwards");
        running.stop();
    }
    let mut child = victim(&lab);
    assert!(lab.within("left", || ping("10.77.2.2")));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lab.within("left", || ping("10.77.1.9")), "the kernel has the interface");
    assert!(!common::sh(&format!("ip -n {middle} link show dev p0")).contains("prog/xdp"), "no program is left");
}
