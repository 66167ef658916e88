//! What the operating system is asked for by reading files: randomness, privileges, who is at the other end of a cable.

use std::fs;
use std::io::{self, Read as _};

/// Capabilities that a box needs: their bit and name.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (39, "CAP_BPF")];
/// CAP_SYS_ADMIN, which includes CAP_BPF.
const SYS_ADMIN: u32 = 21;

/// The seed of the engine's randomness.
pub(super) fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The names of the capabilities that this process lacks.
pub fn missing_privileges() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_in(&status)
}

/// As [`missing_privileges`], from the text of `/proc/self/status`. Where it cannot be read, nothing is missing: opening
/// the ports will tell.
fn missing_in(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(set) = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else { return Vec::new() };
    let has = |bit: u32| set >> bit & 1 == 1;
    NEEDED
        .iter()
        .filter(|(bit, name)| !(has(*bit) || *name == "CAP_BPF" && has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect()
}

/// What to do about segments whose checksum was left to a device that never finished it.
pub fn checksum_advice(port: &str, interface: &str) -> String {
    let what =
        format!("port {port:?}: segments arrive on {interface} with checksums that the sending device left unfinished");
    match peer_of(interface) {
        Some(Peer::Here(device)) => format!("{what}; mend it by `ethtool -K {device} tx off`"),
        Some(Peer::Elsewhere(index)) => format!(
            "{what}; mend it by `ethtool -K DEVICE tx off` where DEVICE is the other end of {interface}: interface \
             {index} of its network namespace (`ip link` shows the numbers)"
        ),
        None => format!(
            "{what}; mend it by `ethtool -K DEVICE tx off` where DEVICE is the one that transmits into {interface} (of a veth \
             pair the other end)"
        ),
    }
}

/// The other end of a veth pair.
#[derive(Debug, PartialEq, Eq)]
enum Peer {
    /// A device of this network namespace.
    Here(String),
    /// The number of a device of another one.
    Elsewhere(u32),
}

fn peer_of(interface: &str) -> Option<Peer> {
    let number = |device: &str, file: &str| -> Option<u32> {
        fs::read_to_string(format!("/sys/class/net/{device}/{file}")).ok()?.trim().parse().ok()
    };
    let own = number(interface, "ifindex")?;
    let other = number(interface, "iflink").filter(|other| *other != own)?;
    // The same number may be somebody else's here: only a device that points back is the peer.
    let here = fs::read_dir("/sys/class/net").ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let points_back =
        |device: &String| number(device, "ifindex") == Some(other) && number(device, "iflink") == Some(own);
    Some(here.into_iter().find(points_back).map_or(Peer::Elsewhere(other), Peer::Here))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seeds_differ() {
        assert_ne!(seed().expect("randomness"), seed().expect("randomness"));
    }

    #[test]
    fn a_process_without_capabilities_lacks_all_that_are_needed() {
        assert_eq!(missing_in("Name:\tx\nCapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"]);
    }

    #[test]
    fn root_lacks_nothing_and_sys_admin_stands_for_bpf() {
        assert!(missing_in("CapEff:\t000001ffffffffff\n").is_empty());
        assert!(missing_in(&format!("CapEff:\t{:016x}\n", 1u64 << 12 | 1 << 13 | 1 << 21)).is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_not_held_against_the_process() {
        assert!(missing_in("no such line").is_empty());
    }

    #[test]
    fn an_interface_without_a_peer_gets_advice_all_the_same() {
        let advice = checksum_advice("wan0", "lo");
        assert!(
            advice.contains("`ethtool -K DEVICE tx off` where DEVICE is the one that transmits into lo"),
            "{advice}"
        );
    }
}
