//! Openings whose server is not there, seen from the wire.

use mimbox_dataplane::Engine as _;
use mimbox_mptcp::MptcpOption;
use mimbox_mptcp::option::{Capable, CapableFlags, CapableForm};
use mimbox_stack::mem::Region;
use mimbox_stack::wire::{LinkHeader, MacAddr, Parsed, Verify, parse};
use mimbox_stack::{Duration, FramePool, PoolConfig, PortId, TxFrame};

use super::*;
use crate::config::Config;
use crate::run::neighbours;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const SERVER: [u8; 4] = [198, 51, 100, 9];

/// A transparent box between clients and servers on whose links nobody answers ARP.
fn transparent() -> Shard {
    let text = "[[port]]\nname = \"wan0\"\ninterface = \"w\"\nbackend = \"memory\"\nmac = \"02:00:00:00:00:01\"\n\
                addresses = [\"192.0.2.1/24\"]\n\
                [[port]]\nname = \"core0\"\ninterface = \"c\"\nbackend = \"memory\"\nmac = \"02:00:00:00:00:02\"\n\
                addresses = [\"198.51.100.1/24\"]\n[transparent]\nfrom = [\"wan0\"]\n";
    let config = Config::parse(text, "box.toml").unwrap_or_else(|error| panic!("{error}"));
    let pool = pool(2048);
    let neighbours = neighbours(&config).expect("they agree");
    Shard::new(&config, pool, 1, neighbours)
}

fn pool(frames: u32) -> FramePool {
    FramePool::new(Region::map(frames, 2048).expect("memory"), PoolConfig { rx_reserve: 64 })
}

/// A client's SYN with MP_CAPABLE, as it comes in by port 0.
fn client_syn() -> Vec<u8> {
    let flow = FlowKey { local: CLIENT.into(), remote: SERVER.into(), local_port: 40_000, remote_port: 80 };
    let link = LinkHeader { dst: MacAddr([2, 0, 0, 0, 0, 1]), src: MacAddr([2, 0, 0, 0, 0, 7]), vlan: None };
    let mut out = Offer::default().syn(SeqNum(1000), Instant::ZERO);
    let capable =
        MptcpOption::Capable(Capable { version: 1, flags: CapableFlags::HMAC_SHA256, form: CapableForm::Bare });
    assert!(capable.emit(&mut out.upper));
    let mut pool = pool(128);
    let mut path = Path::new(&flow, Origin { port: PortId(0), link });
    let frame = path.build(&mut pool, &mut mimbox_stack::Counters::default(), &mut out).expect("a frame");
    bytes_of(&pool, &frame)
}

fn bytes_of(pool: &FramePool, frame: &TxFrame) -> Vec<u8> {
    let start = usize::from(frame.offset);
    pool.bytes(&frame.frame)[start..start + usize::from(frame.len)].to_vec()
}

fn receive(shard: &mut Shard, now: Instant, packet: &[u8]) -> Vec<(PortId, Vec<u8>)> {
    let frame = shard.pool().alloc_control().expect("a frame");
    shard.pool().bytes_mut(&frame)[256..256 + packet.len()].copy_from_slice(packet);
    let rx = RxFrame { port: PortId(0), frame, offset: 256, len: packet.len() as u16 };
    shard.on_frames(now, &mut vec![rx]);
    sent(shard, now)
}

fn sent(shard: &mut Shard, now: Instant) -> Vec<(PortId, Vec<u8>)> {
    let mut packets = Vec::new();
    while let Some(frame) = shard.poll_transmit(now) {
        packets.push((frame.port, bytes_of(shard.pool(), &frame)));
        shard.pool().tx_complete(frame.frame);
    }
    packets
}

#[test]
fn a_transparent_server_that_no_neighbour_answers_for_leaves_no_record_and_its_client_is_told() {
    let mut shard = transparent();
    let mut now = Instant::from_millis(10);
    let asked = receive(&mut shard, now, &client_syn());
    assert!(asked.iter().all(|(_, packet)| packet[12..14] == [0x08, 0x06]), "the server's neighbour is asked for");
    assert_eq!(shard.openings.len(), 1);
    let mut told = Vec::new();
    for _ in 0..4 {
        now += Duration::from_secs(1);
        shard.on_timer(now);
        told.extend(sent(&mut shard, now).into_iter().filter(|(_, packet)| packet[12..14] == [0x08, 0x00]));
    }
    assert_eq!(shard.openings.len(), 0, "nothing is left to wait for");
    assert_eq!(shard.res.counters.get(Counter::OpeningsUnreachable), 1);
    assert_eq!(told.len(), 1, "one error");
    let (port, packet) = &told[0];
    assert_eq!((*port, &packet[..6]), (PortId(0), [2, 0, 0, 0, 0, 7].as_slice()), "by the way that the SYN came");
    assert!(matches!(parse(packet, 0, Verify::All), Ok(Parsed::Icmp(_))), "{packet:?}");
    assert_eq!((packet[34], packet[35], &packet[30..34]), (3, 1, CLIENT.as_slice()), "host unreachable (RFC 792)");
}
