//! Every bound of the MPTCP layer, asserted against the others.

use mimbox_stack::Duration;

/// Most subflows of one connection.
pub const MAX_SUBFLOWS: usize = 8;
/// Most mappings that a subflow remembers ahead of its data.
pub const MAX_MAPPINGS: usize = 8192;
/// Most frames that a subflow keeps while their mapping is missing.
pub const MAX_UNMAPPED_FRAMES: usize = 256;
/// How long a subflow keeps data while its mapping is missing: a peer whose options no longer pass sends it again and again
/// at data level, a frame at a time. Longer than the backoff of a few such timeouts.
pub const MAX_UNMAPPED_TIME: Duration = Duration::from_secs(10);
/// Most addresses that a connection announces.
pub const MAX_ANNOUNCED: usize = 8;
/// Most events that wait for the owner.
pub const MAX_EVENTS: usize = 32;
/// Entries of the retained ring that one reinjection step looks at.
pub const REINJECT_SCAN: usize = 256;
/// Segments that one step puts on subflows.
pub const SCHEDULE_BURST: usize = 256;
/// Segments that one data-level timeout sends again.
pub const DATA_TIMEOUT_SEGMENTS: usize = 8;
/// Segments at the left edge of a closed window that one step sends again on a faster subflow.
pub const OPPORTUNISTIC_SEGMENTS: usize = 4;
/// How many bits there are to mark the holders of a segment with.
pub const HOLDER_BITS: u32 = 32;
/// How many times an announcement is sent again when no echo comes.
pub const ADD_ADDR_RETRIES: u8 = 3;
/// How long an announcement waits for its echo at first.
pub const ADD_ADDR_TIMEOUT: Duration = Duration::from_secs(2);
/// Acknowledgments in a row that a subflow sends for signals alone (RFC 8684 §3.4.1).
pub const SIGNALS_IN_A_ROW: u8 = 2;
/// The least pause after them; a round trip, when that is longer.
pub const SIGNAL_PAUSE: Duration = Duration::from_millis(20);
/// How many times an MP_JOIN third ACK is sent again before the subflow is given up.
pub const JOIN_ACK_RETRIES: u8 = 6;
/// Pure ACKs that carry the infinite mapping after a fallback: none of them may arrive, and there may be no data to carry it.
pub const INFINITE_ON_ACKS: u8 = 16;
/// Data-level timeouts after which a connection that never had a DATA_ACK, and has no data in flight, falls back.
pub const UNCONFIRMED_TIMEOUTS: u8 = 3;
/// Data-level timeouts after which a connection ends whose data arrives, by the subflows' acknowledgments, and is never
/// acknowledged at data level: options do not pass on what paths there are. With the backoff it takes two minutes.
pub const MAX_UNHEARD: u8 = 16;
/// The longest that a data-level timer backs off to.
pub const MAX_DATA_RTO: Duration = Duration::from_secs(10);
/// The shortest data-level timeout.
pub const MIN_DATA_RTO: Duration = Duration::from_millis(200);

/// While a subflow is backup at our wish, it is looked so often whether the others bring something.
pub const RELIEF_STEP: Duration = Duration::from_millis(250);
/// In so many times as long it shows whether they bring more than all did before.
pub const RELIEF_STEPS: u32 = 4;
/// In so many times as long it is measured which subflow holds the others up; what was measured before that counts half as much
/// each time,
pub const RELIEF_MEASURE_STEPS: u32 = 2;
/// and a subflow that does so many times in a row is asked for as backup.
pub const RELIEF_ROUNDS: u8 = 2;
/// Bytes of all subflows, thus counted, without which a measurement says nothing.
pub const RELIEF_LEAST_BYTES: u64 = 256 * 1400;
/// How long a subflow is left as backup before it gets another trial; doubled each time,
pub const RELIEF_PAUSE: Duration = Duration::from_secs(60);
/// so many times at most.
pub const RELIEF_PAUSES: u8 = 4;

const _: () = assert!(HOLDER_BITS as usize > 2 * MAX_SUBFLOWS);
// A summed mapping covers at most 64 KiB, which arrive in at most as many frames of a minimal segment size.
const _: () = assert!(MAX_UNMAPPED_FRAMES * 536 > 65_535);
