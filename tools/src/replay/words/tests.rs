use super::*;

#[test]
fn a_connect_with_a_destination_option_reads_as_such() {
    assert_eq!(destination(&[192, 0, 2, 7]).as_deref(), Some("192.0.2.7"));
    assert_eq!(destination(&[192, 0, 2, 7, 0, 80]).as_deref(), Some("192.0.2.7 port 80"));
    assert_eq!(destination(&[1, 2, 3]), None);
}

#[test]
fn a_truncated_frame_says_so() {
    assert!(Words::default().of(&[0; 5]).starts_with("not understood: "));
}

#[test]
fn mptcp_options_read_as_words() {
    let join = parse_mptcp(&[30, 12, 0x11, 2, 0, 0, 0, 1, 0, 0, 0, 2]).map(|option| mptcp(&option));
    assert_eq!(join.as_deref(), Ok("MP_JOIN token 00000001 nonce 00000002 address 2 backup"));
    let ack = parse_mptcp(&[30, 8, 0x20, 0x01, 0, 0, 0, 9]).map(|option| mptcp(&option));
    assert_eq!(ack.as_deref(), Ok("DSS DATA_ACK …00000009"));
}
