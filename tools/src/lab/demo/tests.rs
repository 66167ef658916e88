use super::parse_size;

#[test]
fn sizes_are_read_with_their_unit() {
    assert_eq!(parse_size("1g"), Ok(1 << 30));
    assert_eq!(parse_size("256MiB"), Ok(256 << 20));
    assert_eq!(parse_size("1000"), Ok(1000));
}

#[test]
fn sizes_that_are_none_or_too_much_are_refused() {
    for text in ["", "g", "0", "-1", "1.5g", "3parsec", "2000000g", "99999999999999999999"] {
        assert!(parse_size(text).is_err(), "{text:?}");
    }
}
