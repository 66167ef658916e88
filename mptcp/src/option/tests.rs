use mimbox_stack::options::{OptionSlice, TcpOptions};
use mimbox_stack::wire::Ecn;
use mimbox_stack::{FlowKey, SeqNum};
use proptest::prelude::*;

use super::*;

fn bytes_of(option: &MptcpOption) -> Vec<u8> {
    let mut out = OptionBytes::new();
    assert!(option.emit(&mut out));
    out.to_vec()
}

/// A segment that carries the given raw MPTCP options.
fn segment(flags: TcpFlags, raw: &[&[u8]]) -> SegmentIn {
    let mut options = TcpOptions::default();
    for option in raw {
        let start = options.raw.len() as u8;
        options.raw.try_extend_from_slice(option).unwrap();
        options.mptcp.push(OptionSlice { start, len: option.len() as u8 });
    }
    let addr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    SegmentIn {
        flow: FlowKey { local: addr, remote: addr, local_port: 1, remote_port: 2 },
        seq: SeqNum(0),
        ack: SeqNum(0),
        flags,
        window: 0,
        ecn: Ecn::NotEct,
        options,
        payload_offset: 0,
        payload_len: 0,
        payload_sum: 0,
    }
}

fn capable(form: CapableForm) -> MptcpOption {
    MptcpOption::Capable(Capable { version: VERSION_1, flags: CapableFlags::HMAC_SHA256, form })
}

#[test]
fn mp_capable_takes_4_12_20_22_and_24_bytes() {
    let (sender, receiver) = (0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
    assert_eq!(bytes_of(&capable(CapableForm::Bare)), [30, 4, 0x01, 0x01]);
    assert_eq!(bytes_of(&capable(CapableForm::OneKey { sender })), [30, 12, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]);
    let both = bytes_of(&capable(CapableForm::BothKeys { sender, receiver }));
    assert_eq!(both.len(), 20);
    assert_eq!(&both[12..], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    let data = bytes_of(&capable(CapableForm::Data { sender, receiver, len: 0x0203, checksum: None }));
    assert_eq!((data.len(), &data[20..]), (22, &[2, 3][..]));
    let summed = bytes_of(&capable(CapableForm::Data { sender, receiver, len: 0x0203, checksum: Some(0xbeef) }));
    assert_eq!((summed.len(), &summed[20..]), (24, &[2, 3, 0xbe, 0xef][..]));
}

#[test]
fn mp_join_takes_12_16_and_24_bytes() {
    let syn = JoinSyn { backup: true, addr_id: 3, token: 0x0a0b_0c0d, nonce: 0x0102_0304 };
    assert_eq!(bytes_of(&MptcpOption::Join(Join::Syn(syn))), [30, 12, 0x11, 3, 10, 11, 12, 13, 1, 2, 3, 4]);
    let syn_ack = JoinSynAck { backup: false, addr_id: 4, hmac: 0x1122_3344_5566_7788, nonce: 9 };
    assert_eq!(
        bytes_of(&MptcpOption::Join(Join::SynAck(syn_ack))),
        [30, 16, 0x10, 4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 9]
    );
    let ack = bytes_of(&MptcpOption::Join(Join::Ack { hmac: [7; 20] }));
    assert_eq!((ack.len(), ack[2], ack[3]), (24, 0x10, 0));
}

#[test]
fn a_dss_with_a_long_ack_and_a_short_dsn_takes_22_bytes() {
    let dss = Dss {
        data_ack: Some(WireDsn::Long(0x0102_0304_0506_0708)),
        mapping: Some(DssMapping { dsn: WireDsn::Short(0x0a0b_0c0d), ssn: 1, len: 1424, checksum: None }),
        data_fin: false,
    };
    let bytes = bytes_of(&MptcpOption::Dss(dss));
    assert_eq!(bytes, [30, 22, 0x20, 0x07, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 0, 0, 0, 1, 0x05, 0x90]);
}

#[test]
fn a_dss_with_everything_takes_28_bytes() {
    let dss = Dss {
        data_ack: Some(WireDsn::Long(1)),
        mapping: Some(DssMapping { dsn: WireDsn::Long(2), ssn: 0, len: 1, checksum: Some(0x1234) }),
        data_fin: true,
    };
    let bytes = bytes_of(&MptcpOption::Dss(dss));
    assert_eq!((bytes.len(), bytes[3]), (28, 0x1f));
    assert_eq!(parse(&bytes), Ok(MptcpOption::Dss(dss)));
}

#[test]
fn an_add_addr_echo_has_no_hmac() {
    let announced = AddAddr {
        addr_id: 2,
        addr: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        port: None,
        hmac: Some(0x0102_0304_0506_0708),
        version: Version::V1,
    };
    let echo = AddAddr { hmac: None, ..announced };
    assert_eq!(bytes_of(&MptcpOption::AddAddr(announced)), [30, 16, 0x30, 2, 192, 0, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bytes_of(&MptcpOption::AddAddr(echo)), [30, 8, 0x31, 2, 192, 0, 2, 1]);
    let with_port = AddAddr { port: Some(443), ..echo };
    assert_eq!(bytes_of(&MptcpOption::AddAddr(with_port)).len(), 10);
    let v6 = AddAddr { addr: IpAddr::V6(Ipv6Addr::LOCALHOST), port: Some(443), ..announced };
    assert_eq!(bytes_of(&MptcpOption::AddAddr(v6)).len(), 30);
}

#[test]
fn version_0_writes_add_addr_and_mp_prio_in_its_own_way() {
    let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let v4 = AddAddr { addr_id: 2, addr, port: None, hmac: None, version: Version::V0 };
    assert_eq!(bytes_of(&MptcpOption::AddAddr(v4)), [30, 8, 0x34, 2, 192, 0, 2, 1]);
    let with_port = AddAddr { port: Some(443), ..v4 };
    assert_eq!(bytes_of(&MptcpOption::AddAddr(with_port)), [30, 10, 0x34, 2, 192, 0, 2, 1, 0x01, 0xbb]);
    let v6 = AddAddr { addr: IpAddr::V6(Ipv6Addr::LOCALHOST), ..v4 };
    let raw = bytes_of(&MptcpOption::AddAddr(v6));
    assert_eq!((raw.len(), raw[2]), (20, 0x36));
    assert_eq!(parse(&raw), Ok(MptcpOption::AddAddr(v6)));
    assert!(!v6.is_echo());
    let prio = MptcpOption::Prio { backup: true, addr_id: Some(3) };
    assert_eq!(bytes_of(&prio), [30, 4, 0x51, 3]);
}

#[test]
fn version_0_may_have_its_keys_beside_a_dss_and_version_1_may_not() {
    let dss = bytes_of(&MptcpOption::Dss(Dss { data_ack: Some(WireDsn::Short(1)), ..Dss::default() }));
    let keys = |version| {
        let form = CapableForm::BothKeys { sender: 1, receiver: 2 };
        bytes_of(&MptcpOption::Capable(Capable { version, flags: CapableFlags::HMAC_SHA256, form }))
    };
    let signals = |version| Signals::read(&segment(TcpFlags::ACK, &[&keys(version), &dss]));
    assert_eq!(signals(0).present, Kinds::CAPABLE | Kinds::DSS);
    assert_eq!((signals(1).present, signals(1).refused), (Kinds::CAPABLE, 1));
}

#[test]
fn the_short_options_have_their_documented_bytes() {
    let ids: ArrayVec<u8, MAX_REMOVED> = [4, 9].into_iter().collect();
    assert_eq!(bytes_of(&MptcpOption::RemoveAddr(ids)), [30, 5, 0x40, 4, 9]);
    assert_eq!(bytes_of(&MptcpOption::Prio { backup: true, addr_id: None }), [30, 3, 0x51]);
    assert_eq!(bytes_of(&MptcpOption::Fail { dsn: 5 }), [30, 12, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    assert_eq!(bytes_of(&MptcpOption::FastClose { key: 6 }), [30, 12, 0x70, 0, 0, 0, 0, 0, 0, 0, 0, 6]);
    let reset = TcpReset { transient: true, reason: ResetReason::MiddleboxInterference };
    assert_eq!(bytes_of(&MptcpOption::Reset(reset)), [30, 4, 0x81, 6]);
}

#[test]
fn an_option_that_does_not_fit_leaves_the_budget_as_it_was() {
    let mut out: OptionBytes = [0_u8; 30].into_iter().collect();
    assert!(!MptcpOption::FastClose { key: 1 }.emit(&mut out));
    assert_eq!(out.len(), 30);
}

#[test]
fn lengths_that_no_form_has_are_refused() {
    assert_eq!(parse(&[30, 5, 0x01, 0x01, 0]), Err(OptionError::Length { subtype: 0, len: 5 }));
    assert_eq!(parse(&[30, 13, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(OptionError::Length { subtype: 1, len: 13 }));
    assert_eq!(parse(&[30, 6, 0x20, 0x01, 0, 0]), Err(OptionError::Length { subtype: 2, len: 6 }));
    assert_eq!(parse(&[30, 3, 0x40]), Err(OptionError::Length { subtype: 4, len: 3 }));
    assert_eq!(parse(&[30, 3, 0xf0]), Err(OptionError::Subtype(15)));
    assert_eq!(parse(&[30, 12, 0x01]), Err(OptionError::Truncated));
    assert_eq!(parse(&[31, 3, 0x50]), Err(OptionError::Truncated));
    assert_eq!(parse(&[]), Err(OptionError::Truncated));
}

#[test]
fn a_syn_whose_mp_capable_cannot_be_answered_counts_as_having_none() {
    let with = |bytes: &[u8]| capable_in_syn(&segment(TcpFlags::SYN, &[bytes]));
    assert!(with(&[30, 4, 0x01, 0x01]).is_some_and(|syn| !syn.checksum()));
    assert!(with(&[30, 4, 0x01, 0x81]).is_some_and(|syn| syn.checksum()));
    assert_eq!(with(&[30, 4, 0x01, 0x41]), None, "B set");
    assert_eq!(with(&[30, 4, 0x01, 0x00]), None, "no algorithm");
    assert!(with(&[30, 4, 0x02, 0x01]).is_some(), "a later version is negotiated down");
    let old = with(&[30, 12, 0x00, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    assert_eq!((old.version(), old.key), (Version::V0, Some(0x0102_0304_0506_0708)));
    assert_eq!(with(&[30, 4, 0x01, 0x01]).unwrap().version(), Version::V1);
    assert_eq!(with(&[30, 4, 0x00, 0x01]), None, "version 0 without its key");
    assert_eq!(with(&[30, 12, 0x01, 0x01, 1, 2, 3, 4, 5, 6, 7, 8]), None, "version 1 with a key");
    assert_eq!(capable_in_syn(&segment(TcpFlags::ACK, &[&[30, 4, 0x01, 0x01]])), None);
}

#[test]
fn the_join_of_a_syn_is_found_behind_other_options() {
    let syn = JoinSyn { backup: false, addr_id: 1, token: 2, nonce: 3 };
    let raw = bytes_of(&MptcpOption::Join(Join::Syn(syn)));
    assert_eq!(join_in_syn(&segment(TcpFlags::SYN, &[&raw])), Some(syn));
    assert_eq!(join_in_syn(&segment(TcpFlags::SYN | TcpFlags::ACK, &[&raw])), None);
}

#[test]
fn only_the_first_option_of_a_kind_counts_and_strangers_are_refused() {
    let dss = bytes_of(&MptcpOption::Dss(Dss { data_ack: Some(WireDsn::Short(1)), ..Dss::default() }));
    let other = bytes_of(&MptcpOption::Dss(Dss { data_ack: Some(WireDsn::Short(2)), ..Dss::default() }));
    let join = bytes_of(&MptcpOption::Join(Join::Ack { hmac: [0; 20] }));
    let signals = Signals::read(&segment(TcpFlags::ACK, &[&dss, &other]));
    assert_eq!(signals.dss.and_then(|dss| dss.data_ack), Some(WireDsn::Short(1)));
    assert_eq!(signals.refused, 1);
    let signals = Signals::read(&segment(TcpFlags::ACK, &[&dss, &join]));
    assert!(signals.join.is_none());
    assert_eq!((signals.refused, signals.present), (1, Kinds::DSS));
}

#[test]
fn a_fastclose_may_stand_beside_a_reset_reason() {
    let reset = TcpReset { transient: false, reason: ResetReason::Unspecified };
    let raw = [bytes_of(&MptcpOption::FastClose { key: 7 }), bytes_of(&MptcpOption::Reset(reset))];
    let signals = Signals::read(&segment(TcpFlags::RST, &[&raw[0], &raw[1]]));
    assert_eq!((signals.fastclose, signals.reset), (Some(7), Some(reset)));
}

fn wire_dsn() -> impl Strategy<Value = WireDsn> {
    prop_oneof![any::<u32>().prop_map(WireDsn::Short), any::<u64>().prop_map(WireDsn::Long)]
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::V4(octets.into())),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::V6(octets.into())),
    ]
}

fn any_form() -> impl Strategy<Value = CapableForm> {
    prop_oneof![
        Just(CapableForm::Bare),
        any::<u64>().prop_map(|sender| CapableForm::OneKey { sender }),
        any::<(u64, u64)>().prop_map(|(sender, receiver)| CapableForm::BothKeys { sender, receiver }),
        any::<(u64, u64, u16, Option<u16>)>().prop_map(|(sender, receiver, len, checksum)| CapableForm::Data {
            sender,
            receiver,
            len,
            checksum
        }),
    ]
}

fn any_option() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        (0..16_u8, any::<u8>(), any_form()).prop_map(|(version, flags, form)| {
            MptcpOption::Capable(Capable { version, flags: CapableFlags::from_bits_retain(flags), form })
        }),
        any::<(bool, u8, u32, u32)>().prop_map(|(backup, addr_id, token, nonce)| {
            MptcpOption::Join(Join::Syn(JoinSyn { backup, addr_id, token, nonce }))
        }),
        any::<(bool, u8, u64, u32)>().prop_map(|(backup, addr_id, hmac, nonce)| {
            MptcpOption::Join(Join::SynAck(JoinSynAck { backup, addr_id, hmac, nonce }))
        }),
        any::<[u8; 20]>().prop_map(|hmac| MptcpOption::Join(Join::Ack { hmac })),
        (
            prop::option::of(wire_dsn()),
            prop::option::of((wire_dsn(), any::<u32>(), any::<u16>(), any::<Option<u16>>())),
            any::<bool>()
        )
            .prop_map(|(data_ack, mapping, data_fin)| {
                let mapping = mapping.map(|(dsn, ssn, len, checksum)| DssMapping { dsn, ssn, len, checksum });
                MptcpOption::Dss(Dss { data_ack, mapping, data_fin })
            }),
        (any::<u8>(), any_addr(), any::<Option<u16>>(), any::<Option<u64>>(), any::<bool>()).prop_map(
            |(addr_id, addr, port, hmac, old)| {
                let (version, hmac) = if old { (Version::V0, None) } else { (Version::V1, hmac) };
                MptcpOption::AddAddr(AddAddr { addr_id, addr, port, hmac, version })
            }
        ),
        prop::collection::vec(any::<u8>(), 1..=MAX_REMOVED)
            .prop_map(|ids| MptcpOption::RemoveAddr(ids.into_iter().collect())),
        any::<(bool, Option<u8>)>().prop_map(|(backup, addr_id)| MptcpOption::Prio { backup, addr_id }),
        any::<u64>().prop_map(|dsn| MptcpOption::Fail { dsn }),
        any::<u64>().prop_map(|key| MptcpOption::FastClose { key }),
        any::<(bool, u8)>().prop_map(|(transient, code)| {
            MptcpOption::Reset(TcpReset { transient, reason: ResetReason::from_code(code) })
        }),
    ]
}

proptest! {
    #[test]
    fn every_option_survives_emission_and_parsing(option in any_option()) {
        prop_assert_eq!(parse(&bytes_of(&option)), Ok(option));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..48)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_bytes_that_claim_to_be_mptcp_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 3..40)) {
        bytes[0] = KIND;
        bytes[1] = bytes.len() as u8;
        bytes[2] &= 0x8f;
        if let Ok(option) = parse(&bytes) {
            prop_assert_eq!(parse(&bytes_of(&option)), Ok(option));
        }
    }
}
