use mimbox_stack::{Counter, Duration};

use crate::testing::{World, own};

/// A world whose client uploads `segments` of 1,000 bytes.
fn upload(mut world: World, segments: u32) -> World {
    for _ in 0..segments {
        world.write(1_000);
    }
    world.run(Duration::from_secs(2));
    world
}

#[test]
fn in_trains_the_same_arrives_and_fewer_acknowledgments_are_looked_at() {
    let count = |world: &World, counter| world.shard.res.counters.get(counter);
    let single = upload(World::new(), 60);
    let trains = upload(World::in_batches(), 60);
    for world in [&single, &trains] {
        assert_eq!(world.server_read, 60_100);
        assert_eq!(count(world, Counter::TcpRetransmits), 0);
    }
    // The server acknowledges each segment, and as many acknowledgments come in a batch as the box's window takes.
    assert_eq!(count(&single, Counter::TcpAcksOutdone), 0);
    let outdone = count(&trains, Counter::TcpAcksOutdone);
    let acks = trains.server_acks;
    assert!(acks / 2 < outdone && outdone < acks, "{outdone} of {acks} acknowledgments");
    // What is passed over was received all the same: so much from the server, and the client's data.
    assert!(count(&trains, Counter::TcpSegmentsIn) > acks + 60);
}

#[test]
fn a_reset_behind_a_train_finds_everything_in_its_place() {
    let mut world = World::in_batches();
    for _ in 0..40 {
        world.write(1_000);
    }
    world.run(Duration::from_millis(2));
    world.abort();
    world.run(Duration::from_secs(1));
    let shard = &mut world.shard;
    assert_eq!(shard.res.counters.get(Counter::ConversionsReset), 1);
    assert_eq!(shard.res.pool.audit().broken, 0);
    assert_eq!(shard.res.pool.in_use(), 0, "nothing is left of it");
}

#[test]
fn what_comes_behind_the_end_of_a_subflow_finds_its_time_wait() {
    let mut world = World::in_batches();
    world.join(1, own(1));
    for _ in 0..10 {
        world.write(1_000);
    }
    world.run(Duration::from_millis(20));
    world.repeats = true;
    world.shutdown();
    world.run(Duration::from_secs(1));
    let counters = &world.shard.res.counters;
    assert_eq!(counters.get(Counter::ConversionsClosed), 1);
    assert_eq!(counters.get(Counter::DropNoConnection), 0, "what came behind the end was looked up again");
}
