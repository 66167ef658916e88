//! What the box puts on the wire, by the judgement of tshark; and what others leave unfinished there.

use std::path::Path as FilePath;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Outcome};
use mimbox_tools::lab::{Capture, Configuration, Lab, LabOptions, Mode, Path, Plan, Rate, Transfer};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

use crate::bench::{Bench, MIB, PORT, eventually};

/// The Ethernet address of one of the box's ports.
fn mac_of(lab: &Lab, port: &str) -> Result<String> {
    let text = lab.middle().run("ip", &["-json", "link", "show", port])?;
    let json: serde_json::Value = serde_json::from_str(&text)?;
    json[0]["address"].as_str().map(str::to_owned).with_context(|| format!("{port} has no address: {text}"))
}

/// Lines that tshark prints for packets that match `filter`, checksums verified. What the lab's programs send is random:
/// tshark is told to take it for data, or it would take it for broken HTTP now and then, as port 8080 stands for that.
fn tshark(file: &FilePath, filter: &str) -> Result<Vec<String>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    command.args(["-d", &format!("tcp.port=={PORT},data"), "-Y", filter]);
    let output = command.output().context("cannot start tshark: install it")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Packets that tshark takes for broken: Ethernet, IP, ICMP, TCP and MPTCP. A TCP checksum of 0xffff for 0 is right, and
/// what a Linux client's kernel writes (its `skb_checksum_help`): it is seen in what the box only forwards. To tshark it is
/// an error and a bad checksum at once.
const BROKEN: &str = "_ws.malformed || tcp.option.len.invalid || ip.checksum.status == 0 || \
                      (!tcp.checksum.ffff && (_ws.expert.severity >= error || tcp.checksum.status == 0)) || \
                      icmp.checksum.status == 0 || icmpv6.checksum.status == 0";

fn nothing_is_broken(mode: Mode) -> Result<()> {
    // Slow enough that both paths are needed.
    let options = LabOptions { mode, rates: [Rate::mbit(100); 2], ..LabOptions::default() };
    let Some(mut bench) = Bench::with(options, &Configuration::new(mode))? else { return Ok(()) };
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
        bench.transfer(&Transfer { mptcp, stall: 60, ..Transfer::new(direction, 8 * MIB) })?;
    }
    bench.lab.set_loss(0)?;
    for (port, capture) in captures {
        let file = capture.stop()?;
        let seen = tshark(&file, "tcp")?.len();
        ensure!(seen > 100, "only {seen} segments were captured behind {port}");
        let broken = tshark(&file, BROKEN)?;
        ensure!(broken.is_empty(), "behind {port}: {}", broken.join("\n"));
        if port != "core0" {
            tshark_sees_what_is_broken(&file)?;
        }
    }
    Ok(())
}

/// Where an option of a TCP segment over IPv4 in an Ethernet frame begins.
fn option_at(frame: &[u8], kind: u8) -> Option<usize> {
    let end = TCP + usize::from(frame.get(TCP + 12)? >> 4) * 4;
    let mut at = TCP + 20;
    while at < end {
        match *frame.get(at)? {
            found if found == kind => return Some(at),
            1 => at += 1,
            _ => at += usize::from(*frame.get(at + 1)?).max(1),
        }
    }
    None
}

/// Offset of the TCP header: Ethernet, then IPv4 without options.
const TCP: usize = 14 + 20;

/// Gives a TCP segment over IPv4 the checksum that it should have (RFC 9293 §3.1).
fn set_checksum(frame: &mut [u8]) {
    frame[TCP + 16..TCP + 18].fill(0);
    let len = frame.len() - TCP;
    // Of the pseudo-header the addresses stand right before the TCP header; the protocol is 6.
    let words = frame[TCP - 8..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&b| b.into()));
    let mut sum = words.sum::<u32>() + 6 + len as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[TCP + 16..TCP + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The segment with payload that makes its checksum 0, which is written as 0xffff.
fn with_the_other_zero(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    // Two bytes of the payload at an even offset from the TCP header: with the checksum in their place, it comes out as 0.
    let at = TCP + 800;
    frame[at..at + 2].fill(0);
    set_checksum(&mut frame);
    frame.copy_within(TCP + 16..TCP + 18, at);
    frame[TCP + 16..TCP + 18].fill(0xff);
    frame
}

/// A full data segment with timestamps and a DSS from `file`.
fn a_data_segment(file: &FilePath) -> Result<Vec<u8>> {
    let mut reader = PcapReader::new(std::fs::File::open(file)?)?;
    while let Some(packet) = reader.next_packet() {
        let frame = packet?.data.into_owned();
        let mapped = option_at(&frame, 30).is_some_and(|at| frame[at + 1] >= 20) && option_at(&frame, 8).is_some();
        if mapped && frame.len() > 1000 {
            return Ok(frame);
        }
    }
    bail!("no data segment with a DSS in {}", file.display())
}

/// Whether tshark, asked as above, takes a frame for broken.
fn is_broken(directory: &FilePath, frame: &[u8]) -> Result<bool> {
    let file = directory.join("one.pcap");
    let mut writer = PcapWriter::new(std::fs::File::create(&file)?)?;
    writer.write_packet(&PcapPacket::new(Duration::from_secs(1), frame.len() as u32, frame))?;
    drop(writer);
    Ok(!tshark(&file, BROKEN)?.is_empty())
}

/// That tshark finds nothing means something only if it would have found it.
fn tshark_sees_what_is_broken(file: &FilePath) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let sound = a_data_segment(file)?;
    let (dss, timestamps) = (option_at(&sound, 30).context("no DSS")?, option_at(&sound, 8).context("no timestamps")?);
    let mut again = sound.clone();
    set_checksum(&mut again);
    ensure!(again == sound, "the test's own checksum is wrong");
    ensure!(!is_broken(directory.path(), &sound)?, "a sound segment counts as broken");
    let other_zero = with_the_other_zero(&sound);
    ensure!(!is_broken(directory.path(), &other_zero)?, "a checksum of 0xffff for 0 counts as broken");
    for (what, at, value) in [
        ("a DSS without its flags", dss + 1, 2),
        ("a DSS that is too short for what its flags say", dss + 1, 12),
        ("a DSS that is longer than the options", dss + 1, 60),
        ("timestamps of nine bytes", timestamps + 1, 9),
        ("a TCP header of 16 bytes", TCP + 12, 0x40),
        ("an IP header of 16 bytes", 14, 0x44),
    ] {
        let mut broken = sound.clone();
        broken[at] = value;
        set_checksum(&mut broken);
        ensure!(is_broken(directory.path(), &broken)?, "tshark passes over {what}");
    }
    for (what, at) in [("a wrong TCP checksum", TCP + 16), ("a wrong IP checksum", 14 + 10), ("wrong payload", 900)] {
        let mut broken = sound.clone();
        broken[at] ^= 0x55;
        ensure!(is_broken(directory.path(), &broken)?, "tshark passes over {what}");
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
    eventually(Duration::from_secs(15), || {
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
