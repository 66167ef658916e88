//! Recorded sessions of a live box through today's engine, against their golden outputs.
//!
//! The recordings under `tests/replay/` are of real kernels: a Linux MPTCP client with two paths, the box on AF_XDP, a Linux
//! TCP server. Their inputs stay as they are; when the engine is meant to send something else,
//! `mimbox-lab replay --bless tests/replay` writes the golden outputs anew.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use mimbox_dataplane::record::{Cause, Recording};
use mimbox_mptcp::{MptcpOption, parse as parse_mptcp};
use mimbox_stack::wire::{self, Parsed, Verify};
use mimbox_tools::replay::{ReplayArgs, replay_file};

const SESSIONS: [&str; 2] = ["explicit-clean", "transparent-lossy"];

fn session(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("replay").join(name)
}

fn recording(name: &str) -> PathBuf {
    session(&format!("{name}.pcapng"))
}

fn against_golden(name: &str) -> Result<()> {
    let golden = Some(session(&format!("{name}.golden.pcapng")));
    let replayed = replay_file(&ReplayArgs { file: recording(name), golden, ..ReplayArgs::default() })?;
    ensure!(replayed.events > 100 && replayed.frames > 100, "{replayed} is no session");
    if let Some(difference) = replayed.against_golden {
        anyhow::bail!(
            "{name}: the engine sends something else {difference}\n\
             If that is meant, `mimbox-lab replay --bless tests/replay` writes the golden outputs anew."
        );
    }
    Ok(())
}

#[test]
fn the_clean_explicit_session_gives_its_golden_output() -> Result<()> {
    against_golden(SESSIONS[0])
}

#[test]
fn the_lossy_transparent_session_gives_its_golden_output() -> Result<()> {
    against_golden(SESSIONS[1])
}

#[test]
fn a_replay_does_the_same_again_whatever_the_engine_makes_of_the_session() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for name in SESSIONS {
        // Another seed: its answers do not fit what the peers sent, and that too must be the same each time.
        for seed in [None, Some(7)] {
            let outputs: Vec<Vec<u8>> = (0..2)
                .map(|turn| {
                    let out = directory.path().join(format!("{turn}.pcapng"));
                    let args =
                        ReplayArgs { file: recording(name), out: Some(out.clone()), seed, ..ReplayArgs::default() };
                    replay_file(&args)?;
                    Ok(std::fs::read(out)?)
                })
                .collect::<Result<_>>()?;
            ensure!(!outputs[0].is_empty() && outputs[0] == outputs[1], "{name} with seed {seed:?}");
        }
    }
    Ok(())
}

/// What the packets of a recording show of the sessions that it is said to hold.
#[test]
fn the_sessions_hold_what_they_are_there_for() -> Result<()> {
    for name in SESSIONS {
        let mut recording = Recording::open(&recording(name))?;
        ensure!(recording.head().ports.len() == 3, "{:?}", recording.head().ports);
        let (mut seen, mut timers, mut orders) = (HashSet::new(), 0, 0);
        while let Some(event) = recording.next_event()? {
            match event.cause {
                Cause::Frames(frames) => frames.iter().for_each(|(port, bytes)| note(&mut seen, port.0, bytes)),
                Cause::Timer => timers += 1,
                Cause::Order(_) => orders += 1,
            }
        }
        ensure!(timers > 0 && orders == 2, "{name}: {timers} timer events, {orders} orders");
        let wanted = [
            "data on port 0",
            "data on port 1",
            "data on port 2",
            "capable",
            "join",
            "DATA_FIN",
            "FIN",
            "RST",
            "plain SYN",
        ];
        for what in wanted {
            ensure!(seen.contains(what), "{name} has no {what}");
        }
        ensure!((name == SESSIONS[1]) == seen.contains("SACK"), "{name}: losses where there should be none, or none");
    }
    Ok(())
}

fn note(seen: &mut HashSet<&'static str>, port: u8, frame: &[u8]) {
    let Ok(Parsed::Tcp(_, segment)) = wire::parse(frame, 0, Verify::All) else { return };
    if segment.payload_len > 0 {
        seen.insert(["data on port 0", "data on port 1", "data on port 2"][usize::from(port)]);
    }
    let flags = segment.flags;
    let mut options = segment.options.mptcp_slices().filter_map(|bytes| parse_mptcp(bytes).ok()).peekable();
    if flags.contains(mimbox_stack::TcpFlags::SYN) && port < 2 && options.peek().is_none() {
        seen.insert("plain SYN");
    }
    for option in options {
        match option {
            MptcpOption::Capable(_) => seen.insert("capable"),
            MptcpOption::Join(_) => seen.insert("join"),
            MptcpOption::Dss(dss) if dss.data_fin => seen.insert("DATA_FIN"),
            _ => false,
        };
    }
    for (flag, name) in [(mimbox_stack::TcpFlags::FIN, "FIN"), (mimbox_stack::TcpFlags::RST, "RST")] {
        if flags.contains(flag) {
            seen.insert(name);
        }
    }
    // A block below the acknowledgment tells of bytes that came twice, not of a gap (RFC 2883).
    if segment.options.sack.iter().any(|block| block.start.after(segment.ack)) {
        seen.insert("SACK");
    }
}

fn mimbox_lab(arguments: &[&str]) -> Result<Output> {
    let binary = mimbox_tools::lab::lab_binary()?;
    Command::new(&binary).args(arguments).output().with_context(|| format!("{binary:?}"))
}

/// Exit status and every one of `words` in what is printed.
fn ends_with(status: i32, arguments: &[&str], words: &[&str]) -> Result<()> {
    let output = mimbox_lab(arguments)?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(status), "{arguments:?}: {}: {text}", output.status);
    for word in words {
        ensure!(text.contains(word), "{arguments:?} does not say {word:?}:\n{text}");
    }
    Ok(())
}

#[test]
fn the_command_compares_blesses_and_says_where_an_output_differs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let here = directory.path().display().to_string();
    let name = SESSIONS[0];
    std::fs::copy(recording(name), directory.path().join("a.pcapng"))?;
    ends_with(2, &["replay", &here], &["a.pcapng has no golden output", "--bless"])?;
    ends_with(0, &["replay", "--bless", &here], &["frames out; written to", "a.golden.pcapng"])?;
    let golden = directory.path().join("a.golden.pcapng");
    ensure!(std::fs::read(&golden)? == std::fs::read(session(&format!("{name}.golden.pcapng")))?, "not what is kept");
    ends_with(0, &["replay", &here], &["as the golden output, byte for byte"])?;
    let mut bytes = std::fs::read(&golden)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&golden, bytes)?;
    ends_with(1, &["replay", &here], &["not as the golden output: at event ", "differs at byte ", "golden: ", "now: "])
}

#[test]
fn files_that_cannot_be_replayed_end_with_status_2_and_a_reason() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name).display().to_string();
    let whole = std::fs::read(recording(SESSIONS[0]))?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes);
    write("text", b"this is not a capture at all")?;
    write("empty", b"")?;
    write("cut.pcapng", &whole[..whole.len() / 2 + 1])?;
    let pcap = |link: u32, rest: &[u8]| {
        let words = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, link];
        [words.iter().flat_map(|word| word.to_le_bytes()).collect(), rest.to_vec()].concat()
    };
    write("cooked.pcap", &pcap(276, &[]))?;
    write("raw.pcap", &pcap(101, &[]))?;
    write("cut.pcap", &pcap(1, &[0; 20]))?;
    write("good.pcap", &pcap(1, &[]))?;
    let config = "[[port]]\nname = \"wan0\"\ninterface = \"eth1\"\naddresses = [\"192.0.2.1/24\"]\n[transparent]\nfrom = [\"wan0\"]\n";
    write("box.toml", config.as_bytes())?;
    write("bad.toml", b"[[port]]\nname = 7\n")?;
    let config = file("box.toml");

    ends_with(2, &["replay", &file("nowhere")], &["nowhere", "No such file"])?;
    for name in ["text", "empty"] {
        ends_with(2, &["replay", &file(name)], &[name, "neither pcap nor pcapng"])?;
        ends_with(2, &["inspect", &file(name)], &[name, "neither pcap nor pcapng"])?;
    }
    ends_with(2, &["replay", &file("good.pcap")], &["a capture without a configuration", "-c"])?;
    ends_with(2, &["replay", &file("good.pcap"), "-c", &file("bad.toml")], &["bad.toml"])?;
    ends_with(
        2,
        &["replay", &file("good.pcap"), "-c", &config, "-o", &file("no/where")],
        &["cannot create", "no/where"],
    )?;
    ends_with(0, &["replay", &file("good.pcap"), "-c", &config], &["0 events in, 0 frames out"])?;
    ends_with(2, &["replay", &file("cooked.pcap"), "-c", &config], &["LINUX_SLL2, not Ethernet"])?;
    ends_with(2, &["replay", &file("raw.pcap"), "-c", &config], &["RAW, not Ethernet"])?;
    ends_with(2, &["replay", &file("cut.pcap"), "-c", &config], &["cut.pcap", "cut off"])?;
    // What is there of a recording is replayed and written all the same.
    let out = file("out.pcapng");
    ends_with(
        2,
        &["replay", &file("cut.pcapng"), "-o", &out],
        &["cut.pcapng is cut off: it ends in the middle of event", "frames out"],
    )?;
    ensure!(std::fs::metadata(&out)?.len() > 50_000, "the whole events before the end were not replayed");
    ends_with(2, &["replay", "--bless", &file("good.pcap")], &["--bless wants a directory"])
}
