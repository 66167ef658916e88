//! The synthetic ends keep a shard at work as real ones would: everything opens, arrives and closes.

use mimbox_dataplane::Engine as _;
use mimbox_stack::Counter;

use super::rows::{Table, What};
use super::world::{Direction, Load, Order, Shape, World};

fn world(subflows: u8, checksum: bool) -> World {
    let mut world = World::new(Shape { conversions: 70, subflows, checksum }).expect("a world");
    let opened = world.open_all(false).expect("everything opens");
    assert_eq!(opened.done, 70);
    world
}

fn moved(world: &mut World, direction: Direction, order: Order) -> u64 {
    let load = Load { segment_bytes: 700, direction, order };
    let tally = world.move_data(load, 3_000, false).expect("everything arrives");
    assert!(tally.done >= 3_000);
    tally.retransmits
}

fn count(world: &mut World, counter: Counter) -> u64 {
    world.worker.engine().counters().get(counter)
}

#[test]
fn conversations_open_move_data_in_both_directions_and_close_without_a_frame_left() {
    for (subflows, checksum) in [(1, false), (1, true), (2, false)] {
        let mut world = world(subflows, checksum);
        for direction in [Direction::Upload, Direction::Download] {
            assert_eq!(moved(&mut world, direction, Order::Straight), 0, "{direction:?}: nothing is lost");
        }
        world.settle();
        for bad in [Counter::DropTcpChecksum, Counter::MptcpDssChecksumErrors, Counter::MptcpBadMapping] {
            assert_eq!(count(&mut world, bad), 0, "{}", bad.name());
        }
        world.close_all(false).expect("everything closes");
        world.settle();
        assert_eq!(count(&mut world, Counter::ConversionsClosed), 70);
        let in_rings = world.worker.ports().frames();
        assert_eq!(world.worker.engine().pool().in_use(), in_rings, "every frame is in a ring");
    }
}

#[test]
fn late_segments_are_put_in_order_and_lost_ones_are_sent_again() {
    let mut world = world(1, false);
    moved(&mut world, Direction::Upload, Order::Reordered);
    assert!(count(&mut world, Counter::TcpOutOfOrder) > 0, "some were late");
    let resent = moved(&mut world, Direction::Upload, Order::Lossy);
    assert!(resent > 5, "{resent} of about 30 lost segments were sent again");
}

#[test]
fn the_table_has_a_row_for_every_combination_that_is_asked_for() {
    let worlds = Table::full().worlds();
    let rows: Vec<_> = worlds.iter().flat_map(|(_, rows)| rows).collect();
    for conversions in [1, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let data = |row: &&&super::rows::Row| {
            row.what == What::Data && row.shape.conversions == conversions && !row.shape.checksum
        };
        // Three sizes, two orders, two directions, one and two subflows.
        assert_eq!(rows.iter().filter(data).count(), 3 * 2 * 2 * 2);
    }
}
