//! A box over ports in memory, from its start to its end, with an engine that keeps what it gets.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use mimbox_dataplane::memory::{MemoryConfig, MemoryEnd, with_end};
use mimbox_dataplane::{Engine, Notify, Order};
use mimbox_stack::{Counter, Counters, FrameId, Instant, PortId, RxFrame, TxFrame};

use super::*;
use crate::admin::{ask_connections, ask_stats};
use crate::metrics::{ConnectionList, RunState, Snapshot};

/// Keeps every frame until it is told to reset: each counts as a conversion.
struct Keeper {
    pool: FramePool,
    counters: Counters,
    kept: Vec<FrameId>,
    refuses: bool,
    leaks: bool,
}

impl Keeper {
    fn new() -> Self {
        let region = Region::map(1024, 2048).expect("memory");
        let pool = FramePool::new(region, PoolConfig { rx_reserve: 64 });
        Self { pool, counters: Counters::default(), kept: Vec::new(), refuses: false, leaks: false }
    }
}

impl Engine for Keeper {
    fn on_frames(&mut self, _: Instant, batch: &mut Vec<RxFrame>) {
        for rx in batch.drain(..) {
            self.counters.inc(Counter::RxFrames);
            if self.refuses {
                self.pool.release(rx.frame);
            } else {
                self.kept.push(rx.frame);
            }
        }
    }
    fn on_timer(&mut self, _: Instant) {}
    fn obey(&mut self, _: Instant, order: Order) {
        match order {
            Order::RefuseOpenings => self.refuses = true,
            Order::ResetAll if self.leaks => {}
            Order::Link { .. } => {}
            Order::ResetAll => self.kept.drain(..).for_each(|frame| self.pool.release(frame)),
        }
    }
    fn poll_transmit(&mut self, _: Instant) -> Option<TxFrame> {
        None
    }
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

impl Operated for Keeper {
    fn observe(&self, snapshot: &mut Snapshot) {
        snapshot.counters.clone_from(&self.counters);
        snapshot.conversions.live = self.kept.len() as u64;
        snapshot.ports[0].checksum_partial = self.kept.len() as u64;
    }
    fn connections(&mut self, _: Instant, limit: usize) -> ConnectionList {
        ConnectionList { total: limit as u64, connections: Vec::new() }
    }
    fn heaviest(&mut self) -> Option<crate::metrics::Heaviest> {
        None
    }
    fn timer_fault(&mut self, _: Instant) -> Option<String> {
        None
    }
    fn release_all(&mut self, _: Instant) {}
}

fn config(directory: &Path, more: &str) -> Config {
    let text = format!(
        "[[port]]\nname = \"wan0\"\ninterface = \"eth1\"\nbackend = \"memory\"\nmac = \"02:00:00:00:00:01\"\n\
         addresses = [\"192.0.2.1/24\", \"2001:db8::1/64\"]\n[explicit]\nports = [\"wan0\"]\n[admin]\nsocket = \"{}\"\n{more}",
        directory.join("box.sock").display()
    );
    Config::parse(&text, "box.toml").unwrap_or_else(|error| panic!("{error}"))
}

/// A box that runs on a thread of its own.
struct Running {
    config: Config,
    end: MemoryEnd,
    stop_requests: Arc<AtomicU8>,
    waker: Notify,
    thread: JoinHandle<Result<(), Failure>>,
    _directory: tempfile::TempDir,
}

impl Running {
    fn start(more: &str, leaks: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path(), more);
        let (port, end) = with_end(PortId(0), MemoryConfig::default()).expect("a port");
        let stop_requests = Arc::new(AtomicU8::new(0));
        let (settings, requests) = (config.clone(), Arc::clone(&stop_requests));
        let (hand, handed) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().spawn(move || {
            let engine = Keeper { leaks, ..Keeper::new() };
            let worker_config = worker_config(&settings);
            let worker = Worker::new(engine, vec![Box::new(port)], MonotonicClock::start(), worker_config);
            let worker = worker.expect("a worker");
            hand.send(worker.waker()).expect("somebody waits");
            serve(worker, &settings, requests)
        });
        let waker = handed.recv().expect("the worker is there");
        let running =
            Self { config, end, stop_requests, waker, thread: thread.expect("a thread"), _directory: directory };
        running.until(|_| true);
        running
    }

    /// The first snapshot that satisfies `wanted`.
    fn until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        for _ in 0..1000 {
            match ask_stats(&self.config.admin.socket) {
                Ok(snapshot) if wanted(&snapshot) => return snapshot,
                _ => pause(),
            }
        }
        panic!("the box never came to the state that the test waits for");
    }

    fn ask_to_stop(&self) {
        self.stop_requests.fetch_add(1, Ordering::Relaxed);
        self.waker.raise();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test waits for another thread")]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(5));
}

#[test]
fn a_running_box_shows_its_ports_frames_and_counters() {
    let running = Running::start("", false);
    running.end.push(&[0; 60]);
    let snapshot = running.until(|snapshot| snapshot.counters.get(Counter::RxFrames) == 1);
    let port = &snapshot.ports[0];
    assert_eq!((port.name.as_str(), port.mode.as_str(), port.state.as_str()), ("wan0", "memory", "up"));
    assert_eq!((port.rx_frames, port.rx_bytes), (1, 60));
    assert_eq!((snapshot.pool.frames, snapshot.pool.in_use), (1024, 1), "rings are not counted as use");
    assert_eq!(snapshot.pool.free + snapshot.pool.in_rings + snapshot.pool.in_use, 1024);
    assert_eq!(ask_connections(&running.config.admin.socket, 3).expect("an answer").total, 3);
    running.ask_to_stop();
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
}

#[test]
fn an_idle_box_shows_what_is_and_not_what_was() {
    let running = Running::start("", false);
    for frames in 1..=20 {
        // Long enough that the worker sleeps, short enough that its own next look is far.
        pause();
        running.end.push(&[0; 60]);
        while running.end.unread() > 0 {
            pause();
        }
        let seen = ask_stats(&running.config.admin.socket).expect("an answer");
        assert_eq!(seen.counters.get(Counter::RxFrames), frames, "the worker has had the packet");
    }
    running.ask_to_stop();
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
}

#[test]
fn unfinished_checksums_come_with_advice() {
    let running = Running::start("", false);
    assert_eq!(running.until(|_| true).ports[0].advice, "");
    running.end.push(&[0; 60]);
    let advice = running.until(|snapshot| !snapshot.ports[0].advice.is_empty()).ports[0].advice.clone();
    assert!(advice.starts_with("port \"wan0\": segments arrive on eth1 with checksums"), "{advice}");
    assert!(advice.contains("tx off`"), "{advice}");
    running.ask_to_stop();
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
}

#[test]
fn a_box_without_conversions_stops_at_once() {
    let running = Running::start("[worker]\ndrain = \"1h\"", false);
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
    assert!(!running.config.admin.socket.exists(), "the socket is gone");
}

#[test]
fn a_box_with_conversions_drains_and_a_second_request_ends_that() {
    let running = Running::start("[worker]\ndrain = \"1h\"", false);
    running.end.push(&[0; 60]);
    running.until(|snapshot| snapshot.conversions.live == 1);
    running.ask_to_stop();
    running.until(|snapshot| snapshot.state == RunState::Draining);
    running.end.push(&[0; 60]);
    let snapshot = running.until(|snapshot| snapshot.counters.get(Counter::RxFrames) == 2);
    assert_eq!(snapshot.conversions.live, 1, "no conversion is opened any more");
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
}

#[test]
fn draining_has_its_time() {
    let running = Running::start("[worker]\ndrain = \"50ms\"", false);
    running.end.push(&[0; 60]);
    running.until(|snapshot| snapshot.conversions.live == 1);
    running.ask_to_stop();
    running.thread.join().expect("no panic").expect("a clean stop");
}

#[test]
fn frames_that_are_not_given_back_are_an_error_of_status_1() {
    let running = Running::start("[worker]\ndrain = \"1ms\"", true);
    running.end.push(&[0; 60]);
    running.until(|snapshot| snapshot.conversions.live == 1);
    running.ask_to_stop();
    let failure = running.thread.join().expect("no panic").expect_err("a frame is lost");
    assert_eq!((failure.status(), matches!(failure, Failure::Leak(1))), (1, true), "{failure}");
}

const ROUTE: &str = "[[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"192.0.2.254\"\n";

fn probe_with(more: &str, stop: bool) -> (Result<Vec<NextHop>, Failure>, Keeper) {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path(), more);
    let (port, end) = with_end(PortId(0), MemoryConfig::default()).expect("a port");
    let router = std::thread::Builder::new().spawn(move || answer_arp(&end)).expect("a thread");
    let mut keeper = Keeper::new();
    let mut ports = [port];
    let hops = probe::next_hops(&config, &mut keeper.pool, &mut ports, || stop);
    ports[0].close(&mut keeper.pool);
    let _ = router.join();
    (hops, keeper)
}

/// Answers the first question for 192.0.2.254, and nothing else.
fn answer_arp(end: &MemoryEnd) {
    for _ in 0..100 {
        let Some(mut packet) = end.pop() else {
            pause();
            continue;
        };
        if packet.get(38..42) == Some(&[192, 0, 2, 254]) {
            // RFC 826: the fields are swapped, and the sender says who it is.
            let asker: Vec<u8> = packet[22..32].to_vec();
            packet.copy_within(6..12, 0);
            packet[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
            packet[21] = 2;
            packet[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
            packet[28..32].copy_from_slice(&[192, 0, 2, 254]);
            packet[32..42].copy_from_slice(&asker);
            end.push(&packet);
            return;
        }
    }
}

#[test]
fn a_next_hop_that_answers_is_known_by_its_ethernet_address() {
    let (hops, keeper) = probe_with(ROUTE, false);
    let hops = hops.expect("it answers");
    assert_eq!(hops.len(), 1);
    assert_eq!((hops[0].via, hops[0].mac), (IpAddr::from([192, 0, 2, 254]), Some(MacAddr([2, 0, 0, 0, 0, 9]))));
    assert_eq!(keeper.pool.in_use(), 0, "probing leaves no frame behind");
}

#[test]
fn a_next_hop_that_does_not_answer_is_named_with_port_and_interface_and_has_status_2() {
    let silent = format!("{}[worker]\nnext_hop_wait = \"50ms\"", ROUTE.replace(".254", ".253"));
    let (hops, keeper) = probe_with(&silent, false);
    let failure = hops.expect_err("nobody is there");
    assert_eq!(failure.status(), 2);
    assert_eq!(
        failure.to_string(),
        "the next hop 192.0.2.253 does not answer ARP on port \"wan0\" (eth1): look at the cable and at the router, or \
         mend `via` of the [[route]]; a router that comes up later than the box needs a longer `next_hop_wait` under \
         [worker]"
    );
    assert_eq!(keeper.pool.in_use(), 0, "probing leaves no frame behind");
}

#[test]
fn waiting_for_a_next_hop_can_be_stopped() {
    let silent = format!("{}[worker]\nnext_hop_wait = \"1h\"", ROUTE.replace(".254", ".253"));
    let (hops, keeper) = probe_with(&silent, true);
    assert_eq!(hops.expect("a request to stop is no error")[0].mac, None);
    assert_eq!(keeper.pool.in_use(), 0, "probing leaves no frame behind");
}

#[test]
fn a_missing_interface_is_named_with_its_port() {
    let text = "[[port]]\nname = \"wan0\"\ninterface = \"no-such-if\"\naddresses = [\"192.0.2.1/24\"]\n\
                [explicit]\nports = [\"wan0\"]";
    let failure = complete(Config::parse(text, "box.toml").expect("a sound configuration")).expect_err("no interface");
    assert_eq!(failure.status(), 2);
    assert!(
        failure.to_string().starts_with("port \"wan0\": there is no interface `no-such-if` in this network namespace"),
        "{failure}"
    );
}

#[test]
fn a_backend_that_cannot_run_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let failure = complete(config(directory.path(), "")).expect_err("memory ports do not run");
    assert_eq!(
        failure.to_string(),
        "port \"wan0\": backend \"memory\" cannot be run by this version; write backend = \"af_xdp\""
    );
}

#[test]
fn a_recording_holds_seed_and_whole_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(directory.path(), "");
    let path = directory.path().join("box.pcapng");
    drop(recorder(&path, &config, 77).expect("a recording"));
    let recording = mimbox_dataplane::record::Recording::open(&path).expect("it opens");
    let head = recording.head();
    assert_eq!((head.seed, head.ports.as_slice()), (77, ["wan0".to_owned()].as_slice()));
    assert_eq!(Config::parse(&head.config, "recording").expect("it reads back"), config);
    let failure = Failure::from(recorder(Path::new("/proc/none/x"), &config, 1).expect_err("no such place"));
    assert!(failure.to_string().ends_with("give --record a path that can be written"), "{failure}");
}
