use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use siphasher::sip::SipHasher13;

use super::*;

fn flow(n: u32) -> FlowKey {
    let (local_port, remote_port) = (443, (n % 3) as u16);
    if n.is_multiple_of(2) {
        let (local, remote) = (Ipv4Addr::from(0x0a00_0001).into(), Ipv4Addr::from(n).into());
        FlowKey { local, remote, local_port, remote_port }
    } else {
        let (local, remote) = (Ipv6Addr::from(1).into(), Ipv6Addr::from(u128::from(n) << 64).into());
        FlowKey { local, remote, local_port, remote_port }
    }
}

fn table() -> FlowTable<u64> {
    FlowTable::with_capacity(HashKey::new(1, 2), 0)
}

#[test]
fn the_hash_is_siphash_1_3() {
    let key = HashKey::new(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    for n in 0..100 {
        let flow = flow(n * 7919);
        let mut bytes = Vec::new();
        for address in [flow.local, flow.remote] {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        bytes.extend(flow.local_port.to_be_bytes());
        bytes.extend(flow.remote_port.to_be_bytes());
        let mut oracle = SipHasher13::new_with_keys(key.k0, key.k1);
        oracle.write(&bytes);
        assert_eq!(key.hash(&flow), oracle.finish(), "{flow:?}");
    }
}

#[test]
fn a_flow_and_its_mirror_are_two() {
    let mut table = table();
    let (there, back) = (flow(4), flow(4).reversed());
    table.insert(table.hash(&there), there, 1);
    assert_eq!(table.get(table.hash(&back), &back), None);
    assert_eq!(table.get(table.hash(&there), &there), Some(1));
}

#[test]
fn inserting_again_replaces_the_handle() {
    let mut table = table();
    let hash = table.hash(&flow(1));
    assert_eq!(table.insert(hash, flow(1), 5), None);
    assert_eq!(table.insert(hash, flow(1), 6), Some(5));
    assert_eq!((table.get(hash, &flow(1)), table.len()), (Some(6), 1));
}

#[test]
fn flows_of_equal_hash_are_told_apart() {
    let mut table = table();
    for n in 0..100 {
        table.insert(77, flow(n), u64::from(n));
    }
    for n in (0..100).step_by(3) {
        assert_eq!(table.remove(77, &flow(n)), Some(u64::from(n)));
    }
    for n in 0..100 {
        assert_eq!(table.get(77, &flow(n)), (!n.is_multiple_of(3)).then_some(u64::from(n)));
    }
}

#[test]
fn a_hundred_thousand_flows_come_and_go() {
    let mut table = table();
    for n in 0..100_000 {
        table.insert(table.hash(&flow(n)), flow(n), u64::from(n));
        table.prefetch(table.hash(&flow(n)));
    }
    assert_eq!(table.len(), 100_000);
    assert_eq!(table.iter().count(), 100_000);
    for n in 0..100_000 {
        assert_eq!(table.remove(table.hash(&flow(n)), &flow(n)), Some(u64::from(n)));
    }
    assert!(table.is_empty());
}

#[test]
fn a_search_stays_short_however_the_table_grew() {
    let mut table = table();
    for n in 0..50_000 {
        table.insert(table.hash(&flow(n)), flow(n), 0);
        assert!(table.slots.len * 2 <= table.slots.mask + 1, "more than half full");
    }
    let mut steps = 0;
    for n in 0..50_000 {
        let hash = table.hash(&flow(n)) as u32;
        if let Some((at, _)) = table.slots.find(hash, &flow(n)) {
            steps += at.wrapping_sub(hash as usize) & table.slots.mask;
        }
    }
    assert!(steps < 50_000, "{steps} steps beyond the home slots of 50,000 flows");
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, u64),
    Remove(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0u32..1500, any::<u64>()).prop_map(|(n, value)| Step::Insert(n, value)),
        3 => (0u32..1500).prop_map(Step::Remove),
    ];
    proptest::collection::vec(step, 0..4000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// `spread` squeezes the hashes, so that long runs, their wrap-around and removals inside them are met.
    #[test]
    fn the_table_equals_a_map(steps in steps(), spread in prop_oneof![Just(u64::MAX), Just(0xff), Just(0xf), Just(0xffff_ff00)]) {
        let mut table = table();
        let mut model = BTreeMap::new();
        let hash = |table: &FlowTable<u64>, n| table.hash(&flow(n)) & spread | if spread == 0xf { 0xf8 } else { 0 };
        for step in steps {
            match step {
                Step::Insert(n, value) => {
                    prop_assert_eq!(table.insert(hash(&table, n), flow(n), value), model.insert(n, value));
                }
                Step::Remove(n) => prop_assert_eq!(table.remove(hash(&table, n), &flow(n)), model.remove(&n)),
            }
            prop_assert_eq!(table.len(), model.len());
        }
        for n in 0..1500 {
            prop_assert_eq!(table.get(hash(&table, n), &flow(n)), model.get(&n).copied());
        }
        let mut listed: Vec<u64> = table.iter().map(|(_, value)| value).collect();
        let mut expected: Vec<u64> = model.values().copied().collect();
        listed.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(listed, expected);
    }
}
