use super::*;

#[test]
fn a_region_refuses_frames_that_a_umem_does_not_take() {
    assert_eq!(Region::map(8, 1024).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(Region::map(0, 2048).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn frames_do_not_overlap() {
    let mut region = Region::map(4, 2048).unwrap();
    for index in 0..4 {
        region.frame_mut(index).fill(index as u8 + 1);
    }
    for index in 0..4 {
        assert!(region.frame(index).iter().all(|&byte| byte == index as u8 + 1));
    }
    assert_eq!(region.len(), 8192);
}

#[test]
fn a_prefetch_beyond_the_region_does_nothing() {
    let region = Region::map(1, 4096).unwrap();
    region.prefetch(0, 4095);
    region.prefetch(7, 0);
}

#[test]
#[should_panic(expected = "outside the region")]
fn a_frame_beyond_the_region_is_not_to_be_had() {
    let _ = Region::map(1, 2048).unwrap().frame(1);
}
