//! The socket, its server and those who ask.

use std::sync::mpsc::sync_channel;

use mimbox_stack::{Counter, PortId};

use super::*;
use crate::metrics::ConversionCounts;

fn empty() -> Snapshot {
    Snapshot::new([(PortId(0), "wan0", "eth1")].into_iter())
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn start(path: &Path) -> (AdminServer, Publisher) {
    AdminServer::start(path, empty(), || {}).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_the_worker_published_is_answered() {
    let dir = directory();
    let path = dir.path().join("sub/box.sock");
    let (_server, mut publisher) = start(&path);
    assert_eq!(ask_stats(&path).expect("an answer"), empty());
    publisher.publish(|snapshot| {
        snapshot.counters.add(Counter::RxFrames, 7);
        snapshot.conversions = ConversionCounts { live: 1, half_open: 2, time_wait: 3 };
    });
    let seen = ask_stats(&path).expect("an answer");
    assert_eq!((seen.counters.get(Counter::RxFrames), seen.conversions.live), (7, 1));
}

#[test]
fn a_reader_at_the_slot_does_not_hold_the_worker_up() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, mut publisher) = start(&path);
    let slot = Arc::clone(&publisher.slot);
    let reader = slot.lock().expect("the slot");
    publisher.publish(|snapshot| snapshot.uptime_s = 1.0);
    assert_eq!(reader.uptime_s, 0.0, "the reader's snapshot is as it was");
    drop(reader);
    publisher.publish(|snapshot| snapshot.uptime_s += 1.0);
    assert_eq!(slot.lock().expect("the slot").uptime_s, 2.0);
}

#[test]
fn connections_are_made_by_the_worker_when_it_is_woken() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (wake, woken) = sync_channel(1);
    let (_server, mut publisher) = AdminServer::start(&path, empty(), move || {
        let _ = wake.send(());
    })
    .expect("a server");
    let worker = std::thread::Builder::new()
        .spawn(move || {
            woken.recv().expect("the worker is woken");
            let request = publisher.request().expect("a request");
            assert_eq!(request.limit, 5);
            request.answer(ConnectionList { total: 9, connections: Vec::new() });
        })
        .expect("a thread");
    assert_eq!(ask_connections(&path, 5).expect("an answer").total, 9);
    worker.join().expect("the worker ends");
}

#[test]
fn a_worker_that_is_gone_is_an_error() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, publisher) = start(&path);
    drop(publisher);
    let error = ask_connections(&path, 5).expect_err("nobody makes the list").to_string();
    assert_eq!(error, format!("mimbox at {} answered: the box is stopping", path.display()));
}

#[test]
fn a_request_that_is_not_known_is_refused_and_the_next_one_answered() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _publisher) = start(&path);
    for request in ["frobnicate", "connections many", "", "stats now"] {
        let answer = exchange(&path, request).expect("an answer");
        assert!(answer.contains("the request is not known"), "{request:?}: {answer}");
    }
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn a_request_without_an_end_is_cut() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _publisher) = start(&path);
    let answer = exchange(&path, &"x".repeat(REQUEST_MAX as usize * 4)).unwrap_or_default();
    assert!(answer.is_empty() || answer.contains("not known"), "{answer}");
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn the_socket_of_a_killed_box_gives_way() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    // A listener that is dropped leaves its file behind, as a killed process does.
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let (_server, _publisher) = start(&path);
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn the_socket_of_a_running_box_is_left_alone() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _publisher) = start(&path);
    let error = AdminServer::start(&path, empty(), || {}).expect_err("it is taken");
    assert!(matches!(error, AdminError::Taken(_)), "{error}");
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = directory();
    let path = dir.path().join("precious");
    fs::write(&path, "data").expect("a file");
    let error = AdminServer::start(&path, empty(), || {}).expect_err("it is no socket");
    assert!(matches!(error, AdminError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "data");
}

#[test]
fn a_socket_that_cannot_be_made_says_what_to_do() {
    let error = AdminServer::start(Path::new("/proc/none/box.sock"), empty(), || {}).expect_err("no such place");
    let text = error.to_string();
    assert!(text.starts_with("the admin socket /proc/none/box.sock cannot be made: "), "{text}");
    assert!(text.ends_with("give a `socket` under [admin] that this user may write"), "{text}");
}

#[test]
fn a_server_that_stops_takes_its_socket_with_it() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (server, _publisher) = start(&path);
    drop(server);
    assert!(!path.exists());
    let text = ask_stats(&path).expect_err("nobody is there").to_string();
    assert!(text.contains("is `mimbox run` up? Name its socket with --socket"), "{text}");
}
