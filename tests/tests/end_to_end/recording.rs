//! A live box is recorded; its replay sends what the box really sent, byte for byte. And captures by tcpdump are replayed.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use anyhow::{Context as _, Result, ensure};
use mimbox_converter::config::Config;
use mimbox_dataplane::pcap::{CaptureReader, CaptureWriter, Packet};
use mimbox_dataplane::record::Recording;
use mimbox_stack::TcpFlags;
use mimbox_stack::wire::{self, Parsed, Verify};
use mimbox_tools::lab::{BOX_PORTS, Capture, Lab, Mode, Namespace, Path, Plan, SessionOptions, record};
use mimbox_tools::replay::{ReplayArgs, replay_file};

use crate::bench::turn;

/// The devices that the box's ports transmit to, in the order of the ports.
fn peers(lab: &Lab) -> [(&Namespace, &'static str); 3] {
    [
        (lab.link(), Path::First.link_towards_box()),
        (lab.link(), Path::Second.link_towards_box()),
        (lab.server(), Plan::SERVER_INTERFACE),
    ]
}

/// Every packet of a capture.
fn packets(file: &FilePath) -> Result<Vec<Packet>> {
    let mut reader = CaptureReader::open(file).with_context(|| format!("{}", file.display()))?;
    std::iter::from_fn(|| reader.next_packet().transpose()).collect::<Result<_, _>>().context("a packet")
}

/// A recorded session, and what tcpdump saw at the devices beyond the box's ports.
struct Session {
    directory: tempfile::TempDir,
    recording: PathBuf,
    captures: Vec<Vec<Packet>>,
}

impl Session {
    fn run(mode: Mode, loss: u16) -> Result<Self> {
        let options = SessionOptions { mode, loss, size: 96 << 10 };
        let lab = Lab::build(options.lab())?;
        let directory = tempfile::tempdir()?;
        let mut running = Vec::new();
        for ((namespace, device), port) in peers(&lab).into_iter().zip(BOX_PORTS) {
            let file = directory.path().join(format!("{port}.pcap"));
            running.push(Capture::start(namespace, device, "", &file)?);
        }
        let recording = directory.path().join("session.pcapng");
        record(&lab, &options, &recording, |running| {
            let log = running.log();
            ensure!(!log.contains("ERROR"), "a box that is well complains:\n{log}");
            Ok(())
        })?;
        let captures = running.into_iter().map(|capture| packets(&capture.stop()?)).collect::<Result<_>>()?;
        Ok(Self { directory, recording, captures })
    }

    /// Frames that left each port, by the source address that is the port's.
    fn sent_by_the_box(&self, config: &Config) -> BTreeMap<u32, Vec<&[u8]>> {
        let mut of_port = BTreeMap::new();
        for (capture, port) in self.captures.iter().zip(0..) {
            let mac = config.ports[port as usize].mac_or_default();
            let all = capture.iter().map(|packet| packet.bytes.as_slice());
            of_port.insert(port, all.filter(|bytes| bytes.get(6..12) == Some(&mac[..])).collect());
        }
        of_port
    }
}

fn replays_as_sent(mode: Mode, loss: u16) -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let session = Session::run(mode, loss)?;
    let out = session.directory.path().join("out.pcapng");
    let args = ReplayArgs { file: session.recording.clone(), out: Some(out.clone()), ..ReplayArgs::default() };
    let replayed = replay_file(&args)?;
    ensure!(replayed.difference.is_none(), "{replayed}: {:?}", replayed.difference);

    let config = Config::parse(&Recording::open(&session.recording)?.head().config, "the recording")?;
    let out = packets(&out)?;
    let mut compared = 0;
    for (port, sent) in session.sent_by_the_box(&config) {
        let again: Vec<&[u8]> =
            out.iter().filter(|packet| packet.interface == port).map(|packet| packet.bytes.as_slice()).collect();
        let name = BOX_PORTS[port as usize];
        for (n, (sent, again)) in sent.iter().zip(&again).enumerate() {
            let byte = sent.iter().zip(*again).position(|(sent, again)| sent != again);
            ensure!(sent == again, "{name}: frame {n} of the replay is not what was sent, from byte {byte:?} on");
        }
        ensure!(sent.len() == again.len(), "{name} sent {} frames, the replay {}", sent.len(), again.len());
        ensure!(sent.len() > 50, "{name} sent {} frames: that is no session", sent.len());
        compared += sent.len() as u64;
    }
    ensure!(compared == replayed.frames, "{compared} frames of {} were compared", replayed.frames);
    Ok(())
}

#[test]
fn an_explicit_box_sends_the_same_again() -> Result<()> {
    replays_as_sent(Mode::Explicit, 0)
}

#[test]
fn a_transparent_box_on_lossy_paths_sends_the_same_again() -> Result<()> {
    replays_as_sent(Mode::Transparent, 30)
}

/// One pcapng of the captures of all ports, as `mergecap -I none` makes it.
fn merged(captures: &[Vec<Packet>], file: &FilePath) -> Result<()> {
    let mut writer = CaptureWriter::create(file, None)?;
    let mut all = Vec::new();
    for (capture, port) in captures.iter().zip(0u32..) {
        writer.interface("", None)?;
        all.extend(capture.iter().map(|packet| (packet.nanos, port, &packet.bytes)));
    }
    all.sort_by_key(|(nanos, ..)| *nanos);
    for (nanos, port, bytes) in all {
        writer.packet(port, nanos, None, bytes, None)?;
    }
    Ok(writer.flush()?)
}

#[test]
fn captures_by_tcpdump_go_through_the_same_engine() -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let session = Session::run(Mode::Explicit, 0)?;
    let file = |name: &str| session.directory.path().join(name);
    let head = Recording::open(&session.recording)?.head().clone();
    // As an operator's file is: the Ethernet addresses are the interfaces' own, and not written down.
    let config: String =
        head.config.lines().filter(|line| !line.starts_with("mac = ")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(file("box.toml"), &config)?;
    merged(&session.captures, &file("all.pcapng"))?;

    for (capture, name) in [("wan0.pcap", "wan0.out"), ("all.pcapng", "all.out"), ("all.pcapng", "again.out")] {
        let args = ReplayArgs {
            file: file(capture),
            config: Some(file("box.toml")),
            out: Some(file(name)),
            seed: Some(7),
            ..ReplayArgs::default()
        };
        let replayed = replay_file(&args)?;
        ensure!(replayed.events > 50 && replayed.skipped.sent > 50, "{capture}: {replayed}");
        // The peers' sockets answer a box of other sequence numbers, so only the openings are the live ones'.
        let out = packets(&file(name))?;
        let own = Config::parse(&head.config, "the recording")?.ports[0].mac_or_default();
        let answer = out.iter().find(|packet| packet.interface == 0).context("nothing went to the client")?;
        ensure!(answer.bytes[6..12] == own, "the box has not the address that the capture shows");
        let live = &session.captures[0].first().context("an empty capture")?.nanos;
        ensure!(answer.nanos.abs_diff(*live) < 3_600_000_000_000, "the output is not in the capture's time");
        if capture == "all.pcapng" {
            let opened = |packet: &&Packet| match wire::parse(&packet.bytes, 0, Verify::All) {
                Ok(Parsed::Tcp(_, segment)) => packet.interface == 2 && segment.flags == TcpFlags::SYN,
                _ => false,
            };
            let opened = out.iter().filter(opened).count();
            ensure!(opened >= 10, "{opened} of the session's connections were carried to the server");
        }
    }
    ensure!(std::fs::read(file("all.out"))? == std::fs::read(file("again.out"))?, "the same capture gave two outputs");
    Ok(())
}
