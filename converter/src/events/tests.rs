use mimbox_stack::Duration;

use super::*;
use crate::metrics::{Operated as _, Snapshot};
use crate::testing::{World, client, own};
use mimbox_stack::Counter;

/// What happened since the last call, in words.
fn rows(world: &mut World) -> Vec<EventRow> {
    let next = std::iter::from_fn(|| world.shard.next_event());
    next.map(|event| EventRow::new(&event, |port| format!("port{}", port.0))).collect()
}

fn names(rows: &[EventRow]) -> Vec<&str> {
    rows.iter().map(|row| row.event.as_str()).collect()
}

const MOMENT: Duration = Duration::from_millis(50);

#[test]
fn the_life_of_a_connection_is_told() {
    let mut world = World::new();
    let opened = rows(&mut world);
    assert_eq!(names(&opened), ["connection_opened", "address_announced"]);
    assert_eq!(opened[0].protocol.as_deref(), Some("mptcp"));
    assert_eq!(opened[0].client.map(|addr| addr.ip()), Some(client(0)));
    assert_eq!((opened[1].by.as_deref(), opened[1].address_id), (Some("box"), Some(1)));
    assert_eq!(opened[1].address, Some(own(1).to_string()));

    world.join(1, own(1));
    let joined = rows(&mut world);
    assert_eq!(names(&joined), ["subflow_joined"]);
    assert_eq!((joined[0].port.as_deref(), joined[0].remote.map(|addr| addr.ip())), (Some("port1"), Some(client(1))));

    world.set_backup(1, true);
    world.run(MOMENT);
    let changed = rows(&mut world);
    assert_eq!((names(&changed), changed[0].backup), (vec!["priority_changed"], Some(true)));

    world.link(1, false);
    world.run(MOMENT);
    let lost = rows(&mut world);
    assert_eq!(names(&lost), ["port_down", "address_withdrawn", "subflow_closed"]);
    assert_eq!(lost[2].reason.as_deref(), Some("reset by the box (prohibited)"));
    assert!(lost[0].connection.is_none() && lost[1].connection == opened[0].connection);
    world.link(1, true);
    world.run(MOMENT);
    assert_eq!(names(&rows(&mut world)), ["port_up", "address_announced"]);

    world.abort();
    world.run(MOMENT);
    let closed = rows(&mut world);
    assert_eq!(names(&closed), ["subflow_closed", "connection_closed"]);
    assert_eq!(closed[1].reason.as_deref(), Some("reset by the client"));
    assert!(opened.iter().chain(&joined).chain(&lost).all(|row| EventRow::NAMES.contains(&row.event.as_str())));
}

#[test]
fn events_that_nobody_reads_give_way_to_newer_ones_and_are_counted() {
    let mut world = World::new();
    rows(&mut world);
    for _ in 0..EVENTS_MAX {
        world.link(2, false);
        world.link(2, true);
    }
    let mut snapshot = Snapshot::new(std::iter::empty());
    world.shard.observe(&mut snapshot);
    assert_eq!(snapshot.counters.get(Counter::EventsUnread), EVENTS_MAX as u64);
    assert_eq!(world.shard.res.counters.get(Counter::EventsUnread), 0, "a replay has no reader and counts the same");
    let left = rows(&mut world);
    assert_eq!(left.len(), EVENTS_MAX);
    assert_eq!(left[EVENTS_MAX - 1].event, "port_up", "the latest are kept");
}

#[test]
fn the_ring_does_not_grow() {
    let mut ring = EventRing::default();
    let room = ring.waiting.capacity();
    for _ in 0..3 * EVENTS_MAX {
        ring.note(Instant::ZERO, None, Happening::Link { port: PortId(0), up: true });
    }
    assert_eq!((ring.waiting.capacity(), ring.unread()), (room, 2 * EVENTS_MAX as u64));
}

#[test]
fn every_event_can_be_written_read_and_shown() {
    let flow = FlowKey { local: own(0), remote: client(0), local_port: 80, remote_port: 4000 };
    let all = [
        Happening::Closed(ConversionEnd::Finished),
        Happening::FellBack(FallbackReason::NoOption),
        Happening::SubflowClosed {
            flow,
            port: Some(PortId(0)),
            end: SubflowEnd::ResetByPeer(Some(ResetReason::Other(9))),
        },
        Happening::Announced { by: By::Client, id: 3, addr: client(1), port: Some(81) },
        Happening::Withdrawn { by: By::Client, id: 3 },
        Happening::Priority { by: By::Client, flow, backup: false },
    ];
    for what in all {
        let event = Event { at: Instant::from_millis(1_500), conversion: Some(7), what };
        let row = EventRow::new(&event, |_| "wan0".to_owned());
        let json = serde_json::to_string(&row).expect("it can be written");
        assert_eq!(serde_json::from_str::<EventRow>(&json).expect("and read"), row);
        assert!(row.line().contains("connection 7"), "{}", row.line());
    }
    let event = Event { at: Instant::from_millis(1_500), conversion: Some(7), what: all[2] };
    let line = EventRow::new(&event, |_| "wan0".to_owned()).line();
    assert_eq!(
        line,
        "    1.500000  subflow closed        connection 7  from 192.0.2.7:4000  to 192.0.2.1:80  port wan0: reset by the \
         client (reason 9)"
    );
}
