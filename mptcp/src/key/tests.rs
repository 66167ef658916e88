use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

// Expected values were computed apart from this code, with Python's hashlib and hmac.
const KEYS: KeyPair = KeyPair { local: 0x0123_4567_89ab_cdef, remote: 0xfedc_ba98_7654_3210, version: Version::V1 };
const V0: KeyPair = KeyPair { version: Version::V0, ..KEYS };

#[test]
fn the_token_is_the_first_and_the_idsn_the_last_part_of_the_hash() {
    let derived = derive(KEYS.local, Version::V1);
    assert_eq!(derived.token, 0x55c5_3f5d);
    assert_eq!(derived.idsn, Dsn(0x5707_62cd_38be_9818));
    assert_eq!(token(KEYS.local, Version::V1), derived.token);
}

#[test]
fn a_join_hmac_is_cut_from_the_left() {
    let hmac = KEYS.join(0xdead_beef, 0x0102_0304);
    assert_eq!(hmac.for_syn_ack(), 0xb31b_7221_8c9c_ccc4);
    assert_eq!(
        hmac.for_ack(),
        [
            0xb3, 0x1b, 0x72, 0x21, 0x8c, 0x9c, 0xcc, 0xc4, 0x77, 0x21, 0xed, 0x25, 0xd6, 0xc5, 0xf2, 0x0b, 0x59, 0x08,
            0xee, 0x98
        ]
    );
}

#[test]
fn an_hmac_over_ascii_keys_and_nonces_is_as_computed_elsewhere() {
    let keys = KeyPair { local: 0x0b0b_0b0b_0b0b_0b0b, remote: 0x0b0b_0b0b_0b0b_0b0b, version: Version::V1 };
    assert_eq!(keys.join(0x4869_2054, 0x6865_7265).for_syn_ack(), 0x492c_e020_fe25_34a5);
}

#[test]
fn the_two_hosts_sign_with_their_own_key_first() {
    assert_ne!(KEYS.join(1, 2), KEYS.reversed().join(1, 2));
    assert_eq!(KEYS.reversed().reversed(), KEYS);
}

#[test]
fn an_add_addr_hmac_is_cut_from_the_right_and_covers_port_zero() {
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    assert_eq!(KEYS.add_addr(5, v4, None), 0x6559_e658_628f_91ae);
    assert_eq!(KEYS.add_addr(5, v4, None), KEYS.add_addr(5, v4, Some(0)));
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    assert_eq!(KEYS.add_addr(6, v6, Some(8080)), 0x302d_0a01_5b47_dc5a);
}

#[test]
fn codes_are_compared_whole() {
    assert!(same_code(&[1, 2, 3], &[1, 2, 3]));
    assert!(!same_code(&[1, 2, 3], &[1, 2, 4]));
    assert!(!same_code(&[1, 2, 3], &[1, 2]));
}

#[test]
fn version_0_hashes_with_sha_1() {
    let derived = derive(V0.local, Version::V0);
    assert_eq!(derived.token, 0x0ca2_eadb);
    assert_eq!(derived.idsn, Dsn(0xe3df_8ee1_21f1_0547));
    let hmac = V0.join(0xdead_beef, 0x0102_0304);
    assert_eq!(hmac.for_syn_ack(), 0xfe9e_028c_f58b_fc56);
    assert_eq!(
        hmac.for_ack(),
        [
            0xfe, 0x9e, 0x02, 0x8c, 0xf5, 0x8b, 0xfc, 0x56, 0xbe, 0x51, 0xaa, 0x1b, 0x3b, 0x55, 0x20, 0x78, 0x54, 0x83,
            0xd2, 0x91
        ]
    );
}
