//! Data sequence numbers: 64 bits wide, modular, and sent with 32 or 64 bits (RFC 8684 §3.3.1).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A data sequence number. It has no `Ord`: the initial one is random, so the space wraps like TCP's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Dsn(pub u64);

impl Dsn {
    /// True when `self` comes strictly before `other`.
    #[inline]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i64) < 0
    }
    /// True when `self` comes strictly after `other`.
    #[inline]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }
    /// True when `self` equals `other` or comes before it.
    #[inline]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }
    /// True when `self` equals `other` or comes after it.
    #[inline]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }
    /// The forward distance from `earlier` to `self`, modulo 2^64.
    #[inline]
    pub const fn distance_from(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
    /// The distance from `earlier` to `self` when `self` is not before it, else zero.
    #[inline]
    pub const fn saturating_distance_from(self, earlier: Self) -> u64 {
        if self.before(earlier) { 0 } else { self.distance_from(earlier) }
    }
    /// The later of two.
    #[inline]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }
    /// The earlier of two.
    #[inline]
    pub const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

impl Add<u64> for Dsn {
    type Output = Self;
    #[inline]
    fn add(self, rhs: u64) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}

impl AddAssign<u64> for Dsn {
    #[inline]
    fn add_assign(&mut self, rhs: u64) {
        *self = *self + rhs;
    }
}

impl Sub<u64> for Dsn {
    type Output = Self;
    #[inline]
    fn sub(self, rhs: u64) -> Self {
        Self(self.0.wrapping_sub(rhs))
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// A data sequence number as an option carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireDsn {
    /// The lower 32 bits.
    Short(u32),
    /// All of it.
    Long(u64),
}

/// How many bits of a data sequence number an option carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Width {
    /// The lower 32 bits.
    #[default]
    Short,
    /// All 64.
    Long,
}

impl WireDsn {
    /// `dsn` with the given width.
    #[inline]
    pub const fn new(dsn: Dsn, width: Width) -> Self {
        match width {
            Width::Short => Self::Short(dsn.0 as u32),
            Width::Long => Self::Long(dsn.0),
        }
    }

    /// The width that it was sent with.
    #[inline]
    pub const fn width(self) -> Width {
        match self {
            Self::Short(_) => Width::Short,
            Self::Long(_) => Width::Long,
        }
    }

    /// Bytes that it takes in an option.
    #[inline]
    pub const fn wire_len(self) -> usize {
        match self {
            Self::Short(_) => 4,
            Self::Long(_) => 8,
        }
    }

    /// The full number, given one that is known to be near it.
    ///
    /// RFC 8684 §3.3.1: the upper half is promoted when the lower half wraps, and only then: of all numbers with these
    /// lower 32 bits the nearest is taken, so that an old duplicate from before a wrap is not taken for a new one.
    #[inline]
    pub const fn expand(self, near: Dsn) -> Dsn {
        match self {
            Self::Long(dsn) => Dsn(dsn),
            Self::Short(low) => {
                let ahead = low.wrapping_sub(near.0 as u32) as i32;
                Dsn(near.0.wrapping_add_signed(ahead as i64))
            }
        }
    }
}

#[cfg(test)]
mod tests;
