//! Instructions of the hot operations at the bottom, counted by callgrind: a figure that no neighbour's load changes.
//!
//! `cargo run --release -p mimbox-stack --example instructions` prints a table. It runs itself under `valgrind`, each
//! operation with two numbers of repetitions, and takes the difference.

use std::hint::black_box;
use std::net::IpAddr;
use std::process::{Command, ExitCode};

use mimbox_stack::flow::{FlowTable, HashKey};
use mimbox_stack::mem::Region;
use mimbox_stack::options::Timestamps;
use mimbox_stack::seq::SeqNum;
use mimbox_stack::timer::TimerWheel;
use mimbox_stack::wire::{HeaderTemplate, LinkHeader, Parsed, Verify, emit_tcp, parse};
use mimbox_stack::{
    Counters, FlowKey, FrameId, FramePool, Instant, Outgoing, PayloadOut, PoolConfig, TcpFlags, checksum,
};

/// An operation's name, and a function that repeats it.
type Operation = (&'static str, fn(u32));

const OPERATIONS: [Operation; 13] = [
    ("sum of 1460 bytes", sum_payload),
    ("parse, IPv4, 1460 bytes", |n| parse_data(n, flow_v4(), false)),
    ("parse, IPv4, 1424 bytes and a DSS", |n| parse_data(n, flow_v4(), true)),
    ("parse, IPv6, 1460 bytes", |n| parse_data(n, flow_v6(), false)),
    ("parse, IPv4, pure ACK", parse_ack),
    ("the segments of the next three rows, without emission", build_data),
    ("emit, IPv4, 1460 bytes", |n| emit_data(n, flow_v4(), false)),
    ("emit, IPv4, 1424 bytes and a DSS", |n| emit_data(n, flow_v4(), true)),
    ("emit, IPv6, 1460 bytes", |n| emit_data(n, flow_v6(), false)),
    ("emit, IPv4, pure ACK", emit_ack),
    ("flow hash and lookup, IPv4, 100,000 flows", |n| look_up(n, flow_v4())),
    ("flow hash and lookup, IPv6, 100,000 flows", |n| look_up(n, flow_v6())),
    ("timer scheduled and popped, 10,000 pending", timers),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, operation, repetitions] = arguments.as_slice() {
        let (Ok(operation), Ok(repetitions)) = (operation.parse::<usize>(), repetitions.parse()) else {
            return ExitCode::FAILURE;
        };
        OPERATIONS[operation].1(repetitions);
        return ExitCode::SUCCESS;
    }
    for (number, (name, _)) in OPERATIONS.iter().enumerate() {
        match (count(number, 1000), count(number, 3000)) {
            (Some(few), Some(many)) => println!("{:>7.1}  {name}", (many - few) as f64 / 2000.0),
            _ => {
                eprintln!("valgrind did not count: is it installed?");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Instructions of one run of this program.
fn count(operation: usize, repetitions: u32) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([operation.to_string(), repetitions.to_string()])
        .output()
        .ok()?;
    let report = String::from_utf8_lossy(&output.stderr);
    let line = report.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn flow_v4() -> FlowKey {
    let (local, remote) = (IpAddr::from([198, 51, 100, 2]), IpAddr::from([192, 0, 2, 77]));
    FlowKey { local, remote, local_port: 40_001, remote_port: 443 }
}

fn flow_v6() -> FlowKey {
    let address = |last| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
    FlowKey { local: address(1), remote: address(2), local_port: 40_001, remote_port: 443 }
}

fn pool() -> FramePool {
    let region = Region::map(64, 2048).expect("a small region can be mapped");
    FramePool::new(region, PoolConfig { rx_reserve: 4 })
}

/// A data segment as a connection gives it, with a DSS option or without.
fn outgoing(pool: &mut FramePool, frame: &FrameId, payload_len: u16, dss: bool) -> Outgoing {
    let mut out = Outgoing::bare(SeqNum(1), SeqNum(2), TcpFlags::ACK);
    out.timestamps = Some(Timestamps { value: 3, echo: 4 });
    if dss {
        let dss = [30, 22, 0x20, 0x07, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 5, 0x90];
        let _ = out.upper.try_extend_from_slice(&dss);
    }
    if payload_len > 0 {
        out.payload = Some(PayloadOut { frame: pool.share(frame), offset: 300, len: payload_len, sum: 0 });
    }
    out
}

fn payload_len(dss: bool) -> u16 {
    if dss { 1424 } else { 1460 }
}

/// A frame with a packet in it, and where it stands.
fn packet(pool: &mut FramePool, flow: FlowKey, payload_len: u16, dss: bool) -> (FrameId, usize, usize) {
    let frame = pool.alloc().expect("the pool is empty");
    let out = outgoing(pool, &frame, payload_len, dss);
    let template = HeaderTemplate::new(&flow, 64);
    let packet = emit_tcp(pool, &LinkHeader::default(), &template, out, 1, &mut Counters::default());
    let (sent, offset, len) = packet.expect("there is room");
    pool.release(frame);
    (sent, usize::from(offset), usize::from(len))
}

fn sum_payload(repetitions: u32) {
    let bytes = [7u8; 1460];
    for _ in 0..repetitions {
        black_box(checksum::sum(black_box(&bytes)));
    }
}

fn parse_many(repetitions: u32, pool: &FramePool, (frame, offset, len): &(FrameId, usize, usize)) {
    for _ in 0..repetitions {
        let bytes = &pool.bytes(frame)[*offset..*offset + *len];
        let parsed = parse(black_box(bytes), *offset as u16, Verify::All);
        assert!(matches!(black_box(&parsed), Ok(Parsed::Tcp(..))));
    }
}

fn parse_data(repetitions: u32, flow: FlowKey, dss: bool) {
    let mut pool = pool();
    let packet = packet(&mut pool, flow, payload_len(dss), dss);
    parse_many(repetitions, &pool, &packet);
    pool.release(packet.0);
}

fn parse_ack(repetitions: u32) {
    let mut pool = pool();
    let packet = packet(&mut pool, flow_v4(), 0, false);
    parse_many(repetitions, &pool, &packet);
    pool.release(packet.0);
}

fn emit_many(repetitions: u32, flow: FlowKey, payload_len: u16, dss: bool) {
    let mut pool = pool();
    let mut counters = Counters::default();
    let (link, template) = (LinkHeader::default(), HeaderTemplate::new(&flow, 64));
    let frame = pool.alloc().expect("the pool is empty");
    for _ in 0..repetitions {
        let out = outgoing(&mut pool, &frame, payload_len, dss);
        if let Some((frame, ..)) = emit_tcp(&mut pool, black_box(&link), black_box(&template), out, 1, &mut counters) {
            pool.release(frame);
        }
    }
    pool.release(frame);
}

fn build_data(repetitions: u32) {
    let mut pool = pool();
    let frame = pool.alloc().expect("the pool is empty");
    for _ in 0..repetitions {
        let out = black_box(outgoing(&mut pool, &frame, 1460, false));
        if let Some(payload) = out.payload {
            pool.release(payload.frame);
        }
    }
    pool.release(frame);
}

fn emit_data(repetitions: u32, flow: FlowKey, dss: bool) {
    emit_many(repetitions, flow, payload_len(dss), dss);
}

fn emit_ack(repetitions: u32) {
    emit_many(repetitions, flow_v4(), 0, false);
}

fn look_up(repetitions: u32, like: FlowKey) {
    let mut table = FlowTable::with_capacity(HashKey::new(1, 2), 1000);
    let mut flow = like;
    for n in 0..100_000u32 {
        (flow.local_port, flow.remote_port) = ((n >> 8) as u16, (n & 0xff) as u16);
        table.insert(table.hash(&flow), flow, n);
    }
    for n in 0..repetitions {
        let n = n * 31;
        (flow.local_port, flow.remote_port) = ((n >> 8) as u16, (n & 0xff) as u16);
        let hash = table.hash(black_box(&flow));
        assert_eq!(table.get(hash, &flow), Some(n));
    }
}

fn timers(repetitions: u32) {
    let mut wheel = TimerWheel::new();
    for n in 0..10_000u64 {
        wheel.schedule(Instant::from_micros(n * 20), n);
    }
    let mut popped = 0u64;
    for n in 0..repetitions {
        let now = Instant::from_micros(u64::from(n) * 20);
        while let Some(token) = wheel.pop_due(now) {
            wheel.schedule(now + mimbox_stack::Duration::from_millis(200 + token % 50), token);
            popped += 1;
        }
    }
    black_box(popped);
}
