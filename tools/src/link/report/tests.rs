use super::*;

#[test]
fn percentiles_are_exact_to_ten_microseconds() {
    let mut late = Lateness::default();
    for micros in 1..=1000 {
        late.note(Duration::from_micros(micros));
    }
    assert!((late.percentile_ms(50) - 0.5).abs() <= 0.011, "{}", late.percentile_ms(50));
    assert!((late.percentile_ms(99) - 0.99).abs() <= 0.011, "{}", late.percentile_ms(99));
    assert_eq!(late.max_ms(), 1.0);
}

#[test]
fn what_is_later_than_all_steps_counts_as_the_latest() {
    let mut late = Lateness::default();
    late.note(Duration::from_millis(70));
    assert_eq!(late.percentile_ms(50), 70.0);
    let mut all = Lateness::default();
    all.add(&late);
    assert_eq!(all.max_ms(), 70.0);
}

#[test]
fn no_packets_are_never_late() {
    assert_eq!(Lateness::default().percentile_ms(99), 0.0);
}

#[test]
fn events_come_back_from_their_json() {
    let events = [
        Event::Ready { mode: "AF_XDP copy".into(), seed: 7 },
        Event::Cut { cut: true, unix_nanos: 5 },
        Event::End(Statistics { seconds: 1.5, finished_checksums: 3, ..Statistics::default() }),
    ];
    for event in events {
        let line = serde_json::to_string(&event).expect("JSON");
        assert_eq!(serde_json::from_str::<Event>(&line).expect("an event"), event);
    }
}

#[test]
fn losses_that_were_not_asked_for_are_shouted() {
    let mut statistics = Statistics::default();
    assert!(!statistics.to_string().contains("WITHOUT"));
    statistics.own_losses.ring_full = 2;
    assert!(statistics.to_string().contains("LOST WITHOUT BEING ASKED TO"));
}
