//! The parser: a script's text to its steps, every error with file, line and column.

mod action;
mod number;
mod segment;
mod settings;

use std::path::Path;

use mimbox_stack::Duration;

use super::lex::{Line, ParseError};
use super::syntax::{BackendKind, Base, Lane, Linux, Script, Settings, Step, Subject, What, When};
pub(super) use number::amount;
use number::{duration, number};
pub(super) use segment::kind_name;

/// Parses the script that `text` holds; `path` is for errors and reports.
///
/// # Errors
/// The first thing that cannot be understood, with its place.
pub fn parse(path: &Path, text: &str) -> Result<Script, ParseError> {
    let mut script = Script {
        path: path.to_owned(),
        title: title(text),
        subject: Subject::default(),
        linux: Linux::default(),
        settings: Settings::default(),
        steps: Vec::new(),
        source: text.lines().map(str::to_owned).collect(),
    };
    let mut first = Line::new(path, 1, text.lines().next().unwrap_or_default())?;
    if script.title.is_empty() {
        let _ = first.next();
        return Err(first.error("a script begins with a comment that says what it is about"));
    }
    for (index, text) in text.lines().enumerate() {
        let mut line = Line::new(path, index + 1, text)?;
        if !line.is_done() && !directive(&mut line, &mut script)? {
            step(&mut line, index + 1, &mut script)?;
        }
    }
    if script.steps.is_empty() {
        return Err(first.error("a script without a step"));
    }
    Ok(script)
}

/// The comment that the file begins with, as one line.
fn title(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    lines.collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Lines that say something about the whole script.
fn directive(line: &mut Line<'_>, script: &mut Script) -> Result<bool, ParseError> {
    match line.peek_word() {
        Some("linux") => {
            let _ = line.next();
            script.linux = match line.word("`same`, `differs` or `skip`")?.as_str() {
                "same" => Linux::Same,
                "differs" => Linux::Differs(reason(line)?),
                "skip" => Linux::Skip(reason(line)?),
                other => return Err(line.error(format!("`{other}`: `same`, `differs` or `skip` should stand here"))),
            };
        }
        Some("subject") => {
            let _ = line.next();
            script.subject = match line.word("`endpoint` or `converter`")?.as_str() {
                "endpoint" => Subject::Endpoint,
                "converter" => Subject::Converter,
                other => return Err(line.error(format!("`{other}`: `endpoint` or `converter` should stand here"))),
            };
        }
        Some("config") => {
            let _ = line.next();
            if !script.steps.is_empty() {
                return Err(line.error("`config` stands before the first step"));
            }
            while !line.is_done() {
                settings::setting(line, &mut script.settings)?;
            }
        }
        _ => return Ok(false),
    }
    line.end()?;
    Ok(true)
}

fn reason(line: &mut Line<'_>) -> Result<String, ParseError> {
    Ok(String::from_utf8_lossy(&line.text("the reason")?).into_owned())
}

fn step(line: &mut Line<'_>, number: usize, script: &mut Script) -> Result<(), ParseError> {
    let only = if line.take_word("mimbox:") {
        Some(BackendKind::Mimbox)
    } else if line.take_word("linux:") {
        Some(BackendKind::Linux)
    } else {
        None
    };
    let when = when(line)?;
    let first = script.steps.len();
    if line.take_word("establish") {
        action::establish(line, number, when, script)?;
    } else {
        let what = what(line, script)?;
        script.steps.push(Step { line: number, only, when, what });
    }
    for step in script.steps.iter_mut().skip(first) {
        step.only = only;
    }
    line.end()
}

/// `+0.1`, `@2s`, `+40ms..200ms`, `+1s~10ms`, `*`; nothing means at once.
fn when(line: &mut Line<'_>) -> Result<When, ParseError> {
    let Some(word) = line.peek_word().map(str::to_owned) else { return Ok(When::NOW) };
    if word == "*" {
        let _ = line.next();
        return Ok(When { latest: None, ..When::NOW });
    }
    let (base, rest) = match (word.strip_prefix('+'), word.strip_prefix('@')) {
        (Some(rest), _) => (Base::Previous, rest),
        (_, Some(rest)) => (Base::Start, rest),
        _ => return Ok(When::NOW),
    };
    let _ = line.next();
    let (times, tolerance) = match rest.split_once('~') {
        Some((times, tolerance)) => (times, Some(time(line, tolerance)?)),
        None => (rest, None),
    };
    let (earliest, latest) = match times.split_once("..") {
        Some((from, to)) => (time(line, from)?, time(line, to)?),
        None => (time(line, times)?, time(line, times)?),
    };
    if latest < earliest {
        return Err(line.error("the later time comes first"));
    }
    Ok(When { base, earliest, latest: Some(latest), tolerance })
}

fn time(line: &Line<'_>, word: &str) -> Result<Duration, ParseError> {
    duration(word).ok_or_else(|| {
        line.error(format!("`{word}` is no time: take seconds like `1.5`, or `200ms`, `10us`, `2s`, `5m`"))
    })
}

fn what(line: &mut Line<'_>, script: &Script) -> Result<What, ParseError> {
    let word = line.word("a segment or an action")?;
    if let Some((lane, arrow)) = lane(&word) {
        let endpoint = lane == Lane::Peer;
        if endpoint != (script.subject == Subject::Endpoint) {
            return Err(line.error(if endpoint {
                "a converter's segments are its client's or its server's: `client<`, `client>`, `server<`, `server>`"
            } else {
                "only scripts with `subject converter` have a client and a server"
            }));
        }
        let icmp = line.take_word("icmp");
        return match (arrow, icmp) {
            ('<', true) => Ok(What::Icmp(lane, segment::icmp(line)?)),
            ('<', false) => Ok(What::Inject(lane, segment::segment(line, segment::Direction::Injected)?)),
            (_, true) => Ok(What::ExpectIcmp(lane, segment::icmp_kind(line)?)),
            (_, false) => Ok(What::Expect(lane, segment::segment(line, segment::Direction::Expected)?)),
        };
    }
    match word.as_str() {
        "nothing" => {
            let _ = line.take_word("for");
            Ok(What::Nothing(span(line)?))
        }
        "drain" => {
            let _ = line.take_word("for");
            Ok(What::Drain(if line.is_done() { Duration::ZERO } else { span(line)? }))
        }
        "reopen" => {
            let word = line.word("how far the peer's first sequence number moves")?;
            Ok(What::Reopen(Lane::Peer, count(line, &word)?))
        }
        "assert" => Ok(What::Assert(action::assertion(line)?)),
        _ => action::action(line, &word).map(What::Act),
    }
}

/// `<`, `>`, `client<` and so on.
fn lane(word: &str) -> Option<(Lane, char)> {
    let arrow = word.chars().last().filter(|arrow| matches!(arrow, '<' | '>'))?;
    let lane = match word.strip_suffix(arrow)? {
        "" => Lane::Peer,
        "client" => Lane::Client,
        "server" => Lane::Server,
        _ => return None,
    };
    Some((lane, arrow))
}

fn span(line: &mut Line<'_>) -> Result<Duration, ParseError> {
    let word = line.word("a time")?;
    time(line, &word)
}

/// A number that has to be there.
fn count<T: TryFrom<i64>>(line: &Line<'_>, word: &str) -> Result<T, ParseError> {
    number(word)
        .and_then(|value| T::try_from(value).ok())
        .ok_or_else(|| line.error(format!("`{word}` is no number that fits here")))
}

#[cfg(test)]
mod tests;
