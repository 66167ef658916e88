use proptest::prelude::*;

use super::*;

#[test]
fn the_four_lengths_name_a_server() {
    let cases = [
        ("192.0.2.7:80", 80, 8),
        ("192.0.2.7:8080", 80, 10),
        ("[2001:db8::7]:80", 80, 20),
        ("[2001:db8::7]:443", 80, 22),
    ];
    for (server, syn_port, length) in cases {
        let server: SocketAddr = server.parse().expect("an address");
        let option = emit(server, DEFAULT_EXID, syn_port);
        assert_eq!(option.len(), length);
        assert_eq!(parse(&option, DEFAULT_EXID, syn_port), Ok(server));
    }
}

#[test]
fn another_experiments_option_is_told_from_a_malformed_one() {
    let other = [KIND, 8, 0xf9, 0x89, 192, 0, 2, 7];
    assert_eq!(parse(&other, DEFAULT_EXID, 80), Err(DstOptError::OtherExperiment));
    let short = [KIND, 7, 0x4d, 0x42, 192, 0, 2];
    assert_eq!(parse(&short, DEFAULT_EXID, 80), Err(DstOptError::Malformed));
    let lying = [KIND, 9, 0x4d, 0x42, 192, 0, 2, 7];
    assert_eq!(parse(&lying, DEFAULT_EXID, 80), Err(DstOptError::Malformed));
    let port_zero = [KIND, 10, 0x4d, 0x42, 192, 0, 2, 7, 0, 0];
    assert_eq!(parse(&port_zero, DEFAULT_EXID, 80), Err(DstOptError::Malformed));
}

#[test]
fn a_mapped_ipv4_address_is_the_ipv4_server() {
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().expect("an address");
    let option = emit(mapped, DEFAULT_EXID, 80);
    assert_eq!(parse(&option, DEFAULT_EXID, 80), Ok("192.0.2.7:80".parse().expect("an address")));
}

proptest! {
    #[test]
    fn every_server_round_trips(v6: bool, bits: u128, port in 1u16.., syn_port in 1u16.., exid: u16) {
        let ip = if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) };
        let server = SocketAddr::new(ip, port);
        let option = emit(server, exid, syn_port);
        prop_assert_eq!(parse(&option, exid, syn_port), Ok(SocketAddr::new(ip.to_canonical(), port)));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40), exid: u16, port: u16) {
        let _ = parse(&bytes, exid, port);
    }
}
