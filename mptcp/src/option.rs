//! Every suboption of RFC 8684 and of RFC 6824, parsed and emitted; which of them may stand together.
//!
//! The two versions differ in MP_CAPABLE's key on the SYN, in ADD_ADDR (version 0 writes the IP version where version 1 has
//! the echo flag, and neither signs nor echoes), in MP_PRIO's address ID, and in that MP_TCPRST is version 1's alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use bitflags::bitflags;
use mimbox_stack::options::{MAX_OPTION_BYTES, OptionBytes};
use mimbox_stack::{SegmentIn, TcpFlags};
use thiserror::Error;

use crate::dsn::WireDsn;
use crate::key::{JOIN_ACK_HMAC_BYTES, Version};

/// TCP option kind of MPTCP (RFC 8684 §7.1).
pub const KIND: u8 = 30;
/// The version of RFC 8684.
pub const VERSION_1: u8 = 1;
/// Most address IDs that one REMOVE_ADDR can carry: a whole option space.
pub const MAX_REMOVED: usize = MAX_OPTION_BYTES - 3;

/// Subtype numbers (RFC 8684 §7.2).
mod subtype {
    pub(super) const CAPABLE: u8 = 0;
    pub(super) const JOIN: u8 = 1;
    pub(super) const DSS: u8 = 2;
    pub(super) const ADD_ADDR: u8 = 3;
    pub(super) const REMOVE_ADDR: u8 = 4;
    pub(super) const PRIO: u8 = 5;
    pub(super) const FAIL: u8 = 6;
    pub(super) const FASTCLOSE: u8 = 7;
    pub(super) const TCPRST: u8 = 8;
}

/// Bits of the DSS flag octet (RFC 8684 §3.3).
mod dss_bit {
    pub(super) const ACK: u8 = 0x01;
    pub(super) const ACK_LONG: u8 = 0x02;
    pub(super) const MAP: u8 = 0x04;
    pub(super) const DSN_LONG: u8 = 0x08;
    pub(super) const DATA_FIN: u8 = 0x10;
}

/// Why an option was not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum OptionError {
    /// The bytes end before the option does, or it is not of kind 30.
    #[error("the option is truncated or not of kind 30")]
    Truncated,
    /// The length fits no form of the suboption.
    #[error("length {len} fits no form of MPTCP subtype {subtype}")]
    Length {
        /// The suboption.
        subtype: u8,
        /// The length that it claims.
        len: u8,
    },
    /// A subtype that RFC 8684 does not define.
    #[error("unknown MPTCP subtype {0}")]
    Subtype(u8),
}

bitflags! {
    /// Flags of MP_CAPABLE (RFC 8684 §3.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CapableFlags: u8 {
        /// A: checksums are required.
        const CHECKSUM = 0x80;
        /// B: an extension that nobody has defined yet.
        const EXTENSIBILITY = 0x40;
        /// C: no further subflows to this address and port.
        const NO_JOIN_HERE = 0x20;
        /// H: HMAC-SHA256.
        const HMAC_SHA256 = 0x01;
        /// D to G and whatever else the peer set.
        const _ = !0;
    }
}

/// What an MP_CAPABLE carries, by its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapableForm {
    /// 4 bytes: a SYN of version 1.
    Bare,
    /// 12 bytes: a SYN/ACK, or a SYN of version 0.
    OneKey {
        /// The sender's key.
        sender: u64,
    },
    /// 20 bytes: the third ACK.
    BothKeys {
        /// The sender's key.
        sender: u64,
        /// The receiver's key, echoed.
        receiver: u64,
    },
    /// 22 or 24 bytes: the first data.
    Data {
        /// The sender's key.
        sender: u64,
        /// The receiver's key, echoed.
        receiver: u64,
        /// Bytes of data that are mapped.
        len: u16,
        /// Checksum over them, when checksums were negotiated.
        checksum: Option<u16>,
    },
}

/// MP_CAPABLE (RFC 8684 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capable {
    /// Protocol version, 4 bits.
    pub version: u8,
    /// Flags A to H.
    pub flags: CapableFlags,
    /// Keys and data.
    pub form: CapableForm,
}

/// MP_JOIN in its three places (RFC 8684 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// On the SYN, 12 bytes.
    Syn(JoinSyn),
    /// On the SYN/ACK, 16 bytes.
    SynAck(JoinSynAck),
    /// On the third ACK, 24 bytes.
    Ack {
        /// Leftmost 160 bits of the initiator's HMAC.
        hmac: [u8; JOIN_ACK_HMAC_BYTES],
    },
}

/// MP_JOIN of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinSyn {
    /// B: the sender asks that the path is used as backup only.
    pub backup: bool,
    /// The sender's ID of its address.
    pub addr_id: u8,
    /// The receiver's token: names the connection.
    pub token: u32,
    /// The sender's random number.
    pub nonce: u32,
}

/// MP_JOIN of a SYN/ACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinSynAck {
    /// B: the sender asks that the path is used as backup only.
    pub backup: bool,
    /// The sender's ID of its address.
    pub addr_id: u8,
    /// Leftmost 64 bits of the responder's HMAC.
    pub hmac: u64,
    /// The responder's random number.
    pub nonce: u32,
}

/// The mapping part of a DSS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DssMapping {
    /// Data sequence number of the first byte.
    pub dsn: WireDsn,
    /// Subflow sequence number of the first byte, relative to the SYN; 0 for a DATA_FIN without data.
    pub ssn: u32,
    /// Bytes mapped, the DATA_FIN included; 0 for the infinite mapping.
    pub len: u16,
    /// Checksum, when checksums were negotiated.
    pub checksum: Option<u16>,
}

/// The data sequence signal (RFC 8684 §3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dss {
    /// The next data sequence number that the sender expects.
    pub data_ack: Option<WireDsn>,
    /// A mapping.
    pub mapping: Option<DssMapping>,
    /// F: the mapping ends with the last of the sender's data.
    pub data_fin: bool,
}

/// ADD_ADDR and its echo (RFC 8684 §3.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddAddr {
    /// The sender's ID of the address.
    pub addr_id: u8,
    /// The address.
    pub addr: IpAddr,
    /// The port, when it is not the one already in use.
    pub port: Option<u16>,
    /// Rightmost 64 bits of the HMAC; an echo has none, nor has version 0.
    pub hmac: Option<u64>,
    /// Whose form it has.
    pub version: Version,
}

impl AddAddr {
    /// True for the answer to an announcement.
    pub const fn is_echo(&self) -> bool {
        self.hmac.is_none() && matches!(self.version, Version::V1)
    }
}

/// Why a subflow was reset (RFC 8684 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetReason {
    /// 0: the subflow is no longer available.
    Unspecified,
    /// 1: an error in MPTCP signalling.
    MptcpSpecific,
    /// 2: the sender lacks resources.
    LackOfResources,
    /// 3: forbidden by policy.
    Prohibited,
    /// 4: too much data outstanding that other subflows have delivered.
    TooMuchOutstanding,
    /// 5: the subflow performs too badly.
    UnacceptablePerformance,
    /// 6: a middlebox interferes.
    MiddleboxInterference,
    /// A code that RFC 8684 does not define.
    Other(u8),
}

impl ResetReason {
    /// The code on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::MptcpSpecific => 1,
            Self::LackOfResources => 2,
            Self::Prohibited => 3,
            Self::TooMuchOutstanding => 4,
            Self::UnacceptablePerformance => 5,
            Self::MiddleboxInterference => 6,
            Self::Other(code) => code,
        }
    }

    /// The reason with this code.
    pub const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Unspecified,
            1 => Self::MptcpSpecific,
            2 => Self::LackOfResources,
            3 => Self::Prohibited,
            4 => Self::TooMuchOutstanding,
            5 => Self::UnacceptablePerformance,
            6 => Self::MiddleboxInterference,
            other => Self::Other(other),
        }
    }
}

/// MP_TCPRST (RFC 8684 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpReset {
    /// T: trying again later may work.
    pub transient: bool,
    /// Why.
    pub reason: ResetReason,
}

/// One MPTCP option.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MptcpOption {
    /// MP_CAPABLE.
    Capable(Capable),
    /// MP_JOIN.
    Join(Join),
    /// DSS.
    Dss(Dss),
    /// ADD_ADDR, or its echo.
    AddAddr(AddAddr),
    /// REMOVE_ADDR with at least one address ID.
    RemoveAddr(ArrayVec<u8, MAX_REMOVED>),
    /// MP_PRIO.
    Prio {
        /// B: the subflow is to be backup from now on.
        backup: bool,
        /// Version 0 (RFC 6824 §3.3.8): the sender's address that is meant, when it is not the subflow's own.
        addr_id: Option<u8>,
    },
    /// MP_FAIL.
    Fail {
        /// Data sequence number at the start of what failed.
        dsn: u64,
    },
    /// MP_FASTCLOSE.
    FastClose {
        /// The key of the option's receiver.
        key: u64,
    },
    /// MP_TCPRST.
    Reset(TcpReset),
}

bitflags! {
    /// A set of suboptions.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Kinds: u16 {
        /// MP_CAPABLE.
        const CAPABLE = 1 << 0;
        /// MP_JOIN.
        const JOIN = 1 << 1;
        /// DSS.
        const DSS = 1 << 2;
        /// ADD_ADDR.
        const ADD_ADDR = 1 << 3;
        /// REMOVE_ADDR.
        const REMOVE_ADDR = 1 << 4;
        /// MP_PRIO.
        const PRIO = 1 << 5;
        /// MP_FAIL.
        const FAIL = 1 << 6;
        /// MP_FASTCLOSE.
        const FASTCLOSE = 1 << 7;
        /// MP_TCPRST.
        const TCPRST = 1 << 8;
    }
}

impl Kinds {
    /// What may stand beside suboptions of this one kind in a segment.
    ///
    /// MP_CAPABLE replaces the DSS (RFC 8684 §3.1), MP_JOIN stands in the handshake only, and a reset carries reasons and
    /// no data.
    pub const fn companions(self) -> Self {
        let signals =
            Self::ADD_ADDR.union(Self::REMOVE_ADDR).union(Self::PRIO).union(Self::FAIL).union(Self::FASTCLOSE);
        match self {
            Self::DSS => signals,
            Self::ADD_ADDR | Self::REMOVE_ADDR | Self::PRIO => signals.union(Self::DSS),
            Self::FAIL => signals.union(Self::DSS).union(Self::TCPRST),
            Self::FASTCLOSE => signals.union(Self::DSS).union(Self::TCPRST),
            Self::TCPRST => Self::FAIL.union(Self::FASTCLOSE),
            _ => Self::empty(),
        }
    }
}

/// The bytes of an option, read from the front; reading past the end gives `None`.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
    fn dsn(&mut self, long: bool) -> Option<WireDsn> {
        if long { self.u64().map(WireDsn::Long) } else { self.u32().map(WireDsn::Short) }
    }
    const fn left(&self) -> usize {
        self.0.len()
    }
}

/// Parses one option, kind and length included.
///
/// # Errors
/// When the bytes are no MPTCP option, or its length fits no form of its subtype.
pub fn parse(bytes: &[u8]) -> Result<MptcpOption, OptionError> {
    let (Some(&KIND), Some(&len)) = (bytes.first(), bytes.get(1)) else {
        return Err(OptionError::Truncated);
    };
    let body = bytes.get(2..usize::from(len)).ok_or(OptionError::Truncated)?;
    let mut reader = Reader(body);
    let first = reader.u8().ok_or(OptionError::Truncated)?;
    let (subtype, low) = (first >> 4, first & 0x0f);
    let option = match subtype {
        subtype::CAPABLE => parse_capable(&mut reader, low).map(MptcpOption::Capable),
        subtype::JOIN => parse_join(&mut reader, low).map(MptcpOption::Join),
        subtype::DSS => parse_dss(&mut reader).map(MptcpOption::Dss),
        subtype::ADD_ADDR => parse_add_addr(&mut reader, low).map(MptcpOption::AddAddr),
        subtype::REMOVE_ADDR => {
            let ids: ArrayVec<u8, MAX_REMOVED> = reader.0.iter().copied().take(MAX_REMOVED).collect();
            reader.0 = &[];
            (!ids.is_empty()).then_some(MptcpOption::RemoveAddr(ids))
        }
        subtype::PRIO => {
            let addr_id = reader.u8();
            Some(MptcpOption::Prio { backup: low & 1 != 0, addr_id })
        }
        subtype::FAIL => reader.u8().and_then(|_| reader.u64()).map(|dsn| MptcpOption::Fail { dsn }),
        subtype::FASTCLOSE => reader.u8().and_then(|_| reader.u64()).map(|key| MptcpOption::FastClose { key }),
        subtype::TCPRST => reader
            .u8()
            .map(|code| MptcpOption::Reset(TcpReset { transient: low & 1 != 0, reason: ResetReason::from_code(code) })),
        other => return Err(OptionError::Subtype(other)),
    };
    // A suboption that leaves bytes over has a length that no form of it has.
    option.filter(|_| reader.left() == 0).ok_or(OptionError::Length { subtype, len })
}

fn parse_capable(reader: &mut Reader<'_>, version: u8) -> Option<Capable> {
    let flags = CapableFlags::from_bits_retain(reader.u8()?);
    let form = match reader.left() {
        0 => CapableForm::Bare,
        8 => CapableForm::OneKey { sender: reader.u64()? },
        16 => CapableForm::BothKeys { sender: reader.u64()?, receiver: reader.u64()? },
        18 => CapableForm::Data { sender: reader.u64()?, receiver: reader.u64()?, len: reader.u16()?, checksum: None },
        20 => CapableForm::Data {
            sender: reader.u64()?,
            receiver: reader.u64()?,
            len: reader.u16()?,
            checksum: Some(reader.u16()?),
        },
        _ => return None,
    };
    Some(Capable { version, flags, form })
}

fn parse_join(reader: &mut Reader<'_>, low: u8) -> Option<Join> {
    let backup = low & 1 != 0;
    let addr_id = reader.u8()?;
    match reader.left() {
        8 => Some(Join::Syn(JoinSyn { backup, addr_id, token: reader.u32()?, nonce: reader.u32()? })),
        12 => Some(Join::SynAck(JoinSynAck { backup, addr_id, hmac: reader.u64()?, nonce: reader.u32()? })),
        JOIN_ACK_HMAC_BYTES => Some(Join::Ack { hmac: reader.take()? }),
        _ => None,
    }
}

#[inline]
fn parse_dss(reader: &mut Reader<'_>) -> Option<Dss> {
    let flags = reader.u8()?;
    let has = |bit| flags & bit != 0;
    let data_ack = if has(dss_bit::ACK) { Some(reader.dsn(has(dss_bit::ACK_LONG))?) } else { None };
    let mapping = if has(dss_bit::MAP) {
        let dsn = reader.dsn(has(dss_bit::DSN_LONG))?;
        let (ssn, len) = (reader.u32()?, reader.u16()?);
        // RFC 8684 §3.3: whether there is a checksum shows in the length alone.
        let checksum = if reader.left() == 2 { Some(reader.u16()?) } else { None };
        Some(DssMapping { dsn, ssn, len, checksum })
    } else {
        None
    };
    Some(Dss { data_ack, mapping, data_fin: has(dss_bit::DATA_FIN) })
}

fn parse_add_addr(reader: &mut Reader<'_>, low: u8) -> Option<AddAddr> {
    let echo = low & 1 != 0;
    let addr_id = reader.u8()?;
    // RFC 6824 §3.4.1: in version 0 these bits are the IP version. Without an HMAC, version 1 has echoes only, whose lowest
    // bit is set: so the two cannot be taken for each other.
    let unsigned = match (low, reader.left()) {
        (4, 4 | 6) => Some(IpAddr::V4(Ipv4Addr::from(reader.take::<4>()?))),
        (6, 16 | 18) => Some(IpAddr::V6(Ipv6Addr::from(reader.take::<16>()?))),
        _ => None,
    };
    if let Some(addr) = unsigned {
        return Some(AddAddr { addr_id, addr, port: reader.u16(), hmac: None, version: Version::V0 });
    }
    let after_addr = |len: usize| match (echo, len) {
        (true, 0) | (false, 8) => Some(false),
        (true, 2) | (false, 10) => Some(true),
        _ => None,
    };
    let left = reader.left();
    let (addr, has_port) = if let Some(has_port) = left.checked_sub(16).and_then(after_addr) {
        (IpAddr::V6(Ipv6Addr::from(reader.take::<16>()?)), has_port)
    } else {
        let has_port = left.checked_sub(4).and_then(after_addr)?;
        (IpAddr::V4(Ipv4Addr::from(reader.take::<4>()?)), has_port)
    };
    let port = if has_port { Some(reader.u16()?) } else { None };
    let hmac = if echo { None } else { Some(reader.u64()?) };
    Some(AddAddr { addr_id, addr, port, hmac, version: Version::V1 })
}

/// Writes an option; the length octet is filled in by [`Writer::finish`].
struct Writer(ArrayVec<u8, MAX_OPTION_BYTES>);

impl Writer {
    #[inline]
    fn new(subtype: u8, low: u8) -> Self {
        Self(ArrayVec::new()).put(&[KIND, 0, subtype << 4 | low & 0x0f])
    }
    #[inline]
    fn put(mut self, bytes: &[u8]) -> Self {
        // No form of any suboption exceeds the option space: the longest, ADD_ADDR with IPv6 and port, takes 30.
        let fits = self.0.try_extend_from_slice(bytes);
        debug_assert!(fits.is_ok(), "a suboption is longer than the option space");
        self
    }
    /// Fills the length octet in and appends the option to `out`; false, and `out` as it was, when it does not fit.
    #[inline]
    fn finish(mut self, out: &mut OptionBytes) -> bool {
        let len = self.0.len();
        if let Some(length) = self.0.get_mut(1) {
            *length = len as u8;
        }
        out.try_extend_from_slice(&self.0).is_ok()
    }
    #[inline]
    fn dsn(self, dsn: WireDsn) -> Self {
        match dsn {
            WireDsn::Short(low) => self.put(&low.to_be_bytes()),
            WireDsn::Long(all) => self.put(&all.to_be_bytes()),
        }
    }
}

impl MptcpOption {
    /// Which suboption it is.
    pub const fn kind(&self) -> Kinds {
        match self {
            Self::Capable(_) => Kinds::CAPABLE,
            Self::Join(_) => Kinds::JOIN,
            Self::Dss(_) => Kinds::DSS,
            Self::AddAddr(_) => Kinds::ADD_ADDR,
            Self::RemoveAddr(_) => Kinds::REMOVE_ADDR,
            Self::Prio { .. } => Kinds::PRIO,
            Self::Fail { .. } => Kinds::FAIL,
            Self::FastClose { .. } => Kinds::FASTCLOSE,
            Self::Reset(_) => Kinds::TCPRST,
        }
    }

    /// Appends the option to `out`, unpadded; false, and `out` as it was, when it does not fit.
    pub fn emit(&self, out: &mut OptionBytes) -> bool {
        self.write().finish(out)
    }

    fn write(&self) -> Writer {
        match self {
            Self::Capable(capable) => write_capable(capable),
            Self::Join(join) => write_join(join),
            Self::Dss(dss) => write_dss(dss),
            Self::AddAddr(add) => write_add_addr(add),
            Self::RemoveAddr(ids) => Writer::new(subtype::REMOVE_ADDR, 0).put(ids),
            Self::Prio { backup, addr_id } => {
                let writer = Writer::new(subtype::PRIO, u8::from(*backup));
                match addr_id {
                    Some(addr_id) => writer.put(&[*addr_id]),
                    None => writer,
                }
            }
            Self::Fail { dsn } => Writer::new(subtype::FAIL, 0).put(&[0]).put(&dsn.to_be_bytes()),
            Self::FastClose { key } => Writer::new(subtype::FASTCLOSE, 0).put(&[0]).put(&key.to_be_bytes()),
            Self::Reset(reset) => Writer::new(subtype::TCPRST, u8::from(reset.transient)).put(&[reset.reason.code()]),
        }
    }
}

fn write_capable(capable: &Capable) -> Writer {
    let writer = Writer::new(subtype::CAPABLE, capable.version).put(&[capable.flags.bits()]);
    match capable.form {
        CapableForm::Bare => writer,
        CapableForm::OneKey { sender } => writer.put(&sender.to_be_bytes()),
        CapableForm::BothKeys { sender, receiver } => writer.put(&sender.to_be_bytes()).put(&receiver.to_be_bytes()),
        CapableForm::Data { sender, receiver, len, checksum } => {
            let writer = writer.put(&sender.to_be_bytes()).put(&receiver.to_be_bytes()).put(&len.to_be_bytes());
            match checksum {
                Some(checksum) => writer.put(&checksum.to_be_bytes()),
                None => writer,
            }
        }
    }
}

fn write_join(join: &Join) -> Writer {
    match *join {
        Join::Syn(JoinSyn { backup, addr_id, token, nonce }) => Writer::new(subtype::JOIN, u8::from(backup))
            .put(&[addr_id])
            .put(&token.to_be_bytes())
            .put(&nonce.to_be_bytes()),
        Join::SynAck(JoinSynAck { backup, addr_id, hmac, nonce }) => Writer::new(subtype::JOIN, u8::from(backup))
            .put(&[addr_id])
            .put(&hmac.to_be_bytes())
            .put(&nonce.to_be_bytes()),
        Join::Ack { hmac } => Writer::new(subtype::JOIN, 0).put(&[0]).put(&hmac),
    }
}

impl Dss {
    /// [`MptcpOption::emit`] of a DSS, which goes on every segment.
    #[inline]
    pub(crate) fn emit(&self, out: &mut OptionBytes) -> bool {
        write_dss(self).finish(out)
    }
}

#[inline]
fn write_dss(dss: &Dss) -> Writer {
    let mut flags = if dss.data_fin { dss_bit::DATA_FIN } else { 0 };
    if let Some(ack) = dss.data_ack {
        flags |= dss_bit::ACK | if matches!(ack, WireDsn::Long(_)) { dss_bit::ACK_LONG } else { 0 };
    }
    if let Some(mapping) = &dss.mapping {
        flags |= dss_bit::MAP | if matches!(mapping.dsn, WireDsn::Long(_)) { dss_bit::DSN_LONG } else { 0 };
    }
    let mut writer = Writer::new(subtype::DSS, 0).put(&[flags]);
    if let Some(ack) = dss.data_ack {
        writer = writer.dsn(ack);
    }
    if let Some(mapping) = &dss.mapping {
        writer = writer.dsn(mapping.dsn).put(&mapping.ssn.to_be_bytes()).put(&mapping.len.to_be_bytes());
        if let Some(checksum) = mapping.checksum {
            writer = writer.put(&checksum.to_be_bytes());
        }
    }
    writer
}

fn write_add_addr(add: &AddAddr) -> Writer {
    let low = match (add.version, add.addr) {
        (Version::V0, IpAddr::V4(_)) => 4,
        (Version::V0, IpAddr::V6(_)) => 6,
        (Version::V1, _) => u8::from(add.is_echo()),
    };
    let writer = Writer::new(subtype::ADD_ADDR, low).put(&[add.addr_id]);
    let writer = match add.addr {
        IpAddr::V4(v4) => writer.put(&v4.octets()),
        IpAddr::V6(v6) => writer.put(&v6.octets()),
    };
    let writer = match add.port {
        Some(port) => writer.put(&port.to_be_bytes()),
        None => writer,
    };
    match add.hmac {
        Some(hmac) if add.version == Version::V1 => writer.put(&hmac.to_be_bytes()),
        _ => writer,
    }
}

/// What an MP_CAPABLE SYN asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CapableSyn {
    /// The client's key, which a SYN of version 0 carries; in version 1 it comes with the third ACK.
    pub key: Option<u64>,
    /// Its flags.
    pub flags: CapableFlags,
}

impl CapableSyn {
    /// True when the client requires DSS checksums.
    pub const fn checksum(&self) -> bool {
        self.flags.contains(CapableFlags::CHECKSUM)
    }

    /// The version that the connection speaks.
    ///
    /// RFC 8684 §3.1: the listener answers with the highest version that both know; one above ours is answered with ours.
    pub const fn version(&self) -> Version {
        if self.key.is_some() { Version::V0 } else { Version::V1 }
    }
}

/// The MP_CAPABLE of a SYN, when it is one that can be answered. Whether version 0 is answered is the caller's choice.
pub fn capable_in_syn(segment: &SegmentIn) -> Option<CapableSyn> {
    let capable = first(segment, |option| match option {
        MptcpOption::Capable(capable) => Some(capable),
        _ => None,
    })?;
    if !segment.flags.contains(TcpFlags::SYN) || segment.flags.contains(TcpFlags::ACK) {
        return None;
    }
    // RFC 8684 §3.1, RFC 6824 §3.1: with B set, or without any algorithm that we know, it is ignored as if it were absent.
    // H is HMAC-SHA1 in version 0 and HMAC-SHA256 in version 1.
    let usable =
        !capable.flags.contains(CapableFlags::EXTENSIBILITY) && capable.flags.contains(CapableFlags::HMAC_SHA256);
    let key = match (capable.version, capable.form) {
        (0, CapableForm::OneKey { sender }) => Some(sender),
        (VERSION_1.., CapableForm::Bare) => None,
        _ => return None,
    };
    usable.then_some(CapableSyn { key, flags: capable.flags })
}

/// The MP_JOIN of a SYN.
pub fn join_in_syn(segment: &SegmentIn) -> Option<JoinSyn> {
    if !segment.flags.contains(TcpFlags::SYN) || segment.flags.contains(TcpFlags::ACK) {
        return None;
    }
    first(segment, |option| match option {
        MptcpOption::Join(Join::Syn(join)) => Some(join),
        _ => None,
    })
}

fn first<T>(segment: &SegmentIn, pick: impl Fn(MptcpOption) -> Option<T>) -> Option<T> {
    segment.options.mptcp_slices().filter_map(|raw| parse(raw).ok()).find_map(pick)
}

/// The DSS of a segment that has no other MPTCP option: what [`Signals::read`] finds in it, and nothing else.
#[inline]
pub(crate) fn expected_dss(segment: &SegmentIn) -> Option<Dss> {
    let &[at] = segment.options.mptcp.as_slice() else { return None };
    let [KIND, _, first, body @ ..] = segment.options.slice(at) else { return None };
    let mut reader = Reader(body);
    let dss = if first >> 4 == subtype::DSS { parse_dss(&mut reader) } else { None };
    dss.filter(|_| reader.left() == 0)
}

/// All options of one segment, the first of each kind, those that may not stand beside the others left out.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// MP_CAPABLE.
    pub capable: Option<Capable>,
    /// MP_JOIN.
    pub join: Option<Join>,
    /// DSS.
    pub dss: Option<Dss>,
    /// ADD_ADDR.
    pub add_addr: Option<AddAddr>,
    /// REMOVE_ADDR.
    pub remove_addr: Option<ArrayVec<u8, MAX_REMOVED>>,
    /// MP_PRIO: whether backup, and version 0's address ID.
    pub prio: Option<(bool, Option<u8>)>,
    /// MP_FAIL.
    pub fail: Option<u64>,
    /// MP_FASTCLOSE.
    pub fastclose: Option<u64>,
    /// MP_TCPRST.
    pub reset: Option<TcpReset>,
    /// What was present and understood.
    pub present: Kinds,
    /// How many options were malformed or misplaced.
    pub refused: u8,
}

impl Signals {
    /// Reads the MPTCP options of a segment.
    pub fn read(segment: &SegmentIn) -> Self {
        let mut signals = Self::default();
        for raw in segment.options.mptcp_slices() {
            match parse(raw) {
                Ok(option) if signals.admits(option.kind()) => signals.take(option),
                _ => signals.refused = signals.refused.saturating_add(1),
            }
        }
        signals
    }

    /// True when there was no MPTCP option at all that was understood.
    pub const fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    fn admits(&self, kind: Kinds) -> bool {
        // RFC 6824 §3.1: in version 0 the first data may repeat the keys beside its DSS.
        let old_capable = self.capable.is_some_and(|capable| capable.version == Version::V0.number());
        let old_pair = kind == Kinds::DSS && self.present == Kinds::CAPABLE && old_capable;
        !self.present.contains(kind) && (old_pair || kind.companions().contains(self.present))
    }

    fn take(&mut self, option: MptcpOption) {
        self.present |= option.kind();
        match option {
            MptcpOption::Capable(capable) => self.capable = Some(capable),
            MptcpOption::Join(join) => self.join = Some(join),
            MptcpOption::Dss(dss) => self.dss = Some(dss),
            MptcpOption::AddAddr(add) => self.add_addr = Some(add),
            MptcpOption::RemoveAddr(ids) => self.remove_addr = Some(ids),
            MptcpOption::Prio { backup, addr_id } => self.prio = Some((backup, addr_id)),
            MptcpOption::Fail { dsn } => self.fail = Some(dsn),
            MptcpOption::FastClose { key } => self.fastclose = Some(key),
            MptcpOption::Reset(reset) => self.reset = Some(reset),
        }
    }
}

#[cfg(test)]
mod tests;
