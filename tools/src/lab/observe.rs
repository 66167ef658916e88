//! What the kernels at both ends get to see.

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::namespace::Namespace;

/// Whether a counter of a kernel's MPTCP tells of data that was damaged, of MP_FAIL, or of a fallback.
pub fn tells_of_damage(name: &str) -> bool {
    const SIGNS: [&str; 9] = [
        "Fallback",
        "DSSCorruption",
        "MPFail",
        "InfiniteMap",
        "DataCsumErr",
        "DSSNotMatching",
        "DSSNoMatchTCP",
        "HMacFailure",
        "Blackhole",
    ];
    name.starts_with("MPTcpExt") && SIGNS.iter().any(|sign| name.contains(sign))
}

/// The counters of a namespace's MPTCP that moved since it was made and tell of damage, one line each.
pub fn damage(namespace: &Namespace) -> Result<Vec<String>> {
    let told = namespace.protocol_counters()?.into_iter().filter(|(name, value)| *value > 0 && tells_of_damage(name));
    Ok(told.map(|(name, value)| format!("the kernel of {} counts {value} {name}", namespace.name())).collect())
}

/// Counts TCP packets that arrive in a namespace, and those with an option that should not be there.
#[derive(Debug)]
pub struct ServerWatch<'a> {
    namespace: &'a Namespace,
}

/// Packets that arrived since the watch began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OptionCounts {
    /// All of TCP.
    pub tcp: u64,
    /// With an MPTCP option (kind 30).
    pub mptcp: u64,
    /// Those of them that are SYNs with MP_CAPABLE: a transparent box lets the client ask the server for MPTCP.
    pub mp_capable_syn: u64,
    /// With an experimental option (kind 253), such as Dst Opt.
    pub experimental: u64,
}

impl<'a> ServerWatch<'a> {
    /// Begins to count.
    pub fn begin(namespace: &'a Namespace) -> Result<Self> {
        namespace.nft(
            "table inet watch\n\
             delete table inet watch\n\
             table inet watch {\n\
             counter seen_tcp { }\n\
             counter seen_mptcp { }\n\
             counter seen_mp_capable_syn { }\n\
             counter seen_experimental { }\n\
             chain arriving {\n\
             type filter hook prerouting priority raw; policy accept;\n\
             meta l4proto tcp counter name seen_tcp\n\
             tcp option 30 exists counter name seen_mptcp\n\
             tcp flags & (syn | ack) == syn tcp option mptcp subtype 0 counter name seen_mp_capable_syn\n\
             tcp option 253 exists counter name seen_experimental\n\
             }\n\
             }\n",
        )?;
        Ok(Self { namespace })
    }

    /// The counts so far.
    pub fn counts(&self) -> Result<OptionCounts> {
        let text = self.namespace.run("nft", &["-j", "list", "counters", "table", "inet", "watch"])?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("nft printed no JSON: {text}"))?;
        let count = |name: &str| {
            json["nftables"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.get("counter"))
                .find(|counter| counter["name"] == name)
                .and_then(|counter| counter["packets"].as_u64())
                .ok_or_else(|| anyhow!("nft knows no counter {name}: {text}"))
        };
        Ok(OptionCounts {
            tcp: count("seen_tcp")?,
            mptcp: count("seen_mptcp")?,
            mp_capable_syn: count("seen_mp_capable_syn")?,
            experimental: count("seen_experimental")?,
        })
    }
}
