//! The client's kernel: addresses, routes by source address, and MPTCP's limits and endpoints.

use anyhow::Result;

use super::namespace::Namespace;
use super::plan::{Family, Path, Plan};
use super::topology::{LabOptions, Mode};

/// Routing table of packets from a path's own address.
fn table(path: Path) -> u32 {
    101 + path.index() as u32
}

pub(crate) fn set_up(client: &Namespace, options: &LabOptions) -> Result<()> {
    client.sysctl(&[
        ("net.mptcp.enabled", "1"),
        // The box answers on the path that a subflow uses, with an address of either network.
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        // A path that is cut keeps its addresses and gets its routes back.
        ("net.ipv6.conf.all.keep_addr_on_down", "1"),
        ("net.ipv6.conf.default.keep_addr_on_down", "1"),
    ])?;
    client.sysctl_where_known(&[
        // Two lost SYNs would turn MPTCP off for an hour.
        ("net.mptcp.blackhole_timeout", "0"),
    ])?;
    let mut lines = String::new();
    for path in Path::BOTH {
        let device = path.client_interface();
        for family in [Family::V4, Family::V6] {
            let address = Plan::with_prefix(Plan::client(path, family));
            lines.push_str(&format!("address add {address} dev {device}\n"));
        }
        lines.push_str(&format!("link set {device} up\n"));
    }
    client.ip(&lines)?;
    for path in Path::BOTH {
        let rule = |family| format!("rule add from {} lookup {}\n", Plan::client(path, family), table(path));
        client.ip(&rule(Family::V4))?;
        client.ip6(&rule(Family::V6))?;
        add_routes(client, options.mode, path)?;
    }
    let limit = options.subflow_limit;
    let mut lines = format!("mptcp limits set subflows {limit} add_addr_accepted {limit}\n");
    for family in [Family::V4, Family::V6] {
        let (address, device) = (Plan::client(Path::Second, family), Path::Second.client_interface());
        lines.push_str(&format!("mptcp endpoint add {address} dev {device} subflow\n"));
    }
    client.ip(&lines)
}

/// The routes of one path: for packets from its own address, and in transparent mode one of the default routes.
pub(crate) fn add_routes(client: &Namespace, mode: Mode, path: Path) -> Result<()> {
    let device = path.client_interface();
    for family in [Family::V4, Family::V6] {
        let via = Plan::box_wan(path, family);
        let mut lines = format!("route replace default via {via} dev {device} table {}\n", table(path));
        if mode == Mode::Transparent {
            let metric = 100 + path.index();
            lines.push_str(&format!("route replace default via {via} dev {device} metric {metric}\n"));
        }
        match family {
            Family::V4 => client.ip(&lines)?,
            Family::V6 => client.ip6(&lines)?,
        }
    }
    Ok(())
}
