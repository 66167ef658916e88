//! One direction pair of a script: relative numbers to absolute ones and back, segments built and compared.

use std::collections::BTreeMap;

use mimbox_stack::options::kind;
use mimbox_stack::wire::{Ecn, TcpFlags};
use mimbox_stack::{Duration, SeqNum};

use super::packet::{Ends, Segment};
use super::parse::kind_name;
use super::stream::Stream;
use super::syntax::{OptionSpec, Pattern, SegmentSpec, Value};

/// Variables of a script.
pub(super) type Variables = BTreeMap<String, i64>;

/// What the peer's timestamp clock shows when the script starts.
const PEER_CLOCK: u32 = 1_000;

/// What both sides have said so far.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Peer to subject.
    pub(super) ends: Ends,
    /// The peer's first sequence number.
    pub(super) peer_isn: SeqNum,
    /// The subject's, once its SYN was seen.
    pub(super) subject_isn: Option<SeqNum>,
    /// What the peer sends.
    pub(super) peer_stream: Stream,
    /// What the subject sends.
    pub(super) subject_stream: Stream,
    /// Window field that the peer sent last.
    window: u16,
    peer_timestamps: bool,
    subject_timestamps: bool,
    peer_scale: Option<u8>,
    subject_scale: Option<u8>,
    /// TSval that the subject sent last.
    last_tsval: u32,
    /// Right edge of the window that the subject has shown.
    edge: Option<SeqNum>,
}

impl State {
    pub(super) fn new(ends: Ends, peer_isn: SeqNum, peer_salt: u8, subject_salt: u8) -> Self {
        Self {
            ends,
            peer_isn,
            subject_isn: None,
            peer_stream: Stream::new(peer_salt),
            subject_stream: Stream::new(subject_salt),
            window: 65_535,
            peer_timestamps: false,
            subject_timestamps: false,
            peer_scale: None,
            subject_scale: None,
            last_tsval: 0,
            edge: None,
        }
    }

    /// The next connection of the same ends: the peer's first sequence number moves on.
    pub(super) fn reopen(&mut self, by: u32) {
        let (peer_salt, subject_salt) = (0, 0x5a);
        let last_tsval = self.last_tsval;
        *self = Self::new(self.ends, self.peer_isn + by, peer_salt, subject_salt);
        self.last_tsval = last_tsval;
    }

    /// An absolute sequence number of the subject.
    pub(super) fn subject_seq(&self, relative: i64) -> u32 {
        self.subject_isn.unwrap_or_default().0.wrapping_add(relative as u32)
    }

    /// The `nth` copy of an injected segment.
    pub(super) fn build(
        &mut self,
        spec: &SegmentSpec,
        nth: u32,
        now: Duration,
        variables: &Variables,
    ) -> Result<Segment, String> {
        let step = i64::from(nth) * i64::from(spec.len);
        let seq = resolve(&spec.seq, variables)? + step;
        let ack = spec.ack.as_ref().map_or(Ok(0), |ack| resolve(ack, variables))?;
        if let Some(window) = &spec.window {
            let window = resolve(window, variables)?;
            self.window = u16::try_from(window).map_err(|_| format!("{window} is no window field"))?;
        }
        let syn = spec.flags.contains(TcpFlags::SYN);
        let at = (seq - i64::from(!syn)) as u64;
        if let Some(text) = &spec.text {
            self.peer_stream.put(at, text);
        }
        let payload = spec.text.clone().unwrap_or_else(|| self.peer_stream.bytes(at, spec.len as usize));
        let automatic = [OptionSpec::Timestamps(None)];
        let options = match &spec.options {
            Some(options) => options.as_slice(),
            None if self.timestamps_agreed() && !spec.flags.contains(TcpFlags::RST) => &automatic,
            None => &[],
        };
        let segment = Segment {
            ends: self.ends,
            ecn: spec.ecn.unwrap_or_default(),
            seq: self.peer_isn.0.wrapping_add(seq as u32),
            ack: if spec.flags.contains(TcpFlags::ACK) { self.subject_seq(ack) } else { 0 },
            flags: spec.flags,
            window: self.window,
            urgent: spec.urgent.unwrap_or(0),
            options: self.option_bytes(options, spec.flags, now, variables)?,
            payload,
        };
        // A stray SYN in the middle of a connection changes nothing of what was agreed.
        if syn && seq == 0 {
            self.peer_timestamps = segment.timestamps().is_some();
            self.peer_scale = segment.window_scale();
        }
        Ok(segment)
    }

    fn timestamps_agreed(&self) -> bool {
        self.peer_timestamps && self.subject_timestamps
    }

    fn option_bytes(
        &self,
        options: &[OptionSpec],
        flags: TcpFlags,
        now: Duration,
        variables: &Variables,
    ) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for option in options {
            match option {
                OptionSpec::Mss(size) => {
                    bytes.extend([kind::MSS, 4]);
                    bytes.extend((resolve(size, variables)? as u16).to_be_bytes());
                }
                OptionSpec::WindowScale(shift) => {
                    bytes.extend([kind::NOP, kind::WINDOW_SCALE, 3, resolve(shift, variables)? as u8]);
                }
                OptionSpec::SackPermitted => bytes.extend([kind::NOP, kind::NOP, kind::SACK_PERMITTED, 2]),
                OptionSpec::Timestamps(clocks) => {
                    let (value, echo) = match clocks {
                        Some((value, echo)) => (resolve(value, variables)? as u32, resolve(echo, variables)? as u32),
                        None => {
                            let echo = if flags.contains(TcpFlags::ACK) { self.last_tsval } else { 0 };
                            (PEER_CLOCK.wrapping_add(now.as_millis() as u32), echo)
                        }
                    };
                    bytes.extend([kind::NOP, kind::NOP, kind::TIMESTAMPS, 10]);
                    bytes.extend(value.to_be_bytes());
                    bytes.extend(echo.to_be_bytes());
                }
                OptionSpec::Sack(blocks) => {
                    bytes.extend([kind::NOP, kind::NOP, kind::SACK, 2 + 8 * blocks.len() as u8]);
                    for &(start, end) in blocks {
                        bytes.extend(self.subject_seq(start).to_be_bytes());
                        bytes.extend(self.subject_seq(end).to_be_bytes());
                    }
                }
                OptionSpec::Nop => bytes.push(kind::NOP),
                OptionSpec::End => bytes.push(kind::END),
                OptionSpec::Destination(to) => {
                    bytes.extend([kind::EXPERIMENT_1, 10, 0x4d, 0x42]);
                    bytes.extend(to.ip().octets());
                    bytes.extend(to.port().to_be_bytes());
                }
                OptionSpec::Mptcp(_, body) => raw(&mut bytes, kind::MPTCP, body),
                OptionSpec::Raw(number, body) => raw(&mut bytes, *number, body),
                OptionSpec::Kind(number) => return Err(format!("option kind {number} needs its bytes: take `raw`")),
            }
        }
        if bytes.len() > 40 {
            return Err(format!("{} bytes of options do not fit a header", bytes.len()));
        }
        Ok(bytes)
    }

    /// Takes note of what the subject says, whether it was expected or not; complains of a window that shrinks.
    pub(super) fn observe(&mut self, seen: &Segment) -> Option<String> {
        if let Some((value, _)) = seen.timestamps() {
            self.last_tsval = value;
        }
        if seen.flags.contains(TcpFlags::SYN) {
            self.subject_isn.get_or_insert(SeqNum(seen.seq));
            self.subject_timestamps = seen.timestamps().is_some();
            self.subject_scale = seen.window_scale();
        }
        if seen.flags.contains(TcpFlags::RST) || !seen.flags.contains(TcpFlags::ACK) {
            return None;
        }
        let scale = match (self.subject_scale, self.peer_scale) {
            (Some(scale), Some(_)) if !seen.flags.contains(TcpFlags::SYN) => scale.min(14),
            _ => 0,
        };
        let edge = SeqNum(seen.ack) + (u32::from(seen.window) << scale);
        let shrunk = self.edge.filter(|&shown| edge.before(shown)).map(|shown| shown.distance_from(edge));
        self.edge = Some(self.edge.map_or(edge, |shown| shown.max(edge)));
        shrunk.map(|by| format!("the right edge of the window moved left by {by} bytes"))
    }

    /// How the `nth` copy of an expected segment differs from the one that was seen.
    pub(super) fn compare(
        &self,
        spec: &SegmentSpec,
        nth: u32,
        seen: &Segment,
        variables: &mut Variables,
    ) -> Vec<String> {
        let mut differences = Differences::default();
        let push = spec.flags.contains(TcpFlags::PSH);
        let flags = if push { seen.flags } else { seen.flags - TcpFlags::PSH };
        if flags != spec.flags {
            differences.add("flags", flag_letters(spec.flags), flag_letters(seen.flags));
        }
        let step = i64::from(nth) * i64::from(spec.len);
        let seq = self.relative_seq(seen);
        differences.number("sequence number", &shifted(&spec.seq, step), seq, variables);
        if seen.payload.len() != spec.len as usize {
            differences.add("payload length", spec.len, seen.payload.len());
        } else {
            let at = (seq - i64::from(!seen.flags.contains(TcpFlags::SYN))) as u64;
            let bytes = spec.text.clone().unwrap_or_else(|| self.subject_stream.bytes(at, seen.payload.len()));
            if let Some(index) = bytes.iter().zip(&seen.payload).position(|(wanted, got)| wanted != got) {
                differences.add(&format!("payload byte {index}"), bytes[index], seen.payload[index]);
            }
        }
        if let Some(ack) = &spec.ack {
            differences.number("ack", ack, self.relative_ack(seen), variables);
        }
        if let Some(window) = &spec.window {
            differences.number("window", window, i64::from(seen.window), variables);
        }
        if let Some(urgent) = spec.urgent.filter(|&urgent| urgent != seen.urgent) {
            differences.add("urgent pointer", urgent, seen.urgent);
        }
        if let Some(ecn) = spec.ecn.filter(|&ecn| ecn != seen.ecn) {
            differences.add("ECN", ecn_name(ecn), ecn_name(seen.ecn));
        }
        if let Some(options) = &spec.options {
            self.compare_options(options, spec.more_options, seen, &mut differences, variables);
        }
        differences.0
    }

    fn compare_options(
        &self,
        wanted: &[OptionSpec],
        more: bool,
        seen: &Segment,
        differences: &mut Differences,
        variables: &mut Variables,
    ) {
        let mut there = match seen.option_list() {
            Ok(list) => list,
            Err(error) => return differences.0.push(error),
        };
        for option in wanted {
            let number = option_kind(option);
            let Some(index) = there.iter().position(|(kind, _)| *kind == number) else {
                differences.0.push(format!("option {} is missing", kind_name(number)));
                continue;
            };
            let (_, body) = there.remove(index);
            self.compare_option(option, &body, differences, variables);
        }
        if !more {
            for (number, body) in there {
                differences.0.push(format!("option {} is there", self.option_text(number, &body)));
            }
        }
    }

    fn compare_option(
        &self,
        option: &OptionSpec,
        body: &[u8],
        differences: &mut Differences,
        variables: &mut Variables,
    ) {
        match option {
            OptionSpec::Mss(size) => differences.number("mss", size, big_endian(body), variables),
            OptionSpec::WindowScale(shift) => differences.number("wscale", shift, big_endian(body), variables),
            OptionSpec::Timestamps(Some((value, echo))) => {
                let (seen_value, seen_echo) = body.split_at(body.len().min(4));
                differences.number("TSval", value, big_endian(seen_value), variables);
                differences.number("TSecr", echo, big_endian(seen_echo), variables);
            }
            OptionSpec::Sack(blocks) => {
                let seen = self.blocks(body);
                if *blocks != seen {
                    differences.add("sack", block_text(blocks), block_text(&seen));
                }
            }
            OptionSpec::Mptcp(_, wanted) | OptionSpec::Raw(_, wanted) if wanted != body => {
                differences.add(&kind_name(option_kind(option)), hex(wanted), hex(body));
            }
            _ => {}
        }
    }

    fn blocks(&self, body: &[u8]) -> Vec<(i64, i64)> {
        let relative = |edge: &[u8]| i64::from((big_endian(edge) as u32).wrapping_sub(self.peer_isn.0) as i32);
        body.chunks(8)
            .map(|block| {
                let (start, end) = block.split_at(block.len().min(4));
                (relative(start), relative(end))
            })
            .collect()
    }

    fn relative_seq(&self, seen: &Segment) -> i64 {
        // A reset that answers a segment without ACK has sequence number zero (RFC 9293 §3.10.7.1).
        match self.subject_isn {
            Some(isn) => i64::from(seen.seq.wrapping_sub(isn.0) as i32),
            None => i64::from(seen.seq),
        }
    }

    fn relative_ack(&self, seen: &Segment) -> i64 {
        if seen.flags.contains(TcpFlags::ACK) {
            i64::from(seen.ack.wrapping_sub(self.peer_isn.0) as i32)
        } else {
            i64::from(seen.ack)
        }
    }

    /// A segment of the subject in the words of the dialect.
    pub(super) fn seen_text(&self, seen: &Segment) -> String {
        let mut text = format!("{} {}", flag_letters(seen.flags), self.relative_seq(seen));
        if !seen.payload.is_empty() {
            text.push_str(&format!("+{}", seen.payload.len()));
        }
        if seen.flags.contains(TcpFlags::ACK) {
            text.push_str(&format!(" ack {}", self.relative_ack(seen)));
        }
        text.push_str(&format!(" win {}", seen.window));
        if seen.ecn != Ecn::NotEct {
            text.push_str(&format!(" {}", ecn_name(seen.ecn)));
        }
        let options = seen.option_list().unwrap_or_default();
        let options: Vec<String> = options.iter().map(|(number, body)| self.option_text(*number, body)).collect();
        if !options.is_empty() {
            text.push_str(&format!(" [{}]", options.join(", ")));
        }
        text
    }

    fn option_text(&self, number: u8, body: &[u8]) -> String {
        match number {
            kind::MSS | kind::WINDOW_SCALE => format!("{} {}", kind_name(number), big_endian(body)),
            kind::TIMESTAMPS => {
                let (value, echo) = body.split_at(body.len().min(4));
                format!("ts {} {}", big_endian(value), big_endian(echo))
            }
            kind::SACK => format!("sack {}", block_text(&self.blocks(body))),
            kind::SACK_PERMITTED => "sackok".into(),
            _ => format!("raw {number} {}", hex(body)),
        }
    }
}

fn raw(bytes: &mut Vec<u8>, number: u8, body: &[u8]) {
    bytes.extend([number, 2 + body.len() as u8]);
    bytes.extend_from_slice(body);
}

fn option_kind(option: &OptionSpec) -> u8 {
    match option {
        OptionSpec::Mss(_) => kind::MSS,
        OptionSpec::WindowScale(_) => kind::WINDOW_SCALE,
        OptionSpec::SackPermitted => kind::SACK_PERMITTED,
        OptionSpec::Timestamps(_) => kind::TIMESTAMPS,
        OptionSpec::Sack(_) => kind::SACK,
        OptionSpec::Nop => kind::NOP,
        OptionSpec::End => kind::END,
        OptionSpec::Destination(_) => kind::EXPERIMENT_1,
        OptionSpec::Mptcp(..) => kind::MPTCP,
        OptionSpec::Raw(number, _) | OptionSpec::Kind(number) => *number,
    }
}

/// What an injected segment's number is.
pub(super) fn resolve(pattern: &Pattern, variables: &Variables) -> Result<i64, String> {
    match pattern {
        Pattern::Is(Value::Number(number)) => Ok(*number),
        Pattern::Is(Value::Variable(name, plus)) => {
            variables.get(name).map(|value| value + plus).ok_or_else(|| format!("nothing has set ${name} yet"))
        }
        Pattern::Any | Pattern::Within(..) => Err("a number is needed here, not a pattern".into()),
    }
}

fn shifted(pattern: &Pattern, by: i64) -> Pattern {
    match pattern {
        Pattern::Is(Value::Number(number)) => Pattern::Is(Value::Number(number + by)),
        Pattern::Is(Value::Variable(name, plus)) => Pattern::Is(Value::Variable(name.clone(), plus + by)),
        Pattern::Within(least, most) => Pattern::Within(least.saturating_add(by), most.saturating_add(by)),
        Pattern::Any => Pattern::Any,
    }
}

/// What differs, one line each.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, what: &str, wanted: impl std::fmt::Display, got: impl std::fmt::Display) {
        self.0.push(format!("{what}: {wanted} is expected, {got} came"));
    }

    fn number(&mut self, what: &str, pattern: &Pattern, got: i64, variables: &mut Variables) {
        match pattern {
            Pattern::Any => {}
            Pattern::Within(least, most) => {
                if got < *least || got > *most {
                    let bound =
                        |value: i64| if value.unsigned_abs() > 1 << 60 { String::new() } else { value.to_string() };
                    self.add(what, format!("{}..{}", bound(*least), bound(*most)), got);
                }
            }
            Pattern::Is(Value::Number(number)) => {
                if got != *number {
                    self.add(what, number, got);
                }
            }
            Pattern::Is(Value::Variable(name, plus)) => match variables.get(name) {
                Some(value) if value + plus != got => self.add(what, value + plus, got),
                Some(_) => {}
                None => {
                    variables.insert(name.clone(), got - plus);
                }
            },
        }
    }
}

fn big_endian(bytes: &[u8]) -> i64 {
    bytes.iter().take(7).fold(0, |value, byte| value << 8 | i64::from(*byte))
}

fn block_text(blocks: &[(i64, i64)]) -> String {
    blocks.iter().map(|(start, end)| format!("{start}:{end}")).collect::<Vec<_>>().join(" ")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Flags in the letters of the dialect.
pub(super) fn flag_letters(flags: TcpFlags) -> String {
    let letters = [
        (TcpFlags::SYN, 'S'),
        (TcpFlags::FIN, 'F'),
        (TcpFlags::RST, 'R'),
        (TcpFlags::PSH, 'P'),
        (TcpFlags::ACK, 'A'),
        (TcpFlags::URG, 'U'),
        (TcpFlags::ECE, 'E'),
        (TcpFlags::CWR, 'C'),
    ];
    let text: String = letters.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter).collect();
    if text.is_empty() { "-".into() } else { text }
}

const fn ecn_name(ecn: Ecn) -> &'static str {
    match ecn {
        Ecn::NotEct => "notect",
        Ecn::Ect0 => "ect0",
        Ecn::Ect1 => "ect1",
        Ecn::Ce => "ce",
    }
}
