use std::path::Path;

use mimbox_stack::Duration;
use mimbox_stack::wire::TcpFlags;

use super::parse;
use crate::script::lex::ParseError;
use crate::script::syntax::{Action, Base, Lane, Linux, OptionSpec, Pattern, Value, What, Written};

fn refused(text: &str) -> ParseError {
    parse(Path::new("a.pkt"), text).expect_err("the script is not sound")
}

fn first(step: &str) -> What {
    let script = parse(Path::new("a.pkt"), &format!("# A title.\n{step}\n")).expect("a sound script");
    script.steps.into_iter().next().expect("a step").what
}

#[test]
fn a_script_has_a_title_and_steps() {
    let script = parse(Path::new("a.pkt"), "# One line\n# and another.\n\n+1s listen\n").expect("a sound script");
    assert_eq!(script.title, "One line and another.");
    assert_eq!(script.linux, Linux::Same);
    assert_eq!(script.steps.len(), 1);
    assert_eq!(script.steps[0].when.earliest, Duration::from_secs(1));
    assert_eq!(script.steps[0].when.base, Base::Previous);
}

#[test]
fn a_segment_has_flags_numbers_and_options() {
    let What::Inject(Lane::Peer, spec) = first("< PA 1+1000x3 ack $a-1 win 512 [nop, sack 5:6 7:8, ts 1 $b]") else {
        panic!("not a segment");
    };
    assert_eq!(spec.flags, TcpFlags::PSH | TcpFlags::ACK);
    assert_eq!((spec.len, spec.copies), (1000, 3));
    assert_eq!(spec.ack, Some(Pattern::Is(Value::Variable("a".into(), -1))));
    let ts = (Pattern::Is(Value::Number(1)), Pattern::Is(Value::Variable("b".into(), 0)));
    let options = vec![OptionSpec::Nop, OptionSpec::Sack(vec![(5, 6), (7, 8)]), OptionSpec::Timestamps(Some(ts))];
    assert_eq!(spec.options, Some(options));
}

#[test]
fn writes_have_sizes_pieces_or_texts() {
    assert!(matches!(first("write 10x3"), What::Act(Action::Write(Written::Pattern { len: 10, pieces: 3 }))));
    assert!(matches!(first("write \"a # b\""), What::Act(Action::Write(Written::Text(text))) if text == b"a # b"));
}

#[test]
fn errors_name_line_and_column() {
    let error = refused("# A title.\n\n+0 < PX 1 ack 1\n");
    assert_eq!((error.line, error.column), (3, 6));
    assert!(error.message.contains("`PX` are no flags"), "{error}");
    let error = refused("# A title.\n+0 > A 1 ack 1 [mss 1460 sackok]\n");
    assert_eq!((error.line, error.column), (2, 26));
    assert!(error.to_string().starts_with("a.pkt:2:26: "), "{error}");
}

#[test]
fn what_would_test_nothing_is_refused() {
    assert!(refused("listen\n").message.contains("begins with a comment"));
    assert!(refused("# A title.\n").message.contains("without a step"));
    assert!(refused("# A title.\n+0 < A 1\n").message.contains("says its `ack`"));
    assert!(refused("# A title.\n+0 < A * ack 1\n").message.contains("needs numbers"));
    assert!(refused("# A title.\n+0 < PA 1+3 \"four\" ack 1\n").message.contains("4 bytes"));
    assert!(refused("# A title.\n+2s..1s > A 1 ack 1\n").message.contains("later time comes first"));
    assert!(refused("# A title.\nconfig speed=1\nlisten\n").message.contains("no setting `speed`"));
    assert!(refused("# A title.\nlisten\nconfig mss=1\n").message.contains("before the first step"));
    assert!(refused("# A title.\nclient< S 0\n").message.contains("subject converter"));
}

#[test]
fn only_one_backend_may_be_meant() {
    let script = parse(Path::new("a.pkt"), "# A title.\nlinux: +0 listen\n").expect("a sound script");
    assert_eq!(script.steps[0].only, Some(crate::script::BackendKind::Linux));
}
