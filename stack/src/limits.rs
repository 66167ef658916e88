//! Every bound of this crate's base, asserted against the others at compile time.

use crate::options::MAX_OPTION_BYTES;

/// Ethernet header without a VLAN tag.
pub const ETHERNET_HEADER: usize = 14;
/// An 802.1Q tag.
pub const VLAN_TAG: usize = 4;
/// IPv4 header without options: what the box emits.
pub const IPV4_HEADER: usize = 20;
/// IPv6 header without extension headers: what the box emits.
pub const IPV6_HEADER: usize = 40;
/// TCP header without options.
pub const TCP_HEADER: usize = 20;
/// ICMP header, v4 and v6, of the messages that the box emits.
pub const ICMP_HEADER: usize = 8;
/// The most bytes that the box ever puts before a payload.
pub const MAX_HEADERS: usize = ETHERNET_HEADER + VLAN_TAG + IPV6_HEADER + TCP_HEADER + MAX_OPTION_BYTES;
/// Where a packet's payload starts in a frame that the box filled itself: room for any header before it.
pub const PAYLOAD_OFFSET: usize = 128;
/// Where a received packet's Ethernet header should start in its frame: room for a longer header than it came with.
pub const RX_HEADROOM: usize = 256;
/// The smallest frame (what an AF_XDP UMEM takes).
pub const MIN_FRAME_SIZE: usize = 2048;
/// The largest frame.
pub const MAX_FRAME_SIZE: usize = 4096;
/// IPv6 extension headers walked through before a packet counts as malformed.
pub const MAX_IPV6_EXTENSIONS: usize = 8;
/// The smallest MTU of an IPv4 link (RFC 791 §3.1).
pub const MIN_MTU_V4: u32 = 68;
/// The smallest MTU of an IPv6 link (RFC 8200 §5).
pub const MIN_MTU_V6: u32 = 1280;
/// The longest ICMPv4 error, from its IP header on (RFC 1812 §4.3.2.3).
pub const MAX_ICMPV4_ERROR: usize = 576;
/// The longest ICMPv6 error, from its IP header on (RFC 4443 §2.4 (c)).
pub const MAX_ICMPV6_ERROR: usize = 1280;
/// Small segments that wait are put together up to so many bytes, whatever the segment size that they are sent with: what
/// counts is how well their frames are filled.
pub const COALESCED: u16 = 1_400;
/// Segments below this size are small: a queue that has no smaller ones fills a quarter of its frames.
pub const SMALL_SEGMENT: u16 = COALESCED / 4;
/// Fewer segments than this are not worth putting together.
pub const COALESCE_FROM: u32 = 64;
/// Nanoseconds of one tick of the timing wheel.
pub const TICK_NANOS: u64 = 1_000_000;
/// Levels of the timing wheel, 64 slots each.
pub const WHEEL_LEVELS: usize = 8;
/// Flow table slots per page: one page is what an insertion may have to initialise.
pub const FLOW_PAGE: usize = 256;
/// Slots of the old table that each insertion moves while a flow table grows.
pub const FLOW_MIGRATION_STEP: usize = 16;

const _: () = assert!(MAX_HEADERS <= PAYLOAD_OFFSET);
const _: () = assert!(PAYLOAD_OFFSET <= RX_HEADROOM);
// An Ethernet MTU of 1500 fits a small frame behind the room for reception.
const _: () = assert!(RX_HEADROOM + ETHERNET_HEADER + VLAN_TAG + 1500 <= MIN_FRAME_SIZE);
// Coalesced payload fits behind the room for reception and the headers that came before it.
const _: () = assert!(RX_HEADROOM + MAX_HEADERS + COALESCED as usize <= MIN_FRAME_SIZE);
const _: () = assert!(MAX_FRAME_SIZE <= u16::MAX as usize);
const _: () = assert!(PAYLOAD_OFFSET + MAX_ICMPV6_ERROR <= MIN_FRAME_SIZE);
const _: () = assert!(MAX_OPTION_BYTES == 40 && MAX_OPTION_BYTES.is_multiple_of(4));
// Every instant has a place in the wheel.
const _: () = assert!(u64::MAX / TICK_NANOS < 1 << (6 * WHEEL_LEVELS));
// Growth doubles the table at half load or more, so the old one must be empty before the new one is full.
const _: () = assert!(FLOW_MIGRATION_STEP >= 4 && FLOW_PAGE.is_power_of_two());
