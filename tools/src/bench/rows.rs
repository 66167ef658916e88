//! Which rows there are, and how one is measured.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::floor::Floor;
use super::rounds::Tally;
use super::world::{Direction, Load, Order, Shape, World};

/// What a row measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// A data segment, both halves and their acknowledgments included.
    Data,
    /// One opening: SYN, SYN+ACK and ACK on both sides.
    Opening,
    /// One closing: DATA_FIN and FINs on both sides.
    Closing,
    /// One acknowledgment that acknowledges nothing new.
    PureAck,
    /// One segment that the box sends again, beside what its first transmission cost.
    Retransmission,
    /// The bare forwarder, for each data segment.
    Floor,
}

/// A row to be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// What it measures.
    pub(super) what: What,
    /// Conversions, subflows, checksums.
    #[serde(flatten)]
    pub(super) shape: Shape,
    /// Segments, where data moves.
    #[serde(flatten)]
    pub(super) load: Load,
}

impl Row {
    /// The bare forwarder's row.
    pub(super) fn floor(segment_bytes: u16, direction: Direction) -> Self {
        let shape = Shape { conversions: 1, subflows: 1, checksum: false };
        Self { what: What::Floor, shape, load: Load { segment_bytes, direction, order: Order::Straight } }
    }
}

/// A row with what was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// The row.
    #[serde(flatten)]
    pub(super) row: Row,
    /// Nanoseconds of the box for each segment (opening, acknowledgment, …): the median of several slices.
    pub(super) ns_per_segment: f64,
    /// Nanoseconds of the bare forwarder for a segment of the same size, in the same run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) floor_ns: Option<f64>,
    /// Instructions for each segment, counted by callgrind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) instructions_per_segment: Option<f64>,
}

/// How much of everything is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Segments before the measurement, for each conversion and in all.
    pub(super) warm_up: u64,
    /// Segments of one slice.
    pub(super) slice: u64,
    /// Slices, of which the median counts.
    pub(super) slices: usize,
}

impl Effort {
    /// For a whole table.
    pub(super) const FULL: Self = Self { warm_up: 30_000, slice: 30_000, slices: 9 };
    /// For a look.
    pub(super) const QUICK: Self = Self { warm_up: 20_000, slice: 15_000, slices: 5 };
    /// For a count of instructions, which does not vary.
    pub(super) const COUNT: Self = Self { warm_up: 6_000, slice: 6_000, slices: 1 };
}

/// The most conversions of a world that exists only to be opened and closed.
const OPENINGS: u32 = 20_000;

/// Payload of the largest segment: what a server sends that keeps to the MSS which the box announces (1436 with timestamps).
/// It leaves room for a DSS with a 64-bit DATA_ACK on the client's side; a larger one would be cut in two.
const FULL_SEGMENT: u16 = 1_424;

/// What is varied.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) conversions: Vec<u32>,
    pub(super) segment_bytes: Vec<u16>,
}

impl Table {
    /// Everything.
    pub(super) fn full() -> Self {
        Self {
            conversions: vec![1, 100, 1_000, 10_000, 100_000, 1_000_000],
            segment_bytes: vec![64, 536, FULL_SEGMENT],
        }
    }

    /// The corners that the bounds are about.
    pub(super) fn quick() -> Self {
        Self { conversions: vec![1, 1_000, 100_000], segment_bytes: vec![64, FULL_SEGMENT] }
    }

    /// The worlds, each with the rows that are measured in it.
    pub(super) fn worlds(&self) -> Vec<(Shape, Vec<Row>)> {
        let mut worlds = Vec::new();
        for &conversions in &self.conversions {
            for (subflows, checksum) in [(1, false), (1, true), (2, false)] {
                let shape = Shape { conversions, subflows, checksum };
                let rows = self.loads(checksum).into_iter().map(|(what, load)| Row { what, shape, load });
                // Losses, and what one costs, are looked at where nothing else varies.
                let rows = rows.filter(|row| row.what == What::Data || conversions == 1_000 && subflows == 1);
                worlds.push((shape, rows.collect()));
            }
        }
        worlds
    }

    fn loads(&self, checksum: bool) -> Vec<(What, Load)> {
        let mut loads = Vec::new();
        for &segment_bytes in &self.segment_bytes {
            // Checksums are looked at for the largest segment, in order.
            if checksum && Some(&segment_bytes) != self.segment_bytes.last() {
                continue;
            }
            for direction in [Direction::Upload, Direction::Download] {
                let load = |order| Load { segment_bytes, direction, order };
                loads.push((What::Data, load(Order::Straight)));
                if !checksum {
                    loads.push((What::Data, load(Order::Reordered)));
                }
                if !checksum && Some(&segment_bytes) == self.segment_bytes.last() {
                    loads.push((What::PureAck, load(Order::Straight)));
                    loads.push((What::Retransmission, load(Order::Lossy)));
                }
            }
        }
        loads
    }

    /// Opening and closing, which have worlds of their own.
    pub(super) fn ends(&self) -> Vec<Row> {
        let load = Load { segment_bytes: 0, direction: Direction::Upload, order: Order::Straight };
        let shape = Shape { conversions: OPENINGS, subflows: 1, checksum: false };
        [What::Opening, What::Closing].map(|what| Row { what, shape, load }).to_vec()
    }
}

/// Measures a row of a world that is open; nanoseconds for each thing.
pub(super) fn measure(world: &mut World, row: &Row, effort: Effort) -> anyhow::Result<f64> {
    let context = || format!("{row:?}");
    // Every conversion is visited about once before anything counts, however many there are.
    let warm_up = effort.warm_up.max(u64::from(row.shape.conversions) * 2);
    match row.what {
        What::Data => {
            world.move_data(row.load, warm_up, false).with_context(context)?;
            slices(effort, || world.move_data(row.load, effort.slice, true).map(|tally| tally.nanos_each()))
        }
        What::PureAck => slices(effort, || Ok(world.bare_acks(row.load.direction, effort.slice, true).nanos_each())),
        What::Retransmission => {
            let clean = Load { order: Order::Straight, ..row.load };
            world.move_data(clean, warm_up, false)?;
            let cost = slices(effort, || {
                let without = world.move_data(clean, effort.slice, false)?;
                let with = world.move_data(row.load, effort.slice, true).with_context(context)?;
                Ok(extra(&without, &with))
            });
            world.settle();
            cost
        }
        What::Opening | What::Closing | What::Floor => anyhow::bail!("{:?} has a world of its own", row.what),
    }
}

/// What each retransmission added.
fn extra(without: &Tally, with: &Tally) -> f64 {
    let more = with.spent.as_nanos() as f64 - without.nanos_each() * with.done as f64;
    more / with.retransmits.max(1) as f64
}

fn slices(effort: Effort, mut slice: impl FnMut() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let found = (0..effort.slices).map(|_| slice()).collect::<anyhow::Result<Vec<f64>>>()?;
    Ok(median(found))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds of one opening and of one closing.
pub(super) fn measure_ends(rows: &[Row], effort: Effort) -> anyhow::Result<Vec<(Row, f64)>> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let mut found = vec![Vec::new(); rows.len()];
    for _ in 0..effort.slices.div_ceil(2) {
        let mut world = World::new(first.shape)?;
        for (row, found) in rows.iter().zip(&mut found) {
            let tally = match row.what {
                What::Opening => world.open_all(true)?,
                _ => world.close_all(true)?,
            };
            found.push(tally.nanos_each());
        }
    }
    Ok(rows.iter().zip(found).map(|(row, found)| (*row, median(found))).collect())
}

/// Nanoseconds of the bare forwarder for a segment.
pub(super) fn measure_floor(segment_bytes: u16, direction: Direction, effort: Effort) -> anyhow::Result<f64> {
    let mut floor = Floor::new(segment_bytes, direction)?;
    floor.run(effort.warm_up, false);
    slices(effort, || Ok(floor.run(effort.slice, true)))
}

/// How often the box allocates for segments once it is warm, by `probe`, which says how often the program has allocated; in
/// several shapes of conversions and loads.
///
/// # Errors
/// When segments do not arrive.
pub fn allocations(probe: fn() -> u64) -> anyhow::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for (conversions, subflows, checksum) in [(1, 1, false), (1, 1, true), (1, 2, false), (100, 1, false)] {
        for direction in [Direction::Upload, Direction::Download] {
            for order in [Order::Straight, Order::Reordered, Order::Lossy] {
                // Of many conversions that lose packets there is always one whose rings have yet to come to their largest.
                if order == Order::Lossy && conversions > 1 {
                    continue;
                }
                let shape = Shape { conversions, subflows, checksum };
                let load = Load { segment_bytes: FULL_SEGMENT, direction, order };
                let row = Row { what: What::Data, shape, load };
                let mut world = World::new(shape)?;
                world.probe = probe;
                world.open_all(false)?;
                // Each conversion's rings come to their largest at some time.
                let warm_up = 60_000.max(3_000 * u64::from(conversions));
                world.move_data(load, warm_up, false).with_context(|| format!("{row:?}"))?;
                world.move_data(load, 5_000, true).with_context(|| format!("{row:?}"))?;
                found.push((format!("{row:?}"), world.allocated));
            }
        }
    }
    Ok(found)
}

/// Does what a row says once, with callgrind counting the measured part; says how many things that part did.
pub(super) fn count_once(row: &Row) -> anyhow::Result<f64> {
    let effort = Effort::COUNT;
    if row.what == What::Floor {
        let mut floor = Floor::new(row.load.segment_bytes, row.load.direction)?;
        floor.run(effort.warm_up, false);
        floor.run(effort.slice, true);
        return Ok(effort.slice as f64);
    }
    let few = Shape { conversions: row.shape.conversions.min(1_000), ..row.shape };
    let mut world = World::new(few)?;
    let opened = world.open_all(row.what == What::Opening)?;
    let warm_up = effort.warm_up.max(u64::from(few.conversions) * 4);
    let tally = match row.what {
        What::Opening => opened,
        What::Closing => world.close_all(true)?,
        What::PureAck => world.bare_acks(row.load.direction, effort.slice, true),
        _ => {
            world.move_data(Load { order: Order::Straight, ..row.load }, warm_up, false)?;
            world.move_data(row.load, effort.slice, true)?
        }
    };
    Ok(tally.done as f64)
}
