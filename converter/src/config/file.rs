//! The configuration file as it is written: every value with its place, nothing decided yet.

use serde::{Deserialize, Serialize};
use toml::Spanned;

/// A word or text with its place in the file.
pub(super) type Text = Spanned<String>;
/// A number with its place; signed so that a negative one gets our own error.
pub(super) type Number = Spanned<i64>;

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) port: Vec<Spanned<Port>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) route: Vec<Spanned<Route>>,
    pub(super) explicit: Option<Spanned<Explicit>>,
    pub(super) transparent: Option<Spanned<Transparent>>,
    #[serde(default)]
    pub(super) policy: Policy,
    #[serde(default)]
    pub(super) mptcp: Mptcp,
    #[serde(default)]
    pub(super) tcp: Tcp,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) worker: Worker,
    #[serde(default)]
    pub(super) admin: Admin,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: Option<Text>,
    pub(super) interface: Option<Text>,
    pub(super) backend: Option<Text>,
    pub(super) addresses: Option<Spanned<Vec<Text>>>,
    pub(super) mode: Option<Text>,
    pub(super) copy: Option<Text>,
    pub(super) queue: Option<Number>,
    pub(super) mac: Option<Text>,
    pub(super) mtu: Option<Number>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) prefix: Option<Text>,
    pub(super) via: Option<Text>,
    pub(super) port: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explicit {
    pub(super) ports: Option<Spanned<Vec<Text>>>,
    pub(super) source: Option<Spanned<Vec<Text>>>,
    pub(super) announce: Option<Spanned<Vec<Text>>>,
    pub(super) dst_opt: Option<Spanned<DstOpt>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DstOpt {
    pub(super) exid: Option<Number>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transparent {
    pub(super) from: Option<Spanned<Vec<Text>>>,
    pub(super) announce: Option<Spanned<Vec<Text>>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) clients: Option<Spanned<Vec<Text>>>,
    pub(super) allow: Option<Spanned<Vec<Text>>>,
    pub(super) deny: Option<Spanned<Vec<Text>>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rule: Vec<Spanned<Rule>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) clients: Option<Spanned<Vec<Text>>>,
    pub(super) servers: Option<Spanned<Vec<Text>>>,
    pub(super) ports: Option<Spanned<Vec<Number>>>,
    pub(super) scheduler: Option<Text>,
    pub(super) congestion: Option<Text>,
    pub(super) subflows: Option<Number>,
    pub(super) announce: Option<Number>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mptcp {
    pub(super) enabled: Option<bool>,
    pub(super) version0: Option<bool>,
    pub(super) scheduler: Option<Text>,
    pub(super) congestion: Option<Text>,
    pub(super) subflows: Option<Number>,
    pub(super) announce: Option<Number>,
    pub(super) checksum: Option<bool>,
    pub(super) ask_backup: Option<bool>,
    pub(super) no_subflow_timeout: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tcp {
    pub(super) congestion: Option<Text>,
    pub(super) initial_window: Option<Number>,
    pub(super) min_rto: Option<Text>,
    pub(super) max_rto: Option<Text>,
    pub(super) delayed_ack: Option<Text>,
    pub(super) user_timeout: Option<Text>,
    pub(super) keepalive: Option<Text>,
    pub(super) time_wait: Option<Text>,
    pub(super) timestamps: Option<bool>,
    pub(super) sack: Option<bool>,
    pub(super) ecn: Option<bool>,
    pub(super) pacing: Option<bool>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) conversions: Option<Number>,
    pub(super) half_open: Option<Number>,
    pub(super) half_open_per_source: Option<Number>,
    pub(super) half_open_timeout: Option<Text>,
    pub(super) time_wait: Option<Number>,
    pub(super) neighbours: Option<Number>,
    pub(super) frames: Option<Number>,
    pub(super) frame_size: Option<Number>,
    pub(super) rx_reserve: Option<Number>,
    pub(super) window_floor: Option<Number>,
    pub(super) window_ceiling: Option<Number>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Worker {
    pub(super) wait: Option<Text>,
    pub(super) cpu: Option<Number>,
    pub(super) batch: Option<Number>,
    pub(super) ring: Option<Number>,
    pub(super) drain: Option<Text>,
    pub(super) next_hop_wait: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Option<Text>,
}
