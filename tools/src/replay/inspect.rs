//! `mimbox-lab inspect`: the packets of a capture, one line each.

use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use mimbox_dataplane::pcap::{CaptureReader, Direction, Item};

use super::words::Words;

/// Which packets to print.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// A pcap or pcapng file.
    pub file: PathBuf,
    /// Print only packets that have this in their line, such as an address or MP_JOIN.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When the file cannot be read or is no capture of Ethernet frames.
pub fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let mut file = CaptureReader::open(&args.file).with_context(|| format!("cannot read {name} as a capture"))?;
    let mut words = Words::default();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut interfaces = Vec::new();
    let mut start = None;
    while let Some(item) = file.next_item().with_context(|| format!("{name} is damaged"))? {
        let packet = match item {
            Item::Interface { name } => {
                interfaces.push(name.unwrap_or_else(|| interfaces.len().to_string()));
                continue;
            }
            Item::Note(_) => continue,
            Item::Packet(packet) => packet,
        };
        let since = packet.nanos.saturating_sub(*start.get_or_insert(packet.nanos));
        let interface = interfaces.get(packet.interface as usize).map_or("?", String::as_str);
        let way = match packet.direction {
            Some(Direction::Inbound) => " <",
            Some(Direction::Outbound) => " >",
            None => "",
        };
        let text = words.of(&packet.bytes);
        if args.only.as_deref().is_some_and(|only| !text.contains(only) && !interface.contains(only)) {
            continue;
        }
        let (secs, nanos) = (since / 1_000_000_000, since % 1_000_000_000);
        match writeln!(out, "{secs:4}.{nanos:09} {interface}{way} {text}") {
            // The reader at the other end of a pipe has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
