//! What the box puts on the wire, by the judgement of tshark; and what others leave unfinished there.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Outcome};
use mimbox_tools::lab::{Capture, Lab, Mode, Path, Plan, Transfer};

use crate::bench::{Bench, MIB, eventually};

/// The Ethernet address of one of the box's ports.
fn mac_of(lab: &Lab, port: &str) -> Result<String> {
    let text = lab.middle().run("ip", &["-json", "link", "show", port])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    json[0]["address"].as_str().map(str::to_owned).with_context(|| format!("{port} has no address: {text}"))
}

/// Lines that tshark prints for packets that match `filter`, checksums verified.
fn tshark(file: &std::path::Path, filter: &str) -> Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", filter]);
    let output = command.output().context("cannot start tshark: install it")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Packets that tshark takes for broken.
const BROKEN: &str = "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || \
                      icmp.checksum.status == 0 || icmpv6.checksum.status == 0";

fn nothing_is_broken(mode: Mode) -> Result<()> {
    let Some(mut bench) = Bench::new(mode)? else { return Ok(()) };
    let mut captures = Vec::new();
    for (port, namespace, device) in [
        ("wan0", bench.lab.link(), Path::First.link_towards_box()),
        ("wan1", bench.lab.link(), Path::Second.link_towards_box()),
        ("core0", bench.lab.server(), Plan::SERVER_INTERFACE),
    ] {
        let filter = format!("ether src {}", mac_of(&bench.lab, port)?);
        captures.push((port, Capture::start(namespace, device, &filter, &bench.lab.file(&format!("{port}.pcap")))?));
    }
    bench.lab.set_loss(10)?;
    for (direction, mptcp) in [(Direction::Upload, true), (Direction::Download, true), (Direction::Both, false)] {
        bench.transfer(&Transfer { mptcp, stall: 60, ..Transfer::new(direction, 4 * MIB) })?;
    }
    bench.lab.set_loss(0)?;
    for (port, capture) in captures {
        let file = capture.stop()?;
        let seen = tshark(&file, "tcp")?.len();
        ensure!(seen > 100, "only {seen} segments were captured behind {port}");
        let broken = tshark(&file, BROKEN)?;
        ensure!(broken.is_empty(), "behind {port}: {}", broken.join("\n"));
    }
    Ok(())
}

#[test]
fn tshark_finds_nothing_broken_in_explicit_mode() -> Result<()> {
    nothing_is_broken(Mode::Explicit)
}

#[test]
fn tshark_finds_nothing_broken_in_transparent_mode() -> Result<()> {
    nothing_is_broken(Mode::Transparent)
}

#[test]
fn checksums_that_a_device_left_unfinished_are_recognised() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    let device = Plan::SERVER_INTERFACE;
    bench.lab.server().run("ethtool", &["-K", device, "tx", "on"])?;
    let transfer = Transfer { stall: 3, ..Transfer::new(Direction::Upload, 1) };
    let running = transfer.start(&bench.lab, &bench.server)?;
    eventually(std::time::Duration::from_secs(15), || {
        let stats = bench.middle.stats()?;
        ensure!(stats.counters.get(Counter::DropTcpChecksumPartial) > 0, "nothing was counted");
        let log = bench.middle.log();
        ensure!(log.contains("ethtool -K") && log.contains("core0"), "the log does not say what mends it:\n{log}");
        let shown = bench.middle.ask(&["stats"])?;
        ensure!(shown.contains("ethtool -K"), "mimbox stats does not say what mends it:\n{shown}");
        Ok(())
    })?;
    drop(running);
    bench.lab.server().finish_checksums(device)?;
    let report = Transfer { seed: 2, ..Transfer::new(Direction::Upload, MIB) }.run(&bench.lab, &mut bench.server)?;
    ensure!(report.client.first().is_some_and(|client| client.outcome == Outcome::Complete), "{:?}", report.client);
    Ok(())
}
