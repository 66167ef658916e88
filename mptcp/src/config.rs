//! What the owner of a connection decides.

use mimbox_stack::Duration;

use crate::coupled::Coupled;
use crate::limits::MAX_SUBFLOWS;
use crate::scheduler::SchedulerKind;

/// What becomes of a connection whose last subflow is reset without an MP_FASTCLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LastReset {
    /// It waits for another subflow, like one whose paths went silent (RFC 8684 §3.3.3, break before make).
    #[default]
    Wait,
    /// It counts as reset.
    Reset,
}

/// The parameters of one connection. Small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MptcpConfig {
    /// Require DSS checksums; they are used as well when the peer requires them.
    pub checksum: bool,
    /// Accept clients of version 0 (RFC 6824) too.
    pub version_0: bool,
    /// Set the C flag: the peer must not open subflows to the address of the first one.
    pub deny_join_initial_address: bool,
    /// Most subflows, at most [`MAX_SUBFLOWS`].
    pub max_subflows: u8,
    /// Which subflow new data goes to.
    pub scheduler: SchedulerKind,
    /// How the subflows' congestion windows depend on each other; but for [`Coupled::No`] the subflows' connections must
    /// run [`CcKind::Coupled`](mimbox_stack::tcp::CcKind::Coupled).
    pub coupled: Coupled,
    /// How long the connection lives without any subflow.
    pub no_subflow_timeout: Duration,
    /// How long subflows may take to close once both directions are over. A peer that has gone meanwhile does not answer
    /// our FIN, and nothing but time would end FIN-WAIT-2.
    pub close_timeout: Duration,
    /// What the reset of the last subflow means.
    pub last_reset: LastReset,
    /// Bytes beyond the advertised window that are still taken when they arrive.
    pub window_slack: u32,
    /// Most frames that wait for data of another subflow.
    pub max_reorder_frames: u16,
    /// Ask the peer to use a subflow as backup when it brings little and its losses hold the others up.
    pub ask_backup: bool,
}

impl Default for MptcpConfig {
    fn default() -> Self {
        Self {
            checksum: false,
            version_0: false,
            deny_join_initial_address: false,
            max_subflows: MAX_SUBFLOWS as u8,
            scheduler: SchedulerKind::default(),
            coupled: Coupled::No,
            // Linux lets a connection live as long.
            no_subflow_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(60),
            last_reset: LastReset::Wait,
            window_slack: 256 * 1024,
            max_reorder_frames: 8192,
            ask_backup: true,
        }
    }
}

impl MptcpConfig {
    /// Option bytes that data segments must leave free ([`TcpConfig::upper_reserve`](mimbox_stack::tcp::TcpConfig)):
    /// a DSS with a 64-bit DATA_ACK and a 32-bit DSN takes 22 bytes, a checksum 2 more, an MP_CAPABLE with the first data
    /// as much; all padded to 24.
    pub const UPPER_RESERVE: u8 = 24;
}
