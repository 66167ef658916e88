//! What the command line says of a link, in words that are read and shown alike.

use std::fmt;
use std::str::FromStr;

use mimbox_stack::Duration;

use super::model::Burst;
use crate::lab::Rate;

/// A value for each direction: `20ms` for both, or `20ms,5ms` for from the first interface and from the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Both<T> {
    /// From the first interface to the second.
    pub there: T,
    /// From the second to the first.
    pub back: T,
}

impl<T: Copy> Both<T> {
    /// The same for both directions.
    pub const fn same(value: T) -> Self {
        Self { there: value, back: value }
    }

    /// That of a direction: 0 is there, 1 is back.
    pub const fn of(&self, index: usize) -> T {
        if index == 0 { self.there } else { self.back }
    }
}

impl<T: FromStr<Err = String> + Copy> FromStr for Both<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            None => text.parse().map(Self::same),
            Some((_, back)) if back.contains(',') => {
                Err(format!("{text:?}: one value for both directions, or two with a comma between them"))
            }
            Some((there, back)) => Ok(Self { there: there.trim().parse()?, back: back.trim().parse()? }),
        }
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Both<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { there, back } = self;
        if there == back { write!(f, "{there}") } else { write!(f, "{there},{back}") }
    }
}

/// A time with its unit: `20ms`, `1.5s`, `250us`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span(pub Duration);

impl Span {
    /// Milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// Longest time that a link may hold a packet, in seconds.
const LONGEST: f64 = 60.0;

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let nanos = match &text[number.len()..] {
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            _ if text == "0" => 1.0,
            _ => return Err(format!("{text:?} is not a time: write it like 20ms, 1.5s or 250us")),
        };
        match number.parse::<f64>() {
            Ok(value) if (0.0..=LONGEST * 1e9 / nanos).contains(&value) => {
                Ok(Self(Duration::from_nanos((value * nanos).round() as u64)))
            }
            _ => Err(format!("{text:?}: a number between 0 and {LONGEST} seconds stands before the unit")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, name) = match nanos {
            1_000_000_000.. => (1e9, "s"),
            1_000_000.. => (1e6, "ms"),
            _ => (1e3, "us"),
        };
        write!(f, "{}{name}", nanos as f64 / unit)
    }
}

/// A chance in percent: `1%`, `0.02%`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Chance {
    /// In parts per million.
    pub ppm: u32,
}

impl Chance {
    /// Hundredths of a percent.
    pub const fn hundredths(hundredths: u32) -> Self {
        Self { ppm: hundredths * 100 }
    }
}

impl FromStr for Chance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = match text.strip_suffix('%') {
            Some(number) => number,
            None if text == "0" => text,
            None => return Err(format!("{text:?} is not a chance: write it in percent, like 1% or 0.02%")),
        };
        match number.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self { ppm: (percent * 10_000.0).round() as u32 }),
            _ => Err(format!("{text:?}: a number between 0 and 100 stands before the percent sign")),
        }
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.ppm) / 10_000.0)
    }
}

/// Packets that are held back: `5%/10ms` holds one in twenty back for up to 10 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// How many.
    pub chance: Chance,
    /// For how long at most.
    pub by: Span,
}

impl FromStr for Held {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::default());
        }
        let (chance, by) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?}: write how many packets and how late at most, like 5%/10ms"))?;
        Ok(Self { chance: chance.parse()?, by: by.parse()? })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.chance, self.by)
    }
}

/// How long a run of losses may be where only the chance that it ends counts: a year.
const WITHOUT_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// Losses in runs: `0.5%/25%` begins a run at one packet in 200 and ends it at one in four; all packets of a run are
/// lost, or as many as a third number says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs(pub Option<Burst>);

impl FromStr for Runs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(None));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let ppm = |text: &str| text.parse::<Chance>().map(|chance| chance.ppm);
        let longest = WITHOUT_LIMIT;
        let burst = match parts[..] {
            [enter, leave] => Burst { enter_ppm: ppm(enter)?, leave_ppm: ppm(leave)?, loss_ppm: 1_000_000, longest },
            [enter, leave, loss] => {
                Burst { enter_ppm: ppm(enter)?, leave_ppm: ppm(leave)?, loss_ppm: ppm(loss)?, longest }
            }
            _ => return Err(format!("{text:?}: write the chances that a run begins and that it ends, like 0.5%/25%")),
        };
        Ok(Self(Some(burst)))
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(Burst { enter_ppm, leave_ppm, loss_ppm, .. }) => {
                let [enter, leave, loss] = [enter_ppm, leave_ppm, loss_ppm].map(|ppm| Chance { ppm });
                write!(f, "{enter}/{leave}/{loss}")
            }
        }
    }
}

/// How much may wait for the wire: `64k` bytes, or `50ms` at the link's rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueSize {
    /// Bytes.
    Bytes(u32),
    /// As much as the link sends in so long.
    Time(Span),
}

impl QueueSize {
    /// In bytes, at a rate.
    pub fn bytes(self, rate: Rate) -> u32 {
        match (self, rate) {
            (Self::Bytes(bytes), _) => bytes,
            // Nothing waits for a wire that takes all.
            (Self::Time(_), Rate::Unlimited) => u32::MAX,
            (Self::Time(time), Rate::Bits(bits)) => {
                let bytes = u128::from(bits) * u128::from(time.0.as_nanos()) / 8_000_000_000;
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }
        }
    }
}

impl FromStr for QueueSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.ends_with('s') {
            return text.parse().map(Self::Time);
        }
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit: u32 = match &text[number.len()..] {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            _ => return Err(format!("{text:?} is not a queue: write bytes, like 64k or 2m, or a time, like 50ms")),
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|bytes| bytes.checked_mul(unit))
            .map(Self::Bytes)
            .ok_or_else(|| format!("{text:?}: a whole number of bytes below 4 GiB"))
    }
}

impl fmt::Display for QueueSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Time(time) => write!(f, "{time}"),
        }
    }
}

#[cfg(test)]
mod tests;
