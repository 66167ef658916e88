use proptest::prelude::*;

use super::*;

fn pool(frames: u32, rx_reserve: u32) -> FramePool {
    FramePool::new(Region::map(frames, 2048).unwrap(), PoolConfig { rx_reserve })
}

#[test]
fn payload_never_takes_the_reserve_of_reception() {
    let mut pool = pool(8, 3);
    let mut taken = Vec::new();
    while let Some(frame) = pool.alloc() {
        taken.push(frame);
    }
    assert_eq!((taken.len(), pool.available(), pool.free_frames()), (5, 0, 3));
    while let Some(frame) = pool.alloc_control() {
        taken.push(frame);
    }
    assert_eq!(pool.free_frames(), 0);
    taken.into_iter().for_each(|frame| pool.release(frame));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_shared_frame_lives_until_its_last_right_is_back() {
    let mut pool = pool(2, 0);
    let first = pool.alloc().unwrap();
    let second = pool.share(&first);
    assert_eq!((pool.refs(&first), pool.in_use()), (2, 1));
    pool.release(first);
    assert_eq!(pool.in_use(), 1);
    pool.release(second);
    assert_eq!(pool.in_use(), 0);
}

#[test]
#[should_panic(expected = "released twice")]
fn a_right_that_is_given_back_twice_is_caught() {
    let mut pool = pool(2, 0);
    let frame = pool.alloc().unwrap();
    let forged = FrameId::from_raw(frame.index());
    pool.release(frame);
    pool.release(forged);
}

#[test]
#[should_panic(expected = "was not sent")]
fn a_completion_of_a_frame_that_was_not_sent_is_caught() {
    let mut pool = pool(2, 0);
    let frame = pool.alloc().unwrap();
    pool.tx_complete(frame);
}

#[test]
fn a_frame_may_be_in_two_tx_rings_at_once() {
    let mut pool = pool(2, 0);
    let kept = pool.alloc().unwrap();
    let (one, two) = (pool.share(&kept), pool.share(&kept));
    pool.tx_begin(&one);
    pool.tx_begin(&two);
    pool.tx_complete(one);
    assert!(pool.tx_pending(&kept));
    pool.tx_complete(two);
    assert!(!pool.tx_pending(&kept));
    assert_eq!(pool.refs(&kept), 1);
    pool.release(kept);
}

#[test]
fn headroom_is_claimed_once_and_again_when_the_frame_comes_back() {
    let mut pool = pool(1, 0);
    let frame = pool.alloc().unwrap();
    assert!(pool.claim_headroom(&frame, 300));
    assert!(pool.claim_headroom(&frame, 300));
    assert!(!pool.claim_headroom(&frame, 301));
    assert!(pool.claim_headroom(&frame, 200));
    assert!(!pool.claim_headroom(&frame, 300));
    pool.release(frame);
    let frame = pool.alloc().unwrap();
    assert!(pool.claim_headroom(&frame, 500));
    pool.release(frame);
}

#[test]
fn a_copy_takes_only_what_it_is_told() {
    let mut pool = pool(2, 0);
    let (from, to) = (pool.alloc().unwrap(), pool.alloc().unwrap());
    pool.bytes_mut(&from)[10..15].copy_from_slice(b"bytes");
    pool.copy(&from, 11, &to, 100, 3);
    assert_eq!(&pool.bytes(&to)[99..104], b"\0yte\0");
    pool.release(from);
    pool.release(to);
}

#[test]
fn the_audit_names_what_is_held() {
    let mut pool = pool(8, 0);
    let (one, two) = (pool.alloc().unwrap(), pool.alloc().unwrap());
    let again = pool.share(&two);
    pool.tx_begin(&again);
    assert_eq!(pool.audit(), PoolAudit { free: 6, held: 2, rights: 3, tx_pending: 1, broken: 0 });
    let mut held: Vec<_> = pool.held_frames().collect();
    held.sort_unstable();
    let mut expected = vec![(one.index(), 1, 0), (two.index(), 2, 1)];
    expected.sort_unstable();
    assert_eq!(held, expected);
    pool.tx_complete(again);
    pool.release(one);
    pool.release(two);
    assert_eq!(pool.audit(), PoolAudit { free: 8, ..PoolAudit::default() });
}

#[derive(Clone, Debug)]
enum Step {
    Alloc,
    AllocControl,
    Share(usize),
    Release(usize),
    Send(usize),
    Complete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || 0usize..64;
    let step = prop_oneof![
        3 => Just(Step::Alloc),
        1 => Just(Step::AllocControl),
        3 => at().prop_map(Step::Share),
        4 => at().prop_map(Step::Release),
        2 => at().prop_map(Step::Send),
        2 => at().prop_map(Step::Complete),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn the_accounts_balance_after_any_history(steps in steps()) {
        let mut pool = pool(12, 3);
        let (mut held, mut sent): (Vec<FrameId>, Vec<FrameId>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Alloc => {
                    let before = pool.available();
                    let frame = pool.alloc();
                    prop_assert_eq!(frame.is_some(), before > 0);
                    held.extend(frame);
                }
                Step::AllocControl => held.extend(pool.alloc_control()),
                Step::Share(at) if at < held.len() => {
                    let frame = pool.share(&held[at]);
                    held.push(frame);
                }
                Step::Release(at) if at < held.len() => pool.release(held.swap_remove(at)),
                Step::Send(at) if at < held.len() => {
                    let frame = held.swap_remove(at);
                    pool.tx_begin(&frame);
                    sent.push(frame);
                }
                Step::Complete(at) if at < sent.len() => pool.tx_complete(sent.swap_remove(at)),
                _ => {}
            }
            let rights = |of: &[FrameId], index| of.iter().filter(|frame| frame.index() == index).count();
            let audit = pool.audit();
            prop_assert_eq!((audit.broken, audit.free + audit.held), (0, pool.total()));
            prop_assert_eq!(audit.rights, (held.len() + sent.len()) as u64);
            for (index, refs, tx_pending) in pool.held_frames() {
                prop_assert_eq!(usize::from(refs), rights(&held, index) + rights(&sent, index));
                prop_assert_eq!(usize::from(tx_pending), rights(&sent, index));
            }
        }
        held.into_iter().for_each(|frame| pool.release(frame));
        sent.into_iter().for_each(|frame| pool.tx_complete(frame));
        prop_assert_eq!(pool.in_use(), 0);
    }
}

#[test]
fn headers_are_not_built_over_the_head_of_a_payload_that_was_cut() {
    let mut pool = pool(2, 0);
    let head = pool.alloc().unwrap();
    let tail = pool.share_tail(&head, 300);
    assert!(!pool.claim_headroom(&tail, 400), "the tail goes first: in front of it is the head");
    assert!(pool.claim_headroom(&head, 300));
    pool.keep_payload(&head, 350);
    assert!(pool.claim_headroom(&head, 300), "what starts earlier is kept as well");
    pool.release(head);
    assert!(!pool.claim_headroom(&tail, 400));
    pool.release(tail);
    let fresh = pool.alloc().unwrap();
    assert!(pool.claim_headroom(&fresh, 400), "a new frame knows nothing of what it held before");
    pool.release(fresh);
}
