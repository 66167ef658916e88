//! Segments and ICMP errors.

use mimbox_stack::options::kind;
use mimbox_stack::wire::{Ecn, TcpFlags};

use super::number::{number, pattern};
use super::{count, lane};
use crate::script::lex::{Line, ParseError, Token};
use crate::script::syntax::{IcmpKindSpec, IcmpSpec, OptionSpec, Pattern, SegmentSpec, Value};

/// Which way a segment goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// To the subject: everything has to be said.
    Injected,
    /// From the subject: what is not said is not checked.
    Expected,
}

/// `PA 1+1000x3 "text" ack 1 win 512 urg 5 ce [options]`
pub(super) fn segment(line: &mut Line<'_>, direction: Direction) -> Result<SegmentSpec, ParseError> {
    let word = line.word("the flags")?;
    let flags = flags(&word).ok_or_else(|| {
        line.error(format!("`{word}` are no flags: take letters of S F R P A U E (ECE) C (CWR), or `-` for none"))
    })?;
    let word = line.word("the sequence number")?;
    let (seq, len, copies) = span(line, &word)?;
    let mut spec = SegmentSpec {
        flags,
        seq,
        len,
        copies,
        text: None,
        ack: None,
        window: None,
        urgent: None,
        ecn: None,
        options: None,
        more_options: false,
    };
    if let Some(Token::Text(text)) = line.peek().cloned() {
        let _ = line.next();
        if text.len() != len as usize {
            return Err(line.error(format!("the text has {} bytes, the segment {len}", text.len())));
        }
        spec.text = Some(text);
    }
    while let Some(token) = line.next() {
        match token {
            Token::Word(word) => field(line, &word, &mut spec)?,
            Token::Open => {
                let (options, more) = options(line, direction)?;
                spec.options = Some(options);
                spec.more_options = more;
            }
            other => return Err(line.error(format!("{} in a segment", other.describe()))),
        }
    }
    check(line, direction, &spec)?;
    Ok(spec)
}

fn field(line: &mut Line<'_>, word: &str, spec: &mut SegmentSpec) -> Result<(), ParseError> {
    match word {
        "ack" => spec.ack = Some(one(line, "an acknowledgment number")?),
        "win" => spec.window = Some(one(line, "a window")?),
        "urg" => {
            let word = line.word("an urgent pointer")?;
            spec.urgent = Some(count(line, &word)?);
        }
        "notect" => spec.ecn = Some(Ecn::NotEct),
        "ect0" => spec.ecn = Some(Ecn::Ect0),
        "ect1" => spec.ecn = Some(Ecn::Ect1),
        "ce" => spec.ecn = Some(Ecn::Ce),
        other => {
            let hint = if lane(other).is_some() { ": one segment a line" } else { "" };
            return Err(line.error(format!("`{other}` is no part of a segment{hint}")));
        }
    }
    Ok(())
}

fn check(line: &Line<'_>, direction: Direction, spec: &SegmentSpec) -> Result<(), ParseError> {
    let acks = spec.flags.contains(TcpFlags::ACK);
    if acks && spec.ack.is_none() {
        return Err(line.error("a segment with A says its `ack` (`ack *` for any)"));
    }
    if direction == Direction::Injected {
        let open = |pattern: &Pattern| !matches!(pattern, Pattern::Is(_));
        if open(&spec.seq) || spec.ack.as_ref().is_some_and(open) || spec.window.as_ref().is_some_and(open) {
            return Err(line.error("an injected segment needs numbers, not patterns"));
        }
    }
    Ok(())
}

fn flags(word: &str) -> Option<TcpFlags> {
    if word == "-" {
        return Some(TcpFlags::empty());
    }
    word.chars().try_fold(TcpFlags::empty(), |all, letter| {
        let flag = match letter {
            'S' => TcpFlags::SYN,
            'F' => TcpFlags::FIN,
            'R' => TcpFlags::RST,
            'P' => TcpFlags::PSH,
            'A' => TcpFlags::ACK,
            'U' => TcpFlags::URG,
            'E' => TcpFlags::ECE,
            'C' => TcpFlags::CWR,
            _ => return None,
        };
        (!all.contains(flag)).then_some(all | flag)
    })
}

/// `1`, `1+1000`, `1+1000x3`, `*`, `$x+1000`.
fn span(line: &Line<'_>, word: &str) -> Result<(Pattern, u32, u32), ParseError> {
    let bad = || line.error(format!("`{word}` is no sequence number: take `1`, `1+1000` or `1+1000x3`"));
    // A sign in front belongs to the number.
    let split = word.char_indices().skip(1).find(|&(_, c)| c == '+').map(|(at, _)| at);
    let Some(at) = split else { return Ok((pattern(word).ok_or_else(bad)?, 0, 1)) };
    let (seq, rest) = (word.get(..at).unwrap_or_default(), word.get(at + 1..).unwrap_or_default());
    let (len, copies) = rest.split_once('x').unwrap_or((rest, "1"));
    let len: u32 = count(line, len)?;
    let copies: u32 = count(line, copies)?;
    if len > 65_000 || copies == 0 || copies > 100_000 {
        return Err(bad());
    }
    Ok((pattern(seq).ok_or_else(bad)?, len, copies))
}

fn one(line: &mut Line<'_>, what: &str) -> Result<Pattern, ParseError> {
    let word = line.word(what)?;
    pattern(&word).ok_or_else(|| line.error(format!("`{word}` is not {what}")))
}

/// Everything up to the closing bracket.
pub(super) fn options(line: &mut Line<'_>, direction: Direction) -> Result<(Vec<OptionSpec>, bool), ParseError> {
    let mut options = Vec::new();
    let mut more = false;
    if line.take(&Token::Close) {
        return Ok((options, more));
    }
    loop {
        let name = line.word("an option")?;
        if name == "..." && direction == Direction::Expected {
            more = true;
        } else {
            options.push(option(line, &name)?);
        }
        match line.next() {
            Some(Token::Comma) => {}
            Some(Token::Close) => return Ok((options, more)),
            Some(other) => return Err(line.error(format!("{} where `,` or `]` should stand", other.describe()))),
            None => return Err(line.error("`]` is missing")),
        }
    }
}

fn option(line: &mut Line<'_>, name: &str) -> Result<OptionSpec, ParseError> {
    Ok(match name {
        "mss" => OptionSpec::Mss(one(line, "a segment size")?),
        "wscale" => OptionSpec::WindowScale(one(line, "a shift")?),
        "sackok" => OptionSpec::SackPermitted,
        "ts" if matches!(line.peek(), Some(Token::Word(_))) => {
            OptionSpec::Timestamps(Some((one(line, "a timestamp")?, one(line, "an echoed timestamp")?)))
        }
        "ts" => OptionSpec::Timestamps(None),
        "sack" => OptionSpec::Sack(blocks(line)?),
        "nop" => OptionSpec::Nop,
        "end" => OptionSpec::End,
        "dst" => {
            let word = line.word("an address and port")?;
            OptionSpec::Destination(
                word.parse().map_err(|_| line.error(format!("`{word}` is no destination: take 198.51.100.2:80")))?,
            )
        }
        "mptcp" => {
            let name = line.word("a suboption")?;
            OptionSpec::Mptcp(name, hex(line)?)
        }
        "raw" => {
            let word = line.word("an option kind")?;
            OptionSpec::Raw(count(line, &word)?, hex(line)?)
        }
        "kind" => {
            let word = line.word("an option kind")?;
            OptionSpec::Kind(count(line, &word)?)
        }
        other => {
            return Err(line.error(format!(
                "`{other}` is no option: there are mss, wscale, sackok, ts, sack, nop, end, dst, mptcp, raw, kind"
            )));
        }
    })
}

fn blocks(line: &mut Line<'_>) -> Result<Vec<(i64, i64)>, ParseError> {
    let mut blocks = Vec::new();
    while let Some(word) = line.peek_word().map(str::to_owned) {
        let _ = line.next();
        let block = word.split_once(':').and_then(|(start, end)| Some((number(start)?, number(end)?)));
        blocks.push(block.ok_or_else(|| line.error(format!("`{word}` is no SACK block: take `1001:2001`")))?);
    }
    if blocks.is_empty() || blocks.len() > 4 {
        return Err(line.error("one to four SACK blocks"));
    }
    Ok(blocks)
}

/// An option's body in hexadecimal digits; none for an empty one.
fn hex(line: &mut Line<'_>) -> Result<Vec<u8>, ParseError> {
    let Some(word) = line.peek_word().map(str::to_owned) else { return Ok(Vec::new()) };
    let _ = line.next();
    let digits: Option<Vec<u32>> = word.chars().map(|c| c.to_digit(16)).collect();
    let body: Option<Vec<u8>> = digits.filter(|digits| digits.len() % 2 == 0 && digits.len() <= 76).map(|digits| {
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect()
    });
    body.ok_or_else(|| line.error(format!("`{word}` are no hexadecimal bytes")))
}

/// Name of an option kind, for reports.
pub(in crate::script) fn kind_name(number: u8) -> String {
    match number {
        kind::MSS => "mss".into(),
        kind::WINDOW_SCALE => "wscale".into(),
        kind::SACK_PERMITTED => "sackok".into(),
        kind::SACK => "sack".into(),
        kind::TIMESTAMPS => "ts".into(),
        kind::MPTCP => "mptcp".into(),
        other => format!("kind {other}"),
    }
}

/// `port seq 1`, `toobig mtu 1300 seq 1`
pub(super) fn icmp(line: &mut Line<'_>) -> Result<IcmpSpec, ParseError> {
    let mut spec = IcmpSpec { kind: icmp_kind(line)?, mtu: 0, seq: 0 };
    while !line.is_done() {
        let word = line.word("`mtu` or `seq`")?;
        let value = line.word("a number")?;
        match word.as_str() {
            "mtu" => spec.mtu = count(line, &value)?,
            "seq" => match pattern(&value) {
                Some(Pattern::Is(Value::Number(seq))) => spec.seq = seq,
                _ => return Err(line.error(format!("`{value}` is no sequence number"))),
            },
            other => return Err(line.error(format!("`{other}` is no part of an ICMP error"))),
        }
    }
    Ok(spec)
}

/// The name of an ICMP error.
pub(super) fn icmp_kind(line: &mut Line<'_>) -> Result<IcmpKindSpec, ParseError> {
    Ok(match line.word("an ICMP error")?.as_str() {
        "toobig" => IcmpKindSpec::TooBig,
        "port" => IcmpKindSpec::Port,
        "host" => IcmpKindSpec::Host,
        "net" => IcmpKindSpec::Network,
        "protocol" => IcmpKindSpec::Protocol,
        "prohibited" => IcmpKindSpec::Prohibited,
        "ttl" => IcmpKindSpec::TimeExceeded,
        "quench" => IcmpKindSpec::SourceQuench,
        other => {
            return Err(line.error(format!(
                "`{other}` is no ICMP error: there are toobig, port, host, net, protocol, prohibited, ttl, quench"
            )));
        }
    })
}
