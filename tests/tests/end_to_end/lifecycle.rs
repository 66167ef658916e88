//! A box that is killed, started again, stopped, recorded.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::Direction;
use mimbox_tools::lab::{BoxProcess, Configuration, Mode, Transfer};

use crate::bench::{Bench, MIB};

#[test]
fn a_box_that_was_killed_starts_again_at_once() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    for round in 0..3 {
        bench.transfer(&Transfer { seed: round + 1, ..Transfer::new(Direction::Download, 4 * MIB) })?;
        bench.middle.process().kill()?;
        // The interfaces are the kernel's again: they can be set down and up, and their addresses given and taken.
        let lines = [
            "link set wan0 down",
            "link set wan0 up",
            "address add 10.250.0.1/24 dev wan0",
            "address del 10.250.0.1/24 dev wan0",
            "",
        ];
        bench.lab.middle().ip(&lines.join("\n"))?;
        bench.middle = BoxProcess::start(&bench.lab, &Configuration::new(Mode::Explicit))
            .with_context(|| format!("start {round} after kill -9"))?;
    }
    bench.transfer(&Transfer { seed: 9, ..Transfer::new(Direction::Upload, 4 * MIB) })?;
    bench.settled().map(drop)
}

#[test]
fn a_box_that_starts_and_stops_in_order_complains_of_nothing() -> Result<()> {
    let Some(bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    let file = bench.lab.file("mimbox.log");
    let Bench { middle, lab, server, .. } = bench;
    middle.stop()?;
    let log = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    ensure!(log.contains("the box is up"), "the log does not say that the box is up:\n{log}");
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "the log of an orderly run has complaints:\n{log}");
    drop((server, lab));
    Ok(())
}

#[test]
fn a_box_that_is_stopped_gives_every_frame_back() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    bench.transfer(&Transfer::new(Direction::Both, 4 * MIB))?;
    let Bench { middle, lab, server, .. } = bench;
    // The exit status is 0 only when the pool's accounts are even.
    middle.stop()?;
    drop((server, lab));
    Ok(())
}

#[test]
fn curl_works_through_the_box_unmodified() -> Result<()> {
    let Some(bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    let content: Vec<u8> = (0..3 * MIB as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let directory = bench.lab.file("www");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("file"), &content)?;
    let mut serve = bench.lab.server().command("python3");
    serve.args(["-m", "http.server", "8000", "--directory"]).arg(&directory);
    let mut serve = mimbox_tools::lab::Process::spawn("http.server", serve, &bench.lab.file("http.log"))?;
    let address = mimbox_tools::lab::Plan::server(mimbox_tools::lab::Family::V4);
    let fetched = bench.lab.file("fetched");
    let mut curl = bench.lab.client_command("mptcpize");
    curl.args(["run", "curl", "--silent", "--show-error", "--fail", "--retry", "10", "--retry-connrefused"]);
    curl.args(["--retry-delay", "1", "--output"]).arg(&fetched).arg(format!("http://{address}:8000/file"));
    run(&mut curl)?;
    ensure!(std::fs::read(&fetched)? == content, "curl got other bytes");
    serve.kill()?;
    ensure!(bench.settled()?.counters.get(Counter::MptcpCapableAccepted) >= 1, "curl did not use MPTCP");
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
