use super::Rate;
use super::transfer::{Direction, Ending, Request};

#[test]
fn rates_are_read_with_their_unit() {
    assert_eq!("300mbit".parse(), Ok(Rate::mbit(300)));
    assert_eq!("2Gbit".parse(), Ok(Rate::mbit(2000)));
    assert_eq!("unlimited".parse(), Ok(Rate::Unlimited));
}

#[test]
fn rates_without_number_or_unit_are_refused() {
    for text in ["", "300", "mbit", "0mbit", "-3mbit", "3.5gbit", "12parsec", "99999999999gbit"] {
        assert!(text.parse::<Rate>().is_err(), "{text:?}");
    }
}

#[test]
fn rates_are_shown_as_they_are_read() {
    for text in ["300mbit", "1gbit", "64kbit", "unlimited"] {
        assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()), Ok(text.to_owned()));
    }
}

#[test]
fn a_request_survives_the_wire() {
    for direction in [Direction::Upload, Direction::Download, Direction::Both] {
        for ending in
            [Ending::Orderly, Ending::ClientFirst, Ending::ServerFirst, Ending::ClientReset, Ending::ServerReset]
        {
            let request = Request { direction, ending, bytes: 1 << 40, seed: 0x0102_0304_0506_0708 };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }
}

#[test]
fn other_bytes_are_no_request() {
    assert_eq!(Request::decode(b"GET / HTTP/1.1\r\nHost: x\r"), None);
    let good = Request { direction: Direction::Upload, ending: Ending::Orderly, bytes: 1, seed: 2 }.encode();
    for at in [0, 4, 5, 6, 7] {
        let mut bad = good;
        bad[at] = 9;
        assert_eq!(Request::decode(&bad), None, "byte {at}");
    }
}
