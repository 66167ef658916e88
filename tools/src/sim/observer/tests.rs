use mimbox_stack::mem::Region;
use mimbox_stack::wire::{self, HeaderTemplate, LinkHeader};
use mimbox_stack::{Counters, FlowKey, FramePool, Outgoing, PoolConfig, SeqNum, TcpFlags};

use super::*;

/// An MP_CAPABLE as it stands in a SYN.
const CAPABLE: &[u8] = &[MPTCP, 4, 1, 1];
/// An MP_JOIN as it stands in a SYN: token and nonce.
const JOIN: &[u8] = &[MPTCP, 12, 0x10, 1, 1, 2, 3, 4, 5, 6, 7, 8];
/// A DSS with a 32-bit DATA_ACK.
const DSS: &[u8] = &[MPTCP, 8, 0x20, 1, 0, 0, 0, 9];
/// TTL of a packet that the box passed on.
const PASSED_ON: u8 = TTL - 1;

fn frame(flags: TcpFlags, ttl: u8, option: &[u8], window: u16) -> Vec<u8> {
    let mut pool = FramePool::new(Region::map(8, 2048).expect("memory"), PoolConfig { rx_reserve: 0 });
    let flow = FlowKey { local: [10, 0, 0, 1].into(), remote: [10, 9, 0, 1].into(), local_port: 1000, remote_port: 80 };
    let ack = if flags.contains(TcpFlags::ACK) { 500 } else { 0 };
    let mut out = Outgoing::bare(SeqNum(7), SeqNum(ack), flags);
    out.window = window;
    out.upper.try_extend_from_slice(option).expect("room");
    let (link, template) = (LinkHeader::default(), HeaderTemplate::new(&flow, ttl));
    let sent = wire::emit_tcp(&mut pool, &link, &template, out, 0, &mut Counters::default());
    let (frame, offset, len) = sent.expect("a frame");
    let start = usize::from(offset);
    pool.bytes(&frame)[start..start + usize::from(len)].to_vec()
}

/// What the observer says when the box receives `received` and sends `sent` towards the servers.
fn towards_servers(received: Option<Vec<u8>>, sent: &[u8]) -> Option<String> {
    let mut observer = Observer::new(Carries::Syns);
    if let Some(frame) = received {
        observer.received(&frame);
    }
    observer.sent(Side::Servers, sent);
    observer.complaint
}

#[test]
fn a_server_may_see_the_mp_capable_that_its_client_sent() {
    let asked = frame(TcpFlags::SYN, TTL, CAPABLE, 100);
    assert_eq!(towards_servers(Some(asked), &frame(TcpFlags::SYN, PASSED_ON, CAPABLE, 100)), None);
}

#[test]
fn a_server_may_see_no_other_mptcp_option() {
    let asked = || Some(frame(TcpFlags::SYN, TTL, CAPABLE, 100));
    for (what, received, sent) in [
        ("nobody asked", None, frame(TcpFlags::SYN, PASSED_ON, CAPABLE, 100)),
        ("the box itself asks", asked(), frame(TcpFlags::SYN, TTL, CAPABLE, 100)),
        ("other flags than were asked for", asked(), frame(TcpFlags::SYN, PASSED_ON, &[MPTCP, 4, 1, 0x81], 100)),
        ("a join", Some(frame(TcpFlags::SYN, TTL, JOIN, 100)), frame(TcpFlags::SYN, PASSED_ON, JOIN, 100)),
        ("on a SYN+ACK", asked(), frame(TcpFlags::SYN | TcpFlags::ACK, PASSED_ON, CAPABLE, 100)),
        ("a DSS passed on", asked(), frame(TcpFlags::ACK, PASSED_ON, DSS, 100)),
        ("a DSS of the box", asked(), frame(TcpFlags::ACK, TTL, DSS, 100)),
    ] {
        let complaint = towards_servers(received, &sent);
        assert!(complaint.is_some_and(|text| text.contains("an MPTCP option")), "{what}");
    }
}

#[test]
fn windows_without_a_data_ack_are_watched_on_mptcp_connections_too() {
    let mut observer = Observer::new(Carries::Ended);
    observer.sent(Side::Clients, &frame(TcpFlags::SYN | TcpFlags::ACK, TTL, CAPABLE, 100));
    observer.sent(Side::Clients, &frame(TcpFlags::ACK, TTL, DSS, 100));
    observer.sent(Side::Clients, &frame(TcpFlags::ACK, TTL, &[], 100));
    assert_eq!(observer.complaint, None);
    observer.sent(Side::Clients, &frame(TcpFlags::ACK, TTL, &[], 99));
    assert!(observer.complaint.is_some_and(|text| text.contains("right edge")));
}
