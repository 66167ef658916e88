use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn side(address: IpAddr, announced: Option<u16>, mptcp: bool) -> Side {
    Side { mtu: 1500, address, announced, mptcp }
}

#[test]
fn a_full_server_segment_with_timestamps_is_one_segment_towards_a_linux_client() {
    let mss = towards_server(&side(V4, Some(1460), true), &side(V4, None, false));
    assert_eq!(mss, 1436);
    let payload = mss - TIMESTAMPS;
    assert_eq!(payload, 1424);
    assert_eq!(payload + OUR_DSS + TIMESTAMPS, 1460);
}

#[test]
fn a_plain_client_costs_no_mptcp_options() {
    assert_eq!(towards_server(&side(V4, Some(1460), false), &side(V4, None, false)), 1460);
    assert_eq!(towards_client(&side(V4, Some(1460), false), &side(V4, Some(1400), false)), 1400);
}

#[test]
fn a_client_behind_a_tunnel_lowers_what_the_server_is_told() {
    assert_eq!(towards_server(&side(V4, Some(1360), true), &side(V4, None, false)), 1336);
}

#[test]
fn the_client_may_use_its_whole_link_when_its_options_vanish_on_the_way() {
    assert_eq!(towards_client(&side(V4, Some(1460), true), &side(V4, Some(1460), false)), 1460);
    assert_eq!(towards_client(&side(V4, Some(1460), true), &side(V4, Some(1400), false)), 1428);
}

#[test]
fn families_may_differ_between_the_sides() {
    assert_eq!(towards_server(&side(V6, Some(1440), true), &side(V4, None, false)), 1416);
    assert_eq!(towards_client(&side(V6, Some(1440), true), &side(V4, Some(1460), false)), 1440);
}

#[test]
fn a_missing_or_tiny_announcement_is_given_its_default_or_floor() {
    assert_eq!(towards_server(&side(V4, None, false), &side(V4, None, false)), DEFAULT_V4);
    assert_eq!(towards_server(&side(V4, Some(1), true), &side(V4, None, false)), MIN_MSS);
    assert_eq!(towards_client(&side(V4, Some(1460), false), &side(V6, None, false)), DEFAULT_V6);
}
