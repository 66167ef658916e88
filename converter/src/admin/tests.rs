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

fn start(path: &Path) -> (AdminServer, Requests) {
    AdminServer::start(path, || {}).unwrap_or_else(|error| panic!("{error}"))
}

/// A server whose worker answers each of `count` requests when it is woken, with `figures`.
fn answered(path: &Path, count: usize, figures: impl Fn(usize) -> Snapshot + Send + 'static) -> (AdminServer, Worker) {
    let (wake, woken) = sync_channel(1);
    let wake = move || {
        let _ = wake.send(());
    };
    let (server, mut requests) = AdminServer::start(path, wake).unwrap_or_else(|error| panic!("{error}"));
    let work = move || {
        for nth in 0..count {
            woken.recv().expect("the worker is woken");
            match requests.take().expect("a request") {
                Request::Stats(answer) => answer.give(figures(nth)),
                Request::Connections { limit, answer } => {
                    answer.give(ConnectionList { total: limit as u64, connections: Vec::new() });
                }
                Request::Events(follower) => {
                    for unread in 0..3 {
                        follower.send(EventRow::listening(mimbox_stack::Instant::ZERO, unread)).expect("it is heard");
                    }
                }
            }
        }
    };
    let worker = std::thread::Builder::new().spawn(work).expect("a thread");
    (server, worker)
}

type Worker = JoinHandle<()>;

#[test]
fn statistics_are_made_by_the_worker_when_they_are_asked_for() {
    let dir = directory();
    let path = dir.path().join("sub/box.sock");
    let (_server, worker) = answered(&path, 2, |nth| {
        let mut snapshot = empty();
        snapshot.counters.add(Counter::RxFrames, 7 + nth as u64);
        snapshot.conversions = ConversionCounts { live: 1, half_open: 2, time_wait: 3 };
        snapshot
    });
    for frames in [7, 8] {
        let seen = ask_stats(&path).expect("an answer");
        assert_eq!((seen.counters.get(Counter::RxFrames), seen.conversions.live), (frames, 1));
    }
    worker.join().expect("the worker ends");
}

#[test]
fn connections_are_made_by_the_worker_and_no_more_than_were_asked_for() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, worker) = answered(&path, 1, |_| empty());
    assert_eq!(ask_connections(&path, 5).expect("an answer").total, 5);
    worker.join().expect("the worker ends");
}

#[test]
fn a_worker_that_does_not_answer_is_an_error_and_not_an_old_figure() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _requests) = start(&path);
    let error = ask_stats(&path).expect_err("nobody fills them in").to_string();
    assert_eq!(error, format!("mimbox at {} answered: the worker did not answer in time", path.display()));
}

#[test]
fn a_worker_that_ends_with_a_request_is_an_error_at_once() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (wake, woken) = sync_channel(1);
    let wake = move || {
        let _ = wake.send(());
    };
    let (_server, requests) = AdminServer::start(&path, wake).expect("a server");
    let work = move || {
        woken.recv().expect("the worker is woken");
        drop(requests);
    };
    let worker = std::thread::Builder::new().spawn(work).expect("a thread");
    let error = ask_stats(&path).expect_err("the worker went away").to_string();
    assert_eq!(error, format!("mimbox at {} answered: the box is stopping", path.display()));
    worker.join().expect("the worker ends");
}

#[test]
fn a_worker_that_is_gone_is_an_error() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, requests) = start(&path);
    drop(requests);
    let error = ask_connections(&path, 5).expect_err("nobody makes the list").to_string();
    assert_eq!(error, format!("mimbox at {} answered: the box is stopping", path.display()));
}

#[test]
fn a_request_that_is_not_known_is_refused_and_the_next_one_answered() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _worker) = answered(&path, 1, |_| empty());
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
    let (_server, _worker) = answered(&path, 1, |_| empty());
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
    let (_server, _worker) = answered(&path, 1, |_| empty());
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn the_socket_of_a_running_box_is_left_alone() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, _worker) = answered(&path, 1, |_| empty());
    let error = AdminServer::start(&path, || {}).expect_err("it is taken");
    assert!(matches!(error, AdminError::Taken(_)), "{error}");
    assert!(ask_stats(&path).is_ok());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let dir = directory();
    let path = dir.path().join("precious");
    fs::write(&path, "data").expect("a file");
    let error = AdminServer::start(&path, || {}).expect_err("it is no socket");
    assert!(matches!(error, AdminError::NotASocket(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("it is still there"), "data");
}

#[test]
fn a_socket_that_cannot_be_made_says_what_to_do() {
    let error = AdminServer::start(Path::new("/proc/none/box.sock"), || {}).expect_err("no such place");
    let text = error.to_string();
    assert!(text.starts_with("the admin socket /proc/none/box.sock cannot be made: "), "{text}");
    assert!(text.ends_with("give a `socket` under [admin] that this user may write"), "{text}");
}

#[test]
fn a_server_that_stops_takes_its_socket_with_it() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (server, _requests) = start(&path);
    drop(server);
    assert!(!path.exists());
    let text = ask_stats(&path).expect_err("nobody is there").to_string();
    assert!(text.contains("is `mimbox run` up? Name its socket with --socket"), "{text}");
}

#[test]
fn events_come_one_by_one_until_the_worker_has_no_more() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, worker) = answered(&path, 1, |_| empty());
    let mut unread = Vec::new();
    let followed = follow_events(&path, |row| {
        unread.extend(row.unread);
        Ok(())
    });
    followed.expect("a stream");
    assert_eq!(unread, [0, 1, 2]);
    worker.join().expect("the worker ends");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the server looks after its followers now and then")]
fn statistics_are_told_while_somebody_follows_the_events_and_only_so_many_may() {
    let dir = directory();
    let path = dir.path().join("box.sock");
    let (_server, mut requests) = start(&path);
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS_MAX {
        let mut stream = UnixStream::connect(&path).expect("a server");
        writeln!(stream, "events").expect("it hears");
        let taken = std::iter::repeat_with(|| requests.take()).find_map(|request| request);
        let Some(Request::Events(follower)) = taken else { panic!("not what was asked for") };
        followers.push((stream, follower));
    }
    let refused = follow_events(&path, |_| Ok(())).expect_err("one too many").to_string();
    assert!(refused.contains("8 others follow the events already"), "{refused}");
    // One that goes is noticed though there is nothing to tell it.
    followers.remove(0);
    let follows = || {
        let mut stream = UnixStream::connect(&path).ok()?;
        writeln!(stream, "events").ok()?;
        std::thread::sleep(Duration::from_millis(50));
        requests.take()
    };
    let again = std::iter::repeat_with(follows).take(100).find_map(|request| request);
    assert!(matches!(again, Some(Request::Events(_))), "its place is free again");
}
