use super::*;

fn figure(middle: Middle, direction: Direction, goodput_gbps: f64) -> Figure {
    Figure {
        middle,
        direction,
        goodput_gbps,
        second_path: 0.5,
        middle_cpus: None,
        congestion: "cubic".to_owned(),
        packets_per_call: None,
    }
}

#[test]
fn a_bound_is_judged_by_medians_of_its_own_direction() {
    let mut figures = Vec::new();
    for (middle, up, down) in [
        (Middle::Box, [3.0, 1.0, 2.0], [5.0, 5.0, 5.0]),
        (Middle::Router, [2.0, 2.0, 9.0], [6.0, 6.0, 1.0]),
        (Middle::Relay, [9.0; 3], [5.0; 3]),
        (Middle::Forwarder, [2.25, 2.25, 2.25], [9.0; 3]),
    ] {
        figures.extend(up.map(|gbps| figure(middle, Direction::Upload, gbps)));
        figures.extend(down.map(|gbps| figure(middle, Direction::Download, gbps)));
    }
    let held: Vec<bool> = bounds(&figures).iter().map(|bound| bound.holds).collect();
    assert_eq!(held, [true, false, true, false], "{:?}", bounds(&figures));
}

#[test]
fn a_case_without_figures_holds_no_bound() {
    assert!(bounds(&[]).iter().all(|bound| !bound.holds));
}
