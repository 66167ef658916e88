//! What applications do, what must hold inside, and whole handshakes.

use mimbox_stack::Duration;
use mimbox_stack::wire::TcpFlags;

use super::{count, segment, time};
use crate::script::lex::{Line, ParseError, Token};
use crate::script::syntax::{
    Action, Assertion, Base, Lane, OptionSpec, Pattern, Read, Relation, Script, SegmentSpec, Step, Subject, Value,
    What, When, Written,
};

/// Everything that an application does.
pub(super) fn action(line: &mut Line<'_>, word: &str) -> Result<Action, ParseError> {
    Ok(match word {
        "listen" => Action::Listen,
        "connect" => Action::Connect,
        "write" => Action::Write(written(line)?),
        "read" => Action::Read(read(line)?),
        "shutdown" => Action::Shutdown,
        "close" => Action::Close,
        "abort" => Action::Abort,
        "buffer" => {
            let word = line.word("a number of bytes")?;
            Action::Buffer(count(line, &word)?)
        }
        other => {
            return Err(line.error(format!(
                "`{other}` is nothing that happens: there are `<` and `>` with a segment, establish, listen, connect, \
                 write, read, shutdown, close, abort, buffer, assert, nothing, drain"
            )));
        }
    })
}

fn written(line: &mut Line<'_>) -> Result<Written, ParseError> {
    if matches!(line.peek(), Some(Token::Text(_))) {
        return line.text("what is written").map(Written::Text);
    }
    let word = line.word("a number of bytes")?;
    let (len, pieces) = word.split_once('x').unwrap_or((&word, "1"));
    Ok(Written::Pattern { len: count(line, len)?, pieces: count(line, pieces)? })
}

fn read(line: &mut Line<'_>) -> Result<Read, ParseError> {
    if matches!(line.peek(), Some(Token::Text(_))) {
        return line.text("what is read").map(Read::Text);
    }
    let word = line.word("what is read")?;
    Ok(match word.as_str() {
        "nothing" => Read::Nothing,
        "eof" => Read::End,
        "reset" => Read::Reset,
        "timeout" => Read::TimedOut,
        "unreachable" => Read::Unreachable,
        number => Read::Bytes(count(line, number)?),
    })
}

/// `assert cwnd >= 14600`
pub(super) fn assertion(line: &mut Line<'_>) -> Result<Assertion, ParseError> {
    let fact = line.word("a fact")?;
    let relation = match line.word("a relation")?.as_str() {
        "==" => Relation::Equal,
        "!=" => Relation::Unequal,
        ">=" => Relation::AtLeast,
        "<=" => Relation::AtMost,
        "<" => Relation::Less,
        ">" => Relation::More,
        other => return Err(line.error(format!("`{other}` is no relation: there are == != >= <= < >"))),
    };
    Ok(Assertion { fact, relation, value: line.word("a value")? })
}

/// `establish passive rtt 10ms win 512 [options]`: the three segments of a handshake, as steps.
pub(super) fn establish(line: &mut Line<'_>, at: usize, when: When, script: &mut Script) -> Result<(), ParseError> {
    if script.subject != Subject::Endpoint {
        return Err(line.error("`establish` is for endpoints: write a converter's handshakes out"));
    }
    let side = line.word("`active` or `passive`")?;
    let mut rtt = Duration::ZERO;
    let mut window = None;
    let mut options = None;
    while let Some(token) = line.next() {
        match token {
            Token::Word(word) if word == "rtt" => {
                let word = line.word("a time")?;
                rtt = time(line, &word)?;
            }
            Token::Word(word) if word == "win" => {
                let word = line.word("a window")?;
                window = Some(Pattern::Is(Value::Number(i64::from(count::<u16>(line, &word)?))));
            }
            Token::Open => options = Some(segment::options(line, segment::Direction::Injected)?.0),
            other => return Err(line.error(format!("{} in `establish`", other.describe()))),
        }
    }
    let options = options.unwrap_or_else(usual_options);
    // The third ACK's window: what was said of it, else 64 KiB whatever the scale.
    let scale = options.iter().find_map(|option| match option {
        OptionSpec::WindowScale(Pattern::Is(Value::Number(shift))) => Some(*shift),
        _ => None,
    });
    let scaled = if script.settings.offer.window_scale.is_some() { scale.unwrap_or(0) } else { 0 };
    let window = window.unwrap_or(Pattern::Is(Value::Number(65_535 >> scaled.min(14))));
    let later = When { base: Base::Previous, earliest: rtt, latest: Some(rtt), tolerance: None };
    let syn = segment_spec(TcpFlags::SYN, 0, None, Some(options.clone()), Some(full()));
    let third = segment_spec(TcpFlags::ACK, 1, Some(1), None, Some(window.clone()));
    let steps = match side.as_str() {
        "passive" => [
            (when, What::Act(Action::Listen)),
            (When::NOW, What::Inject(Lane::Peer, syn)),
            (When::NOW, What::Expect(Lane::Peer, segment_spec(TcpFlags::SYN | TcpFlags::ACK, 0, Some(1), None, None))),
            (later, What::Inject(Lane::Peer, third)),
        ],
        "active" => {
            let answer = segment_spec(TcpFlags::SYN | TcpFlags::ACK, 0, Some(1), Some(options), Some(full()));
            [
                (when, What::Act(Action::Connect)),
                (When::NOW, What::Expect(Lane::Peer, segment_spec(TcpFlags::SYN, 0, None, None, None))),
                (later, What::Inject(Lane::Peer, answer)),
                (When::NOW, What::Expect(Lane::Peer, segment_spec(TcpFlags::ACK, 1, Some(1), None, None))),
            ]
        }
        other => return Err(line.error(format!("`{other}`: `active` or `passive` should stand here"))),
    };
    script.steps.extend(steps.into_iter().map(|(when, what)| Step { line: at, only: None, when, what }));
    if side == "active" {
        // The window that counts from now on, in an ACK of its own, as the SYN+ACK's is never scaled.
        let update = segment_spec(TcpFlags::ACK, 1, Some(1), None, Some(window));
        let step = Step { line: at, only: None, when: When::NOW, what: What::Inject(Lane::Peer, update) };
        script.steps.push(step);
    }
    Ok(())
}

/// What most peers offer.
fn usual_options() -> Vec<OptionSpec> {
    let number = |value| Pattern::Is(Value::Number(value));
    vec![
        OptionSpec::Mss(number(1460)),
        OptionSpec::SackPermitted,
        OptionSpec::Timestamps(None),
        OptionSpec::WindowScale(number(7)),
    ]
}

fn full() -> Pattern {
    Pattern::Is(Value::Number(65_535))
}

fn segment_spec(
    flags: TcpFlags,
    seq: i64,
    ack: Option<i64>,
    options: Option<Vec<OptionSpec>>,
    window: Option<Pattern>,
) -> SegmentSpec {
    SegmentSpec {
        flags,
        seq: Pattern::Is(Value::Number(seq)),
        len: 0,
        copies: 1,
        text: None,
        ack: ack.map(|ack| Pattern::Is(Value::Number(ack))),
        window,
        urgent: None,
        ecn: None,
        options,
        more_options: false,
    }
}
