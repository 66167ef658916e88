use super::*;

#[test]
fn one_value_stands_for_both_directions_and_two_for_each() {
    assert_eq!("20ms".parse(), Ok(Both::same(Span::millis(20))));
    assert_eq!("20ms,5ms".parse(), Ok(Both { there: Span::millis(20), back: Span::millis(5) }));
    assert!("1ms,2ms,3ms".parse::<Both<Span>>().is_err());
    assert!("1ms,".parse::<Both<Span>>().is_err());
}

#[test]
fn values_are_shown_as_they_are_read() {
    fn same<T: FromStr<Err = String> + fmt::Display + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            assert_eq!(text.parse::<T>().map(|value| value.to_string()), Ok((*text).to_owned()));
        }
    }
    same::<Span>(&["20ms", "1.5s", "250us", "0.5us"]);
    same::<Chance>(&["1%", "0.02%", "100%", "0%", "12.5%"]);
    same::<Held>(&["5%/10ms", "0.1%/1s"]);
    same::<Runs>(&["0.5%/25%/100%", "0"]);
    same::<QueueSize>(&["65536", "50ms"]);
    same::<Both<Span>>(&["20ms", "20ms,5ms"]);
}

#[test]
fn what_is_no_value_is_refused_with_an_example() {
    for text in ["", "20", "ms", "-1ms", "61s", "NaNms", "infs", "1e99s"] {
        assert!(text.parse::<Span>().is_err(), "{text:?}");
    }
    for text in ["", "1", "%", "101%", "-1%", "NaN%"] {
        assert!(text.parse::<Chance>().is_err(), "{text:?}");
    }
    for text in ["5%", "10ms", "5%/", "/10ms"] {
        assert!(text.parse::<Held>().is_err(), "{text:?}");
    }
    for text in ["1%", "1%/2%/3%/4%", "x/y"] {
        assert!(text.parse::<Runs>().is_err(), "{text:?}");
    }
    for text in ["", "-1", "5000m", "1g", "1.5k", "ms"] {
        assert!(text.parse::<QueueSize>().is_err(), "{text:?}");
    }
}

#[test]
fn a_queue_in_time_grows_with_the_rate() {
    let queue = QueueSize::Time(Span::millis(50));
    assert_eq!(queue.bytes(Rate::mbit(100)), 625_000);
    assert_eq!(queue.bytes(Rate::mbit(10)), 62_500);
    assert_eq!(queue.bytes(Rate::Unlimited), u32::MAX);
    assert_eq!(QueueSize::Bytes(3000).bytes(Rate::Unlimited), 3000);
}
