use super::{Checker, Stream, digest, hex};

fn whole(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Stream::new(seed).fill(&mut bytes);
    bytes
}

#[test]
fn pieces_of_any_size_make_the_same_stream() {
    let expected = whole(7, 1000);
    for piece in [1, 3, 7, 8, 9, 64, 999] {
        let mut stream = Stream::new(7);
        let mut bytes = Vec::new();
        while bytes.len() < expected.len() {
            let mut chunk = vec![0; piece.min(expected.len() - bytes.len())];
            stream.fill(&mut chunk);
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes, expected, "in pieces of {piece}");
    }
}

#[test]
fn seeds_give_different_streams() {
    assert_ne!(whole(1, 64), whole(2, 64));
}

#[test]
fn the_first_wrong_byte_is_named() {
    let mut bytes = whole(3, 300);
    bytes[257] ^= 1;
    let mut checker = Checker::new(3);
    checker.take(&bytes[..200]);
    checker.take(&bytes[200..]);
    assert_eq!(checker.first_difference(), Some(257));
    assert_eq!(checker.received(), 300);
}

#[test]
fn the_checker_sums_what_it_took() {
    let mut checker = Checker::new(9);
    checker.take(&whole(9, 100_000));
    assert_eq!(checker.first_difference(), None);
    assert_eq!(hex(&checker.digest()), digest(9, 100_000));
}
