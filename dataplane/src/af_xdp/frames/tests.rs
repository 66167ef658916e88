use super::*;

#[test]
fn a_frame_leaves_as_often_as_it_came() {
    let mut set = FrameSet::new(100);
    for frame in [3, 64, 99, 64] {
        set.insert(frame);
    }
    assert_eq!(set.len(), 4);
    assert!(set.remove(64) && set.remove(64) && !set.remove(64));
    assert_eq!(set.len(), 2);
    let mut rest = set.drain();
    rest.sort_unstable();
    assert_eq!((rest, set.len()), (vec![3, 99], 0));
}

#[test]
fn draining_gives_every_copy() {
    let mut set = FrameSet::new(10);
    for _ in 0..3 {
        set.insert(7);
    }
    assert_eq!(set.drain(), vec![7, 7, 7]);
    assert!(!set.remove(7));
}

#[test]
fn a_frame_out_of_range_is_never_there() {
    let mut set = FrameSet::new(10);
    assert!(!set.remove(1_000_000));
}
