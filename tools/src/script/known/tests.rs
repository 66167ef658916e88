use super::parse;

#[test]
fn entries_have_a_name_and_a_reason_that_may_go_on() {
    let known = parse("# Known\n\nProse.\n\n- `a.pkt`: one\n  and more\n- `b.pkt`: two\n\nMore prose.\n").unwrap();
    assert_eq!(known.get("a.pkt").map(String::as_str), Some("one and more"));
    assert_eq!(known.get("b.pkt").map(String::as_str), Some("two"));
    assert_eq!(known.len(), 2);
}

#[test]
fn an_entry_without_a_reason_is_refused() {
    let error = parse("- `a.pkt`:\n").unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}
