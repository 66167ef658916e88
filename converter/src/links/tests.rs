use mimbox_mptcp::Event;
use mimbox_stack::{Counter, Duration};

use crate::testing::{World, client, own};

const MOMENT: Duration = Duration::from_millis(50);

fn count(world: &World, counter: Counter) -> u64 {
    world.shard.res.counters.get(counter)
}

/// A connection with a subflow by each port, the second to the address that was announced.
fn two_paths() -> World {
    let mut world = World::new();
    assert!(world.events.contains(&Event::PeerAnnounced { id: 1, addr: own(1), port: None }));
    world.join(1, own(1));
    assert_eq!(world.subflows(), [(client(0), own(0)), (client(1), own(1))]);
    world
}

#[test]
fn an_announced_address_goes_with_its_link_and_is_announced_again_with_it() {
    let mut world = two_paths();
    world.link(1, false);
    world.run(MOMENT);
    assert_eq!(count(&world, Counter::LinksLost), 1);
    assert_eq!(count(&world, Counter::MptcpRemoveAddrOut), 1);
    assert!(world.events.contains(&Event::PeerRemoved { id: 1 }));
    world.events.clear();
    world.link(1, true);
    world.run(MOMENT);
    assert!(world.events.contains(&Event::PeerAnnounced { id: 1, addr: own(1), port: None }), "{:?}", world.events);
    assert_eq!(count(&world, Counter::LinksBack), 1);
    assert_eq!(count(&world, Counter::MptcpAddAddrEchoed), 2);
}

#[test]
fn the_first_address_goes_with_its_link_and_comes_back_under_id_0() {
    let mut world = two_paths();
    world.link(0, false);
    world.run(MOMENT);
    assert!(world.events.contains(&Event::PeerRemoved { id: 0 }));
    world.link(0, true);
    world.run(MOMENT);
    assert!(world.events.contains(&Event::PeerAnnounced { id: 0, addr: own(0), port: None }), "{:?}", world.events);
    world.write(200);
    world.run(MOMENT);
    assert_eq!(world.server_read, 300);
}

#[test]
fn an_address_that_is_reached_by_another_port_stays() {
    let mut world = World::new();
    world.join(1, own(0));
    world.link(0, false);
    world.run(MOMENT);
    assert_eq!(count(&world, Counter::MptcpRemoveAddrOut), 0, "the subflow by the second port has it");
    // The client has to find out by itself that its first path is gone.
    world.write(200);
    world.run(Duration::from_secs(2));
    assert_eq!(world.server_read, 300);
}

#[test]
fn an_address_whose_port_has_no_link_is_announced_once_it_has() {
    let mut world = World::new();
    assert_eq!(count(&world, Counter::MptcpAddAddrOut), 1);
    world.link(1, false);
    world.link(1, false);
    assert_eq!(count(&world, Counter::LinksLost), 1, "what is known is no news");
    world.run(MOMENT);
    assert_eq!(count(&world, Counter::MptcpRemoveAddrOut), 1, "an address without subflows is withdrawn too");
    world.link(1, true);
    world.run(MOMENT);
    assert_eq!(count(&world, Counter::MptcpAddAddrOut), 2);
}

#[test]
fn a_connection_whose_only_link_is_lost_goes_on_when_it_is_back() {
    let mut world = World::new();
    world.link(0, false);
    world.write(200);
    world.run(Duration::from_secs(20));
    world.link(0, true);
    assert_eq!(count(&world, Counter::MptcpRemoveAddrOut), 0, "there was nobody to tell");
    assert_eq!(world.server_read, 100);
    // The client knows nothing of the box's link: its own timer has backed off.
    world.run(Duration::from_secs(30));
    assert_eq!(world.server_read, 300);
    world.write(100);
    world.run(MOMENT);
    assert_eq!(world.server_read, 400);
}
