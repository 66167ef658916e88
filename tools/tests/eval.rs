//! The box and the kernel over emulated links, for a few seconds each: that the tool measures what it says.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use mimbox_tools::lab::require_privileges;
use serde_json::Value;

/// Runs `mimbox-lab eval` and gives what it printed, and the figures that it wrote.
fn eval(arguments: &[&str]) -> Result<(String, Value)> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("figures.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimbox-lab"));
    let output = command.arg("eval").args(arguments).arg("--json").arg(&file).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&file).with_context(|| said.clone())?;
    Ok((said, serde_json::from_str(&text)?))
}

/// A number of a figure.
fn number(figure: &Value, name: &str) -> Result<f64> {
    figure[name].as_f64().with_context(|| format!("no number {name} in {figure}"))
}

#[test]
fn a_tcp_row_fills_a_slow_link_and_loses_what_was_asked_for_in_both_cases() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    for (direction, row, seed) in [("download", "rtt10", "1"), ("upload", "loss1", "2")] {
        let (said, figures) = eval(&[
            "tcp",
            "--rows",
            row,
            "--direction",
            direction,
            "--mbit",
            "4",
            "--runs",
            "1",
            "--seconds",
            "4",
            "--seed",
            seed,
            "--bound",
            "0.5",
        ])?;
        let [kernel, boxed] = figures.as_array().map(Vec::as_slice).unwrap_or_default() else {
            anyhow::bail!("two figures were due: {figures}");
        };
        ensure!(kernel["middle"] == "kernel" && boxed["middle"] == "box", "{figures}");
        for figure in [kernel, boxed] {
            ensure!(figure["congestion"] == "cubic", "{figure}");
            // 1448 of 1500 bytes are the application's, and nothing is faster than the link.
            let goodput = number(figure, "goodput_bps")?;
            ensure!((2.8e6..3.87e6).contains(&goodput), "{said}\n{figure}");
            let lost = number(figure, "lost")?;
            ensure!((lost > 0.0) == (row == "loss1"), "{figure}");
            // Whoever sends over the link sends again what was lost there.
            ensure!(number(figure, "retransmissions")? >= lost, "{figure}");
        }
        ensure!(number(boxed, "box_cpu_s")? > 0.0, "{boxed}");
    }
    Ok(())
}

#[test]
fn a_slow_pair_of_paths_gives_more_than_the_better_one() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let (said, figures) = eval(&["mptcp", "--rows", "slow", "--runs", "1", "--seconds", "6"])?;
    let figure = &figures[0];
    let goodput = number(figure, "goodput_bps")?;
    ensure!((8.0e6..9.5e6).contains(&goodput), "{said}");
    ensure!(figure["mptcp"]["MPTcpExtMPCapableSYNACKRX"] == 1, "{figure}");
    ensure!(figure["suspicious"] == serde_json::json!({}), "{figure}");
    Ok(())
}

#[test]
fn transfers_over_faulty_links_end_whole() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_mimbox-lab"));
    let output = command.args(["eval", "faults", "--runs", "3", "--seed", "1", "--jobs", "3"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(said.contains("3 runs of 4 transfers each, 0 failed"), "{said}");
    Ok(())
}
