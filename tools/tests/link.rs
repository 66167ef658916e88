//! The emulated link between two namespaces, with real kernels at its ends.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mimbox_dataplane::worker::run_in_real_time;
use mimbox_tools::lab::{Namespace, require_privileges};
use mimbox_tools::link::{Event, Statistics};

/// The ends must keep up with the link that they measure, whatever else this machine does.
fn measure() {
    let _ = run_in_real_time(10);
}

/// Two namespaces whose `e0`s meet in a third one, as `a0` and `b0`. Neighbours are set, so that a link sees what a test
/// sends and nothing else.
struct Net {
    a: Namespace,
    middle: Namespace,
    b: Namespace,
}

const A: &str = "10.66.0.1";
const B: &str = "10.66.0.2";

impl Net {
    fn build(name: &str) -> Result<Self> {
        let namespace = |role: &str| Namespace::create(format!("mbk-{name}-{}-{role}", std::process::id()));
        let net = Self { a: namespace("a")?, middle: namespace("link")?, b: namespace("b")? };
        for end in [&net.a, &net.middle, &net.b] {
            end.sysctl(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")])?;
        }
        let mut lines = String::new();
        for (n, end) in [("a", &net.a), ("b", &net.b)] {
            let mac = |side: u8| format!("02:4d:42:00:{}:0{side}", if n == "a" { "0a" } else { "0b" });
            lines.push_str(&format!(
                "link add {n}0 address {} type veth peer name e0 address {} netns {}\nlink set {n}0 up\n",
                mac(1),
                mac(2),
                end.name()
            ));
        }
        net.middle.ip(&lines)?;
        for (end, own, other, mac) in [(&net.a, A, B, "02:4d:42:00:0b:02"), (&net.b, B, A, "02:4d:42:00:0a:02")] {
            end.ip(&format!(
                "link set e0 up\naddress add {own}/24 dev e0\nneigh add {other} lladdr {mac} dev e0 nud permanent\n"
            ))?;
            end.run("tc", &["qdisc", "replace", "dev", "e0", "root", "pfifo", "limit", "2000"])?;
        }
        Ok(net)
    }

    fn socket(end: &Namespace, own: &str, other: &str) -> Result<UdpSocket> {
        let socket = end.enter(|| -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind((own, 7000))?;
            socket.connect((other, 7000))?;
            Ok(socket)
        })??;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    }

    fn sockets(&self) -> Result<(UdpSocket, UdpSocket)> {
        Ok((Self::socket(&self.a, A, B)?, Self::socket(&self.b, B, A)?))
    }

    fn link(&self, arguments: &[&str]) -> Result<Running> {
        let mut command = self.middle.command(env!("CARGO_BIN_EXE_mimbox-lab"));
        command.args(["link", "a0", "b0", "--json"]).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut running = Running { child, output };
        match running.event()? {
            Event::Ready { .. } => Ok(running),
            other => bail!("{other:?} where readiness was due"),
        }
    }
}

struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn event(&mut self) -> Result<Event> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the link printed {line:?}"))
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    fn stop(mut self) -> Result<Statistics> {
        self.signal("TERM")?;
        let statistics = loop {
            match self.event()? {
                Event::End(statistics) => break statistics,
                _ => continue,
            }
        };
        ensure!(self.child.wait()?.success(), "the link failed");
        ensure!(statistics.own_losses.total() == 0, "{statistics}");
        Ok(statistics)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Round-trip times between the ends, in order.
fn round_trips(a: &UdpSocket, b: &UdpSocket, count: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let echo = scope.spawn(move || {
            measure();
            let mut buffer = [0; 2000];
            while let Ok(len) = b.recv(&mut buffer) {
                if len < 2 {
                    break;
                }
                let _ = b.send(&buffer[..len]);
            }
        });
        let mut buffer = [0; 2000];
        for _ in 0..count {
            let began = Instant::now();
            a.send(&[7; 100])?;
            if a.recv(&mut buffer).is_ok() {
                times.push(began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        a.send(&[0])?;
        let _ = echo.join();
        Ok(())
    })?;
    times.sort();
    Ok(times)
}

/// Sends `count` numbered datagrams of `len` bytes, `gap` apart, and says which arrive, in the order in which they do.
fn numbered(from: &UdpSocket, to: &UdpSocket, count: u32, len: usize, gap: Duration) -> Result<Vec<u32>> {
    measure();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            measure();
            let mut seen = Vec::new();
            let mut buffer = [0; 2000];
            while let Ok(got) = to.recv(&mut buffer) {
                if let Some(number) = buffer[..got].first_chunk::<4>() {
                    seen.push(u32::from_be_bytes(*number));
                }
            }
            seen
        });
        let mut packet = vec![0; len];
        let began = Instant::now();
        for number in 0..count {
            packet[..4].copy_from_slice(&number.to_be_bytes());
            from.send(&packet)?;
            while began.elapsed() < gap * (number + 1) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))
    })
}

/// Measures up to five times: other work on the machine makes a link late and slow, never early or fast, so one good
/// measurement tells what the link does by itself.
fn in_one_of_five(mut measurement: impl FnMut() -> Result<Result<(), String>>) -> Result<()> {
    let mut outcomes = Vec::new();
    for _ in 0..5 {
        match measurement()? {
            Ok(()) => return Ok(()),
            Err(outcome) => outcomes.push(outcome),
        }
    }
    anyhow::bail!("five times: {}", outcomes.join("; "))
}

#[test]
fn the_round_trip_is_the_sum_of_both_delays() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    measure();
    let net = Net::build("rtt")?;
    let (a, b) = net.sockets()?;
    for (delay, expected) in [("10ms", 20_000), ("30ms,5ms", 35_000), ("500us", 1_000)] {
        in_one_of_five(|| {
            let link = net.link(&["--delay", delay, "--rate", "1gbit"])?;
            let times = round_trips(&a, &b, 60)?;
            let statistics = link.stop()?;
            ensure!(times.len() == 60, "{} of 60 came back", times.len());
            let (first, median) = (times[0].as_micros(), times[30].as_micros());
            // Never early; less than a millisecond late at the median.
            assert!(first >= expected, "{first} µs for {delay}");
            assert!(statistics.finished_checksums >= 120, "{statistics}");
            Ok(if median < expected + 1_000 { Ok(()) } else { Err(format!("{median} µs for {delay}; {statistics}")) })
        })?;
    }
    Ok(())
}

#[test]
fn a_flood_comes_out_at_the_rate_and_the_queue_takes_the_rest() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    measure();
    let net = Net::build("rate")?;
    let (a, b) = net.sockets()?;
    let link = net.link(&["--rate", "20mbit,100mbit", "--queue", "256k", "--delay", "1ms"])?;
    for (from, to, rate) in [(&a, &b, 20e6), (&b, &a, 100e6)] {
        in_one_of_five(|| {
            let stop = Instant::now() + Duration::from_secs(2);
            let (bytes, took) = std::thread::scope(|scope| {
                let receiver = scope.spawn(move || {
                    measure();
                    let mut buffer = [0; 2000];
                    let (mut bytes, mut first, mut last) = (0, None, Instant::now());
                    while let Ok(len) = to.recv(&mut buffer) {
                        last = Instant::now();
                        // Bytes count from the first packet's end to the last one's.
                        match first {
                            None => first = Some(last),
                            Some(_) => bytes += len + 28,
                        }
                    }
                    (bytes, first.map(|first| last - first).unwrap_or_default())
                });
                let packet = [5; 1472];
                while Instant::now() < stop {
                    // Half again of what the link takes.
                    for _ in 0..(rate * 1.5 / 8.0 / 1500.0 / 500.0) as usize + 1 {
                        let _ = from.send(&packet);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))
            })?;
            let measured = bytes as f64 * 8.0 / took.as_secs_f64();
            // Never faster; a machine with other work may be slower.
            assert!(measured / rate < 1.01, "{measured:.0} of {rate}");
            Ok(if measured / rate > 0.99 { Ok(()) } else { Err(format!("{measured:.0} of {rate}")) })
        })?;
    }
    let statistics = link.stop()?;
    assert!(statistics.ways.iter().all(|way| way.overflowed > 100), "{statistics}");
    Ok(())
}

#[test]
fn two_runs_with_a_seed_lose_the_same_packets() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let net = Net::build("seed")?;
    let (a, b) = net.sockets()?;
    let run = |seed: &str, len: usize, micros: u64| -> Result<Vec<u32>> {
        let link = net.link(&["--loss", "3%,0%", "--burst", "0.2%/30%", "--seed", seed, "--delay", "5ms"])?;
        let seen = numbered(&a, &b, 2000, len, Duration::from_micros(micros))?;
        link.stop()?;
        Ok(seen)
    };
    let first = run("5", 100, 300)?;
    assert_eq!(first, run("5", 1200, 700)?);
    assert_ne!(first, run("6", 100, 300)?);
    let lost = 2000 - first.len();
    assert!((30..200).contains(&lost), "{lost} lost");
    Ok(())
}

#[test]
fn packets_are_held_back_doubled_and_changed_as_asked() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let net = Net::build("mix")?;
    let (a, b) = net.sockets()?;
    let link = net.link(&["--reorder", "5%/10ms", "--duplicate", "2%", "--corrupt", "1%", "--delay", "5ms"])?;
    let seen = numbered(&a, &b, 3000, 200, Duration::from_micros(300))?;
    let way = link.stop()?.ways[0].clone();
    let distinct: BTreeSet<u32> = seen.iter().copied().collect();
    let late = seen.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(late > 50, "{late} steps back");
    assert!((100..220).contains(&way.reordered), "{way}");
    assert!((30..110).contains(&way.duplicated), "{way}");
    // A receiver drops what does not sum up, and sees the copies of the rest.
    assert!(way.corrupted > 5 && distinct.len() < 3000, "{way}, {} seen", distinct.len());
    assert_eq!(seen.len() as u64, 3000 + way.duplicated - way.corrupted, "{way}");
    Ok(())
}

#[test]
fn a_cut_link_carries_nothing_until_it_is_mended() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let net = Net::build("cut")?;
    let (a, b) = net.sockets()?;
    let mut link = net.link(&["--delay", "1ms"])?;
    let pass = |wanted: bool| -> Result<()> {
        let seen = numbered(&a, &b, 20, 100, Duration::from_millis(1))?.len();
        ensure!(seen == if wanted { 20 } else { 0 }, "{seen} of 20 arrived");
        Ok(())
    };
    pass(true)?;
    for cut in [true, false] {
        link.signal("USR2")?;
        ensure!(matches!(link.event()?, Event::Cut { cut: now, .. } if now == cut), "not {cut}");
        pass(!cut)?;
    }
    link.signal("USR1")?;
    let Event::Statistics(statistics) = link.event()? else { bail!("no statistics") };
    assert_eq!((statistics.ways[0].delivered, statistics.ways[0].cut), (40, 20), "{statistics}");
    link.stop().map(drop)
}

#[test]
fn what_is_wrong_with_the_command_is_said() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let net = Net::build("errors")?;
    let said = |arguments: &[&str]| -> Result<String> {
        let output = net.middle.command(env!("CARGO_BIN_EXE_mimbox-lab")).arg("link").args(arguments).output()?;
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(said(&["a0", "nosuch"])?.contains("`nosuch`"));
    assert!(said(&["a0", "a0"])?.contains("two ports"));
    assert!(said(&["a0", "b0", "--delay", "10"])?.contains("20ms"));
    net.middle.ip("link set b0 down")?;
    assert!(said(&["a0", "b0"])?.contains("ip link set dev b0 up"));
    Ok(())
}
