//! A packet in words, on one line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use mimbox_mptcp::option::{AddAddr, Capable, CapableFlags, CapableForm, Dss, Join};
use mimbox_mptcp::{MptcpOption, WireDsn, parse as parse_mptcp};
use mimbox_stack::options::kind;
use mimbox_stack::wire::{self, IpInfo, Parsed, Verify, protocol};
use mimbox_stack::{SegmentIn, SeqNum, TcpFlags};

/// One direction of a connection.
type Direction = ((IpAddr, u16), (IpAddr, u16));

/// Turns packets into words; numbers are relative to the first that was seen of their direction.
#[derive(Debug, Default)]
pub(crate) struct Words {
    first: HashMap<Direction, SeqNum>,
}

impl Words {
    /// The packet in words.
    pub(crate) fn of(&mut self, frame: &[u8]) -> String {
        match wire::parse(frame, 0, Verify::All) {
            Ok(Parsed::Tcp(info, segment)) => self.tcp(&info, &segment),
            Ok(Parsed::Arp(info)) => {
                format!("ARP {}", frame.get(usize::from(info.arp_offset)..).map_or_else(String::new, arp))
            }
            Ok(Parsed::Icmp(info)) => format!("{} > {} ICMP {} bytes", info.src, info.dst, info.ip_len()),
            Ok(Parsed::Ndp(info)) => format!("{} > {} neighbour discovery", info.src, info.dst),
            Ok(Parsed::OtherIp(info)) => {
                let what = if info.fragment { "fragment of protocol" } else { "protocol" };
                format!("{} > {} {what} {} {} bytes", info.src, info.dst, info.protocol, info.ip_len())
            }
            Err(why) => format!("not understood: {}", why.counter().help()),
        }
    }

    fn tcp(&mut self, info: &IpInfo, segment: &SegmentIn) -> String {
        debug_assert_eq!(info.protocol, protocol::TCP);
        let flow = &segment.flow;
        let from = (flow.remote, flow.remote_port);
        let to = (flow.local, flow.local_port);
        if segment.flags.contains(TcpFlags::SYN) {
            self.first.insert((from, to), segment.seq);
        }
        let seq = segment.seq.distance_from(*self.first.entry((from, to)).or_insert(segment.seq));
        let mut line = format!("{}.{} > {}.{} [{}] seq {seq}", from.0, from.1, to.0, to.1, flags(segment.flags));
        if segment.payload_len > 0 {
            let _ = write!(line, "+{}", segment.payload_len);
        }
        if segment.flags.contains(TcpFlags::ACK) {
            let ack = segment.ack.distance_from(*self.first.entry((to, from)).or_insert(segment.ack));
            let _ = write!(line, " ack {ack}");
            for block in &segment.options.sack {
                let base = self.first.get(&(to, from)).copied().unwrap_or_default();
                let (start, end) = (block.start.distance_from(base), block.end.distance_from(base));
                let _ = write!(line, " sack {start}-{end}");
            }
        }
        let _ = write!(line, " win {}", segment.window);
        self::options(&mut line, segment);
        line
    }
}

fn flags(flags: TcpFlags) -> String {
    const LETTERS: [(TcpFlags, char); 8] = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, '.'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::ECE, 'E'),
        (TcpFlags::CWR, 'W'),
    ];
    LETTERS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| letter).collect()
}

fn options(line: &mut String, segment: &SegmentIn) {
    let options = &segment.options;
    if let Some(mss) = options.syn.mss {
        let _ = write!(line, ", MSS {mss}");
    }
    if let Some(shift) = options.syn.window_scale {
        let _ = write!(line, ", scale {shift}");
    }
    if options.syn.sack_permitted {
        line.push_str(", SACK permitted");
    }
    if let Some(clock) = options.timestamps {
        let _ = write!(line, ", timestamps {}/{}", clock.value, clock.echo);
    }
    if let Some(at) = options.experimental {
        let bytes = options.slice(at);
        let _ = write!(line, ", experiment {}", hex(bytes.get(2..).unwrap_or(&[])));
        if bytes.first() == Some(&kind::EXPERIMENT_1)
            && let Some(destination) = destination(bytes.get(4..).unwrap_or(&[]))
        {
            let _ = write!(line, " (destination {destination})");
        }
    }
    for bytes in options.mptcp_slices() {
        line.push_str("; ");
        match parse_mptcp(bytes) {
            Ok(option) => line.push_str(&mptcp(&option)),
            Err(why) => {
                let _ = write!(line, "MPTCP {}: {why}", hex(bytes));
            }
        }
    }
}

/// The destination option's address and port, the experiment identifier left out.
fn destination(bytes: &[u8]) -> Option<String> {
    let (address, port) = match bytes.len() {
        4 | 6 => (IpAddr::from(*bytes.first_chunk::<4>()?), bytes.get(4..)?),
        16 | 18 => (IpAddr::from(*bytes.first_chunk::<16>()?), bytes.get(16..)?),
        _ => return None,
    };
    match port {
        &[high, low] => Some(format!("{address} port {}", u16::from_be_bytes([high, low]))),
        _ => Some(address.to_string()),
    }
}

fn mptcp(option: &MptcpOption) -> String {
    match option {
        MptcpOption::Capable(capable) => self::capable(capable),
        MptcpOption::Join(Join::Syn(join)) => format!(
            "MP_JOIN token {:08x} nonce {:08x} address {}{}",
            join.token,
            join.nonce,
            join.addr_id,
            backup(join.backup)
        ),
        MptcpOption::Join(Join::SynAck(join)) => format!(
            "MP_JOIN HMAC {:016x} nonce {:08x} address {}{}",
            join.hmac,
            join.nonce,
            join.addr_id,
            backup(join.backup)
        ),
        MptcpOption::Join(Join::Ack { hmac }) => format!("MP_JOIN HMAC {}", hex(hmac)),
        MptcpOption::Dss(dss) => self::dss(dss),
        MptcpOption::AddAddr(announced) => add_addr(announced),
        MptcpOption::RemoveAddr(ids) => {
            let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
            format!("REMOVE_ADDR {}", ids.join(" "))
        }
        MptcpOption::Prio { backup: asked, addr_id } => {
            let which = addr_id.map(|id| format!(" id {id}")).unwrap_or_default();
            format!("MP_PRIO{}{which}", if *asked { " backup" } else { " regular" })
        }
        MptcpOption::Fail { dsn } => format!("MP_FAIL at {dsn}"),
        MptcpOption::FastClose { key } => format!("MP_FASTCLOSE key {key:016x}"),
        MptcpOption::Reset(reset) => format!(
            "MP_TCPRST reason {} ({:?}){}",
            reset.reason.code(),
            reset.reason,
            if reset.transient { ", transient" } else { "" }
        ),
    }
}

const fn backup(asked: bool) -> &'static str {
    if asked { " backup" } else { "" }
}

fn capable(capable: &Capable) -> String {
    let mut text = format!("MP_CAPABLE v{}", capable.version);
    match capable.form {
        CapableForm::Bare => {}
        CapableForm::OneKey { sender } => {
            let _ = write!(text, " key {sender:016x}");
        }
        CapableForm::BothKeys { sender, receiver } => {
            let _ = write!(text, " keys {sender:016x} {receiver:016x}");
        }
        CapableForm::Data { sender, receiver, len, checksum } => {
            let _ = write!(text, " keys {sender:016x} {receiver:016x} length {len}");
            if let Some(checksum) = checksum {
                let _ = write!(text, " checksum {checksum:04x}");
            }
        }
    }
    if capable.flags.contains(CapableFlags::CHECKSUM) {
        text.push_str(", checksums required");
    }
    if capable.flags.contains(CapableFlags::NO_JOIN_HERE) {
        text.push_str(", no join to this address");
    }
    text
}

fn dss(dss: &Dss) -> String {
    let mut text = "DSS".to_owned();
    if let Some(ack) = dss.data_ack {
        let _ = write!(text, " DATA_ACK {}", dsn(ack));
    }
    if let Some(mapping) = &dss.mapping {
        let _ = write!(text, " maps {} bytes at SSN {} to DSN {}", mapping.len, mapping.ssn, dsn(mapping.dsn));
        if let Some(checksum) = mapping.checksum {
            let _ = write!(text, " checksum {checksum:04x}");
        }
    }
    if dss.data_fin {
        text.push_str(" DATA_FIN");
    }
    text
}

fn dsn(number: WireDsn) -> String {
    match number {
        WireDsn::Short(low) => format!("…{low:08x}"),
        WireDsn::Long(whole) => format!("{whole:016x}"),
    }
}

fn add_addr(announced: &AddAddr) -> String {
    let mut text = format!("ADD_ADDR {} {}", announced.addr_id, announced.addr);
    if let Some(port) = announced.port {
        let _ = write!(text, " port {port}");
    }
    match announced.hmac {
        Some(hmac) => {
            let _ = write!(text, " HMAC {hmac:016x}");
        }
        None => text.push_str(" echo"),
    }
    text
}

/// An ARP packet for IPv4 over Ethernet in words.
fn arp(bytes: &[u8]) -> String {
    let address = |at: usize| bytes.get(at..at + 4).and_then(<[u8]>::first_chunk::<4>).map(|four| IpAddr::from(*four));
    match (bytes.get(6..8), address(14), address(24)) {
        (Some([0, 1]), Some(asking), Some(asked)) => format!("who has {asked}, asks {asking}"),
        (Some([0, 2]), Some(answering), _) => format!("{answering} is at {}", hex(bytes.get(8..14).unwrap_or(&[]))),
        _ => "not for IPv4".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
