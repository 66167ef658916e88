//! Statistics for people: aligned columns, units, and nothing that is zero unless asked for.

use std::fmt::Write as _;

use mimbox_stack::Counter;

use super::{ConnectionList, ConnectionRow, FeatureSnapshot, PortSnapshot, RunState, Snapshot};

/// `mimbox stats` as text. `all` shows counters at zero as well, `verbose` what each means.
pub fn stats_text(snapshot: &Snapshot, all: bool, verbose: bool) -> String {
    let Snapshot { version, uptime_s, state, pool, conversions, worker, ports, counters } = snapshot;
    let state = match state {
        RunState::Running => "running",
        RunState::Draining => "draining: no conversion is opened any more",
    };
    let mut text = format!("mimbox {version}, up {}, {state}\n\n", age(*uptime_s));
    let _ = writeln!(
        text,
        "conversions  {} live, {} half-open, {} in TIME-WAIT",
        conversions.live, conversions.half_open, conversions.time_wait
    );
    let _ = writeln!(
        text,
        "frames       {} in all, {} free, {} in rings, {} in use",
        pool.frames, pool.free, pool.in_rings, pool.in_use
    );
    let _ = writeln!(
        text,
        "worker       {} turns, {} busy, {} batches, {} sleeps, backlog at most {}",
        worker.turns, worker.busy, worker.batches, worker.sleeps, worker.backlog_peak
    );
    let packets: u64 = ports.iter().map(|port| port.rx_frames + port.tx_frames).sum();
    let calls: u64 = worker.sleeps + ports.iter().map(|port| port.rx_calls + port.tx_calls).sum::<u64>();
    let _ = writeln!(
        text,
        "calls        {calls} system calls for packets, {:.1} packets a call\n",
        packets as f64 / calls.max(1) as f64
    );
    text += &ports_text(ports);
    text += &features_text(ports);
    for port in ports.iter().filter(|port| !port.advice.is_empty()) {
        let _ = writeln!(text, "\nwarning: {}", port.advice);
    }
    let shown: Vec<(Counter, u64)> = counters.iter().filter(|(_, value)| all || *value != 0).collect();
    let hidden = Counter::ALL.len() - shown.len();
    text += "\ncounters";
    let _ = match hidden {
        0 => writeln!(text),
        hidden => writeln!(text, " ({hidden} at zero are not shown: --all)"),
    };
    let rows = shown.iter().map(|(counter, value)| {
        let mut row = vec![counter.name().to_owned(), value.to_string()];
        if verbose {
            row.push(counter.help().to_owned());
        }
        row
    });
    text += &table(rows.collect(), &[1]);
    text
}

fn ports_text(ports: &[PortSnapshot]) -> String {
    let head = ["port", "interface", "state", "mode", "rx frames", "rx bytes", "tx frames", "tx bytes", "lost"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for port in ports {
        let PortSnapshot { name, interface, state, mode, rx_frames, rx_bytes, tx_frames, tx_bytes, .. } = port;
        let lost = port.tx_dropped + port.rx_dropped + port.rx_ring_full + port.invalid_descriptors;
        rows.push(vec![
            name.clone(),
            interface.clone(),
            state.clone(),
            mode.clone(),
            rx_frames.to_string(),
            rx_bytes.to_string(),
            tx_frames.to_string(),
            tx_bytes.to_string(),
            lost.to_string(),
        ]);
    }
    table(rows, &[4, 5, 6, 7, 8])
}

/// What each port got of what makes it fast, and why not the rest. What all ports have alike stands there once.
fn features_text(ports: &[PortSnapshot]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let names = ports.iter().flat_map(|port| &port.features).map(|feature| feature.name.as_str());
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let mut said: Vec<(&FeatureSnapshot, Vec<&str>)> = Vec::new();
        for port in ports {
            let Some(feature) = port.features.iter().find(|feature| feature.name == name) else { continue };
            match said.iter_mut().find(|(other, _)| *other == feature) {
                Some((_, ports)) => ports.push(&port.name),
                None => said.push((feature, vec![&port.name])),
            }
        }
        for (feature, of) in said {
            let of = if of.len() == ports.len() { "all ports".to_owned() } else { of.join(", ") };
            let got = if feature.got { "yes" } else { "no" };
            rows.push(vec![feature.name.clone(), of, got.to_owned(), feature.detail.clone()]);
        }
    }
    if rows.is_empty() { String::new() } else { format!("\nAF_XDP\n{}", table(rows, &[])) }
}

/// `mimbox connections` as text.
pub fn connections_text(list: &ConnectionList, port_names: &[String]) -> String {
    let mut text = format!("{} live\n", list.total);
    for row in &list.connections {
        let ConnectionRow { id, mode, client, server, client_protocol, server_protocol, token, age_s, .. } = row;
        let token = token.map_or_else(String::new, |token| format!(", token {token:08x}"));
        let _ = writeln!(
            text,
            "\n#{id} {client} ({client_protocol}) -> {server} ({server_protocol}), {mode}, {}{token}",
            age(*age_s)
        );
        let _ = writeln!(
            text,
            "  {} bytes to the server, {} to the client, {} frames held",
            row.bytes_to_server, row.bytes_to_client, row.frames
        );
        let head = ["", "port", "box", "peer", "state", "in", "out", "again", "srtt", "cwnd", ""];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for subflow in &row.subflows {
            let port = port_names.get(usize::from(subflow.port)).cloned();
            rows.push(vec![
                subflow.side.clone(),
                port.unwrap_or_else(|| subflow.port.to_string()),
                subflow.local.to_string(),
                subflow.remote.to_string(),
                subflow.state.clone(),
                subflow.bytes_in.to_string(),
                subflow.bytes_out.to_string(),
                subflow.retransmits.to_string(),
                format!("{}.{:03} ms", subflow.srtt_us / 1000, subflow.srtt_us % 1000),
                subflow.cwnd.to_string(),
                if subflow.backup { "backup".to_owned() } else { String::new() },
            ]);
        }
        text += &table(rows, &[5, 6, 7, 8, 9]);
    }
    let shown = list.connections.len() as u64;
    if shown < list.total {
        let _ = writeln!(text, "\n{} more are not shown: --limit", list.total - shown);
    }
    text
}

/// Rows in aligned columns, two blanks in front; `right` are the columns of numbers.
fn table(rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            line += "  ";
            if right.contains(&column) {
                let _ = write!(line, "{cell:>width$}");
            } else {
                let _ = write!(line, "{cell:<width$}");
            }
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Seconds as people say them.
fn age(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{:.1}s", seconds.max(0.0)),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, s) => format!("{h}h {m}m {s}s"),
        (d, h, m, _) => format!("{d}d {h}h {m}m"),
    }
}

/// The page `docs/counters.md`.
pub fn counters_markdown() -> String {
    let mut page = String::from(
        "# Counters\n\n\
         What `mimbox stats` counts, in the order in which it shows them. All start at zero when the box starts and only\n\
         grow. `mimbox stats --verbose` shows these explanations beside the values, `--all` those at zero too.\n\
         The page is made from the declaration in `stack/src/counters.rs`; a test keeps it current:\n\
         `UPDATE_DOCS=1 cargo test -p mimbox-converter counters` writes it anew.\n\n\
         | counter | what it counts |\n|---|---|\n",
    );
    for counter in Counter::ALL {
        let _ = writeln!(page, "| `{}` | {} |", counter.name(), counter.help().replace('|', "\\|"));
    }
    page
}
