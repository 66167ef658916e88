//! Bad configurations end with status 2 and an error that says what, where and what to do.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mimbox_tools::lab::{BoxProcess, Configuration, Family, Lab, LabOptions, Mode, Plan, mimbox_binary};
use rustix::process::Signal;

use crate::bench::{eventually, turn};

/// Two ports on the loopback interface: enough for everything that is checked before a port is opened.
const ONE_PORT: &str = r#"
[[port]]
name = "wan0"
interface = "lo"
backend = "af_xdp"
addresses = ["192.0.2.1/24"]

[explicit]
ports = ["wan0"]
"#;

const GOOD: &str = r#"
[[port]]
name = "wan0"
interface = "lo"
backend = "af_xdp"
addresses = ["192.0.2.1/24"]

[[port]]
name = "core0"
interface = "lo"
backend = "af_xdp"
addresses = ["198.51.100.2/24"]

[[route]]
prefix = "0.0.0.0/0"
via = "198.51.100.1"
port = "core0"

[explicit]
ports = ["wan0"]
"#;

fn mimbox(subcommand: &str, configuration: &str) -> Result<Output> {
    let directory = tempfile::tempdir()?;
    let file: PathBuf = directory.path().join("mimbox.toml");
    std::fs::write(&file, configuration)?;
    let binary = mimbox_binary()?;
    Command::new(&binary).arg(subcommand).arg("-c").arg(&file).output().with_context(|| format!("{binary:?}"))
}

/// Status 2, and every one of `words` in the error.
fn is_refused(configuration: &str, words: &[&str]) -> Result<()> {
    for subcommand in ["check", "run"] {
        let output = mimbox(subcommand, configuration)?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{subcommand}: {}: {text}", output.status);
        for word in words {
            ensure!(text.contains(word), "{subcommand} does not say {word:?}:\n{text}");
        }
    }
    Ok(())
}

#[test]
fn an_unknown_key_is_named_with_its_place() -> Result<()> {
    is_refused(&format!("{GOOD}colour = \"blue\"\n"), &["colour"])
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    is_refused(&GOOD.replacen("\"lo\"", "\"nowhere0\"", 1), &["nowhere0"])
}

#[test]
fn overlapping_addresses_are_named() -> Result<()> {
    is_refused(&GOOD.replace("198.51.100.2/24", "192.0.2.2/24"), &["192.0.2"])
}

#[test]
fn a_next_hop_that_is_on_no_link_is_named() -> Result<()> {
    is_refused(&GOOD.replace("198.51.100.1\"", "203.0.113.1\""), &["203.0.113.1"])
}

#[test]
fn a_file_that_is_not_there_is_named() -> Result<()> {
    let output = Command::new(mimbox_binary()?).args(["check", "-c", "/nonexistent/mimbox.toml"]).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && text.contains("/nonexistent/mimbox.toml"), "{text}");
    Ok(())
}

#[test]
fn a_box_without_privileges_says_which_it_lacks() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("mimbox.toml");
    // Sound but for the privileges: one port on the one interface that every machine has.
    std::fs::write(&file, ONE_PORT)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"]);
    if crate::bench::turn()?.is_none() {
        return Ok(());
    }
    // The user that it runs as must be able to read both.
    let copy = directory.path().join("mimbox");
    std::fs::copy(mimbox_binary()?, &copy)?;
    for (path, mode) in [(directory.path(), 0o755), (file.as_path(), 0o644), (copy.as_path(), 0o755)] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    let output = command.arg(&copy).args(["run", "-c"]).arg(&file).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
    ensure!(text.contains("CAP_") || text.contains("root"), "{text}");
    Ok(())
}

/// A lab, and a box there whose route leads over an address where nobody is.
fn box_with_a_silent_router(wait: &str) -> Result<(Lab, BoxProcess)> {
    let lab = Lab::build(LabOptions::default())?;
    let route = format!("[[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"{}\"\n", Plan::nobody(Family::V4));
    let extra = format!("{route}[worker]\nnext_hop_wait = \"{wait}\"\n");
    let middle = BoxProcess::spawn(&lab, &Configuration { extra, ..Configuration::new(Mode::Explicit) })?;
    Ok((lab, middle))
}

#[test]
fn a_next_hop_that_does_not_answer_ends_the_start_and_is_named() -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let (lab, mut middle) = box_with_a_silent_router("2s")?;
    let began = Instant::now();
    let status = middle.process().wait(Duration::from_secs(20))?;
    let (took, log) = (began.elapsed(), middle.log());
    ensure!(status.code() == Some(2), "{status}: {log}");
    ensure!(took > Duration::from_secs(1), "the next hop had only {took:?}");
    for word in ["10.71.9.77", "ARP", "\"core0\"", "`via`", "next_hop_wait"] {
        ensure!(log.contains(word), "the log does not say {word:?}:\n{log}");
    }
    // `check --probe` says the same, and the ports are free again for it.
    let file = lab.file("mimbox.toml");
    let output = lab.middle().command(mimbox_binary()?).args(["check", "--probe", "-c"]).arg(&file).output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2) && text.contains("10.71.9.77"), "{}: {text}", output.status);
    Ok(())
}

#[test]
fn a_router_that_comes_up_later_than_the_box_is_waited_for() -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let (lab, middle) = box_with_a_silent_router("60s")?;
    eventually(Duration::from_secs(20), || {
        ensure!(middle.log().contains("still asking"), "the box does not say that it waits:\n{}", middle.log());
        Ok(())
    })?;
    ensure!(middle.stats().is_err(), "the box serves without its router");
    lab.server().ip(&format!("address add {}/24 dev {}\n", Plan::nobody(Family::V4), Plan::SERVER_INTERFACE))?;
    eventually(Duration::from_secs(20), || middle.stats())?;
    middle.stop()
}

#[test]
fn a_box_that_waits_for_its_router_can_be_stopped() -> Result<()> {
    let Some(_turn) = turn()? else { return Ok(()) };
    let (_lab, mut middle) = box_with_a_silent_router("1h")?;
    eventually(Duration::from_secs(20), || {
        ensure!(middle.log().contains("still asking"), "the box does not say that it waits:\n{}", middle.log());
        Ok(())
    })?;
    middle.process().signal(Signal::TERM)?;
    let status = middle.process().wait(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}: {}", middle.log());
    Ok(())
}
