//! The lab itself, with a kernel router where the box would be.

use std::path::Path as FilePath;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mimbox_tools::lab::transfer::{Direction, Ending, Outcome, Sizes, digest};
use mimbox_tools::lab::{
    BoxRole, Capture, DstOpt, DstOptSettings, Family, Lab, LabOptions, Mode, Namespace, Path, Plan, Rate, ServerMptcp,
    ServerWatch, Transfer, TransferServer, remove_leftovers, require_privileges,
};

const MIB: u64 = 1 << 20;

/// A lab with a kernel router, unless this run goes without privileges.
fn router(mode: Mode, server_mptcp: ServerMptcp) -> Result<Option<Lab>> {
    if !require_privileges()? {
        return Ok(None);
    }
    let options = LabOptions { mode, box_role: BoxRole::KernelRouter, server_mptcp, ..LabOptions::default() };
    Lab::build(options).map(Some)
}

/// A filter that takes SYNs and nothing else.
const SYN: &str = "(ip and tcp[13] & 18 = 2) or (ip6 and ip6[6] = 6 and ip6[53] & 18 = 2)";

/// The packets of a capture, as tcpdump prints them.
fn packets(capture: &FilePath) -> Result<Vec<String>> {
    let output = Command::new("tcpdump").args(["-n", "-r"]).arg(capture).output()?;
    ensure!(output.status.success(), "tcpdump: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The SYNs of an explicit client that talks to a kernel listener on the box's address.
fn syns_of_a_client(mptcp: bool, family: Family, timestamps: &str) -> Result<Option<Vec<String>>> {
    let Some(lab) = router(Mode::Explicit, ServerMptcp::Off)? else { return Ok(None) };
    lab.client().sysctl(&[("net.ipv4.tcp_timestamps", timestamps)])?;
    let mut server = TransferServer::start_in(&lab, lab.middle(), 5001, &["--mptcp"])?;
    let capture = Capture::start(lab.client(), "any", SYN, &lab.file("syn.pcap"))?;
    let transfer = Transfer { mptcp, family, ..Transfer::new(Direction::Upload, 16 * MIB) };
    let report = transfer.run(&lab, &mut server)?;
    assert_eq!(report.faults(), Vec::<String>::new());
    packets(&capture.stop()?).map(Some)
}

#[test]
fn both_subflows_carry_an_upload_and_a_download() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::On)? else { return Ok(()) };
    let mut server = TransferServer::start_mptcp(&lab, 5001)?;
    let watch = ServerWatch::begin(lab.server())?;
    for direction in [Direction::Upload, Direction::Download] {
        let report = Transfer::new(direction, 64 * MIB).run(&lab, &mut server)?;
        assert_eq!(report.faults(), Vec::<String>::new());
        assert!(report.shares().iter().all(|share| *share > 0.2), "{direction:?}: {:?}", report.shares());
    }
    let seen = watch.counts()?;
    assert!(seen.mptcp > 1000 && seen.mptcp <= seen.tcp, "{seen:?}");
    assert_eq!(seen.experimental, 0);
    Ok(())
}

#[test]
fn a_plain_server_makes_the_client_fall_back_and_then_sees_no_mptcp_but_its_syn() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::Off)? else { return Ok(()) };
    let mut server = TransferServer::start(&lab, 5001)?;
    let watch = ServerWatch::begin(lab.server())?;
    let report = Transfer::new(Direction::Upload, MIB).run(&lab, &mut server)?;
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!(watch.counts()?.mptcp, 1);
    Ok(())
}

#[test]
fn the_syn_of_a_tcp_socket_names_the_server() -> Result<()> {
    let Some(syns) = syns_of_a_client(false, Family::V4, "1")? else { return Ok(()) };
    assert_eq!(syns.len(), 1, "{syns:#?}");
    assert!(syns[0].contains("10.71.1.1.5001") && syns[0].contains("unknown-253 0x4d420a470902"), "{syns:#?}");
    Ok(())
}

#[test]
fn the_first_syn_of_an_mptcp_socket_names_the_server_and_the_joining_one_does_not() -> Result<()> {
    let Some(syns) = syns_of_a_client(true, Family::V4, "1")? else { return Ok(()) };
    let (joins, firsts): (Vec<_>, Vec<_>) = syns.iter().partition(|line| line.contains("join"));
    assert_eq!((firsts.len(), joins.len()), (1, 1), "{syns:#?}");
    assert!(firsts[0].contains("capable v1") && firsts[0].contains("unknown-253 0x4d420a470902"), "{syns:#?}");
    assert!(joins[0].contains("10.71.2.2.") && joins[0].contains("10.71.1.1.5001"), "{syns:#?}");
    assert!(!joins[0].contains("unknown-253"), "{syns:#?}");
    Ok(())
}

#[test]
fn an_ipv6_server_is_named_in_a_tcp_syn() -> Result<()> {
    let Some(syns) = syns_of_a_client(false, Family::V6, "1")? else { return Ok(()) };
    assert!(syns[0].contains("unknown-253 0x4d42fd710009000000000000000000000002"), "{syns:#?}");
    Ok(())
}

#[test]
fn an_ipv6_server_fits_into_an_mptcp_syn_without_timestamps() -> Result<()> {
    let Some(syns) = syns_of_a_client(true, Family::V6, "0")? else { return Ok(()) };
    assert!(syns[0].contains("capable v1") && syns[0].contains("0x4d42fd710009"), "{syns:#?}");
    Ok(())
}

#[test]
fn a_box_with_a_port_of_its_own_is_told_the_servers_port() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::Off)? else { return Ok(()) };
    let settings = DstOptSettings { port: Some(5555), ..DstOptSettings::for_lab() };
    let dst_opt = DstOpt::attach(&format!("mbl-{}-port", lab.id()), &settings)?;
    let _server = TransferServer::start_in(&lab, lab.middle(), 5555, &[])?;
    let capture = Capture::start(lab.client(), "c0", SYN, &lab.file("syn.pcap"))?;
    let mut curl = lab.client().command("curl");
    curl.args(["-sS", "-o", "/dev/null", &format!("http://{}:8080/1000", Plan::server(Family::V4))]);
    ensure!(dst_opt.wrap(&curl).status()?.success(), "curl failed");
    let syns = packets(&capture.stop()?)?;
    assert!(syns[0].contains("10.71.1.1.5555") && syns[0].contains("unknown-253 0x4d420a4709021f90"), "{syns:#?}");
    Ok(())
}

#[test]
fn cutting_a_path_and_mending_it_breaks_no_transfer() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::On)? else { return Ok(()) };
    let mut server = TransferServer::start_mptcp(&lab, 5001)?;
    let transfer = Transfer::new(Direction::Upload, 128 * MIB);
    let mut running = transfer.start(&lab, &server)?;
    running.wait_for_bytes(&lab, 32 * MIB, Duration::from_secs(20))?;
    lab.set_path(Path::Second, false)?;
    running.wait_for_bytes(&lab, 64 * MIB, Duration::from_secs(20))?;
    lab.set_path(Path::Second, true)?;
    let report = running.finish(&lab, &mut server)?;
    assert_eq!(report.faults(), Vec::<String>::new());
    Ok(())
}

#[test]
fn every_ending_comes_out_as_asked() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::Off)? else { return Ok(()) };
    let mut server = TransferServer::start(&lab, 5001)?;
    let cases = [
        (Ending::ClientFirst, Direction::Download, Outcome::Complete, Outcome::Complete),
        (Ending::ServerFirst, Direction::Upload, Outcome::Complete, Outcome::Complete),
        (Ending::Orderly, Direction::Both, Outcome::Complete, Outcome::Complete),
        (Ending::ClientReset, Direction::Upload, Outcome::ResetByUs, Outcome::Reset),
        (Ending::ClientReset, Direction::Download, Outcome::ResetByUs, Outcome::Reset),
        (Ending::ServerReset, Direction::Upload, Outcome::Reset, Outcome::ResetByUs),
        (Ending::ServerReset, Direction::Download, Outcome::Reset, Outcome::ResetByUs),
    ];
    for (seed, (ending, direction, client, at_server)) in (100..).zip(cases) {
        let transfer = Transfer { ending, seed, mptcp: false, ..Transfer::new(direction, 3 * MIB) };
        let report = transfer.run(&lab, &mut server)?;
        let outcomes = (report.client[0].outcome, report.server[0].outcome);
        assert_eq!(outcomes, (client, at_server), "{ending:?} {direction:?}: {report:#?}");
    }
    Ok(())
}

#[test]
fn a_refusal_and_a_missing_server_are_told_apart() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::Off)? else { return Ok(()) };
    let mut server = TransferServer::start(&lab, 5001)?;
    let mut outcome = |to| -> Result<Outcome> {
        let transfer = Transfer { to: Some(to), mptcp: false, ..Transfer::new(Direction::Upload, 1) };
        Ok(transfer.run(&lab, &mut server)?.client[0].outcome)
    };
    assert_eq!(outcome((Plan::server(Family::V4), 9).into())?, Outcome::Refused);
    assert_eq!(outcome((Plan::nobody(Family::V4), 9).into())?, Outcome::Unreachable);
    Ok(())
}

#[test]
fn many_connections_in_parallel_are_all_told_of() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::Off)? else { return Ok(()) };
    let mut server = TransferServer::start(&lab, 5001)?;
    let transfer = Transfer {
        connections: 200,
        parallel: 100,
        sizes: Sizes::LogUniform,
        mptcp: false,
        ..Transfer::new(Direction::Both, 256 * 1024)
    };
    let report = transfer.run(&lab, &mut server)?;
    assert_eq!(report.faults(), Vec::<String>::new());
    assert_eq!((report.client.len(), report.server.len()), (200, 200));
    Ok(())
}

#[test]
fn curl_fetches_through_mptcpize() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::On)? else { return Ok(()) };
    let _server = TransferServer::start_mptcp(&lab, 8080)?;
    let url = format!("http://{}:8080/5000000", Plan::server(Family::V4));
    let mut command = lab.client_command("sh");
    let output = command.args(["-c", r#"mptcpize run curl -sS "$0" | sha256sum"#, &url]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.starts_with(&digest(5_000_000, 5_000_000)), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn loss_and_rates_can_be_set() -> Result<()> {
    let Some(lab) = router(Mode::Transparent, ServerMptcp::On)? else { return Ok(()) };
    let mut server = TransferServer::start_mptcp(&lab, 5001)?;
    lab.set_loss(10)?;
    lab.set_rate(Path::First, Rate::Unlimited)?;
    lab.set_rate(Path::Second, Rate::mbit(50))?;
    let report = Transfer::new(Direction::Upload, 8 * MIB).run(&lab, &mut server)?;
    assert_eq!(report.faults(), Vec::<String>::new());
    assert!(report.client_retransmissions > 0, "{report:#?}");
    lab.set_loss(0)
}

/// Namespaces and control groups of a lab that are still there.
fn traces(id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in ["/run/netns", "/run/mimbox-lab", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name == id || name.starts_with(&format!("mbl-{id}")) {
                found.push(format!("{directory}/{name}"));
            }
        }
    }
    Ok(found)
}

#[test]
fn nothing_is_left_after_a_panic_although_programs_still_run() -> Result<()> {
    let Some(lab) = router(Mode::Explicit, ServerMptcp::Off)? else { return Ok(()) };
    let id = lab.id().to_owned();
    assert!(!traces(&id)?.is_empty());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let lab = lab;
        let child = lab.server().command("sleep").arg("1000").spawn();
        panic!("this is the panic that the test is about ({child:?})");
    }));
    assert!(panicked.is_err());
    assert_eq!(traces(&id)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_lab_that_was_kept_is_removed_by_its_name() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let name = format!("kept{}", std::process::id());
    Lab::build(LabOptions { name: Some(name.clone()), ..LabOptions::default() })?.keep()?;
    let kept = traces(&name)?;
    assert!(kept.len() >= 5, "{kept:?}");
    // The client's Dst Opt outlives the process that attached it, and so do the namespaces.
    Namespace::existing(format!("mbl-{name}-client")).run("ip", &["mptcp", "limits", "show"]).context("it is kept")?;
    assert_eq!(remove_leftovers(Some(&name))?, vec![name.clone()]);
    assert_eq!(traces(&name)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_name_cannot_be_taken_twice() -> Result<()> {
    if !require_privileges()? {
        return Ok(());
    }
    let options = || LabOptions { name: Some(format!("twice{}", std::process::id())), ..LabOptions::default() };
    let first = Lab::build(options())?;
    let error = Lab::build(options()).map(drop).expect_err("the second must fail");
    assert!(format!("{error:#}").contains("mimbox-lab down"), "{error:#}");
    first.client().run("ip", &["link", "show", "c0"])?;
    Ok(())
}
