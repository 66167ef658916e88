//! How often the box asks its kernel: counted by `strace` from outside, and by the box itself.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mimbox_converter::metrics::Snapshot;
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{Configuration, LabOptions, Mode, Rate, Transfer};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::{Bench, MIB, eventually};

/// Packets received and sent that the bounds are about, at least.
const PACKETS: u64 = 1_000_000;

/// `strace -c -f` on a running process.
struct Strace {
    child: Child,
    table: std::path::PathBuf,
}

impl Strace {
    fn attach(pid: u32, directory: &FilePath) -> Result<Self> {
        let table = directory.join("strace.txt");
        let child = Command::new("strace")
            .args(["-c", "-f", "-o"])
            .arg(&table)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run strace: `make setup` installs what the tests need")?;
        let attached = || -> Result<()> {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let status = std::fs::read_to_string(task?.path().join("status"))?;
                let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
                ensure!(tracer.is_some_and(|tracer| tracer.trim() != "0"), "not traced: {status}");
            }
            Ok(())
        };
        eventually(Duration::from_secs(10), attached)?;
        Ok(Self { child, table })
    }

    /// Calls by their name.
    fn finish(mut self) -> Result<BTreeMap<String, u64>> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("strace has no number")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        let text = std::fs::read_to_string(&self.table)?;
        // % time, seconds, usecs/call, calls, perhaps errors, the name.
        let row = |line: &str| -> Option<(String, u64)> {
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = words.last().filter(|name| **name != "total")?;
            Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
        };
        Ok(text.lines().filter_map(row).collect())
    }
}

/// Packets received and sent.
fn packets(stats: &Snapshot) -> u64 {
    stats.ports.iter().map(|port| port.rx_frames + port.tx_frames).sum()
}

/// A box between kernels as fast as the machine goes.
fn bench() -> Result<Option<Bench>> {
    let options = LabOptions { rates: [Rate::Unlimited; 2], client_offloads: false, ..LabOptions::default() };
    Bench::with(options, &Configuration::new(Mode::Explicit))
}

#[test]
fn at_load_there_is_one_sendto_for_each_port_and_batch_at_most_and_one_call_for_32_packets() -> Result<()> {
    let Some(mut bench) = bench()? else { return Ok(()) };
    for direction in [Direction::Upload, Direction::Download] {
        let strace = Strace::attach(bench.middle.process().id(), bench.lab.directory())?;
        let before = bench.middle.stats()?;
        let mut after = before.clone();
        while packets(&after) - packets(&before) < PACKETS {
            bench.transfer(&Transfer { stall: 60, ..Transfer::new(direction, 320 * MIB) })?;
            after = bench.middle.stats()?;
        }
        let calls = strace.finish()?;
        let (packets, all) = (packets(&after) - packets(&before), calls.values().sum::<u64>());
        println!("{direction:?}: {packets} packets, {all} calls: {calls:?}");
        ensure!(all > 0 && all * 32 < packets, "{direction:?}: {packets} packets, {all} calls: {calls:?}");
        let turns = (after.worker.busy - before.worker.busy) + (after.worker.sleeps - before.worker.sleeps);
        let mut own = 0;
        for (after, before) in after.ports.iter().zip(&before.ports) {
            let rings = after.tx_calls - before.tx_calls;
            ensure!(rings <= turns, "{direction:?}: {rings} calls to send on {} in {turns} batches", after.name);
            own += rings;
        }
        // The box's own count is the system's, but for what is under way while the two are read.
        let seen = calls.get("sendto").copied().unwrap_or(0);
        ensure!(own > 0 && own.abs_diff(seen) <= own / 100 + 10, "{direction:?}: {own} by its count, {seen} seen");
    }
    bench.settled().map(drop)
}

#[test]
fn an_idle_box_makes_no_call_but_those_it_sleeps_in() -> Result<()> {
    let Some(mut bench) = bench()? else { return Ok(()) };
    bench.transfer(&Transfer::new(Direction::Upload, MIB))?;
    bench.settled()?;
    // Neighbours are asked for once more, and connections that the box closed first rest, for a while after the last packet.
    std::thread::sleep(Duration::from_secs(2));
    let strace = Strace::attach(bench.middle.process().id(), bench.lab.directory())?;
    std::thread::sleep(Duration::from_secs(3));
    let calls = strace.finish()?;
    let sleeps: u64 = ["ppoll", "restart_syscall"].iter().filter_map(|name| calls.get(*name)).sum();
    // Five sleeps a second, and what the neighbours' own packets wake it for.
    ensure!((5..60).contains(&sleeps), "{calls:?}");
    let others: u64 = calls.values().sum::<u64>() - sleeps;
    let sent = calls.get("sendto").copied().unwrap_or(0);
    ensure!(others == sent && sent <= 6, "an idle box answers neighbours and does nothing else: {calls:?}");
    Ok(())
}
