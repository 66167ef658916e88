//! Runs a script's steps against a backend.

use std::collections::BTreeMap;

use mimbox_stack::wire::TcpFlags;
use mimbox_stack::{Duration, SeqNum};

use super::backend::{Answer, Backend, Sent};
use super::endpoint::{peer, subject};
use super::lane::{State, Variables};
use super::packet::{self, Ends, Packet, Segment, icmp_error};
use super::report::Failure;
use super::syntax::{
    Action, Assertion, BackendKind, Base, IcmpKindSpec, Lane, Read, Script, SegmentSpec, Step, What, When, Written,
};

/// How long a segment without a time is waited for: virtual time costs nothing, real time does.
const PATIENCE_MIMBOX: Duration = Duration::from_secs(3_600);
const PATIENCE_LINUX: Duration = Duration::from_secs(20);
/// What the two directions' patterns are told apart by.
const PEER_SALT: u8 = 0;
const SUBJECT_SALT: u8 = 0x5a;

/// Why a step failed, before it is known which step it was.
struct Complaint {
    message: String,
    got: Option<String>,
    differences: Vec<String>,
}

impl From<String> for Complaint {
    fn from(message: String) -> Self {
        Self { message, got: None, differences: Vec::new() }
    }
}

impl From<&str> for Complaint {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

struct Runner<'a> {
    script: &'a Script,
    backend: &'a mut dyn Backend,
    lanes: BTreeMap<Lane, State>,
    variables: Variables,
    /// When the step before happened.
    previous: Duration,
    history: Vec<String>,
}

/// Runs `script` on `backend`.
pub(super) fn run(
    script: &Script,
    backend: &mut dyn Backend,
    lanes: BTreeMap<Lane, State>,
) -> Result<(), Box<Failure>> {
    let previous = backend.now();
    let mut runner = Runner { script, backend, lanes, variables: Variables::new(), previous, history: Vec::new() };
    for step in &script.steps {
        if step.only.is_some_and(|only| only != runner.backend.kind()) {
            continue;
        }
        runner.step(step).map_err(|complaint| runner.failure(step.line, complaint))?;
    }
    let last = script.steps.last().map_or(1, |step| step.line);
    runner.end().map_err(|complaint| runner.failure(last, complaint))
}

/// The lanes of an endpoint's script.
pub(super) fn endpoint_lanes(script: &Script) -> BTreeMap<Lane, State> {
    let family = script.settings.family;
    let ends = Ends { from: peer(family), to: subject(family) };
    BTreeMap::from([(Lane::Peer, State::new(ends, script.settings.peer_isn, PEER_SALT, SUBJECT_SALT))])
}

/// The lanes of a converter's script: what one side sends is what the other side is sent.
pub(super) fn converter_lanes(script: &Script, client: Ends, server: Ends) -> BTreeMap<Lane, State> {
    let isn = script.settings.peer_isn;
    BTreeMap::from([
        (Lane::Client, State::new(client, isn, PEER_SALT, SUBJECT_SALT)),
        (Lane::Server, State::new(server, isn + 5_000_000, SUBJECT_SALT, PEER_SALT)),
    ])
}

impl Runner<'_> {
    fn failure(&self, line: usize, complaint: Complaint) -> Box<Failure> {
        Box::new(Failure {
            path: self.script.path.clone(),
            line,
            source: self.script.source.get(line - 1).cloned().unwrap_or_default(),
            message: complaint.message,
            got: complaint.got,
            differences: complaint.differences,
            history: self.history.clone(),
        })
    }

    fn step(&mut self, step: &Step) -> Result<(), Complaint> {
        match &step.what {
            What::Expect(lane, spec) => return self.expect_all(step.when, *lane, spec),
            What::ExpectIcmp(lane, kind) => return self.expect_icmp(step.when, *lane, *kind),
            What::Drain(span) => {
                let until = self.base(step.when.base) + step.when.earliest + *span;
                return self.drain(until);
            }
            _ => {}
        }
        let at = self.base(step.when.base) + step.when.earliest;
        self.quiet_until(at)?;
        self.previous = at.max(self.previous);
        match &step.what {
            What::Inject(lane, spec) => self.inject(*lane, spec),
            What::Icmp(lane, spec) => {
                let state = self.lane(*lane)?;
                let packet = icmp_error(state.ends.reversed(), spec.kind, spec.mtu, state.subject_seq(spec.seq));
                self.note(format!("< icmp {:?} mtu {} seq {}", spec.kind, spec.mtu, spec.seq));
                Ok(self.backend.inject(*lane, &packet)?)
            }
            What::Act(action) => self.act(action),
            What::Assert(assertion) => self.assert(assertion),
            What::Nothing(span) => {
                let until = self.previous + *span;
                self.quiet_until(until)?;
                self.previous = until;
                Ok(())
            }
            What::Reopen(lane, by) => {
                self.lane(*lane)?.reopen(*by);
                Ok(())
            }
            What::Expect(..) | What::ExpectIcmp(..) | What::Drain(_) => Ok(()),
        }
    }

    fn base(&self, base: Base) -> Duration {
        match base {
            Base::Start => Duration::ZERO,
            Base::Previous => self.previous,
        }
    }

    fn lane(&mut self, lane: Lane) -> Result<&mut State, Complaint> {
        self.lanes.get_mut(&lane).ok_or_else(|| "this subject has no such side".into())
    }

    fn note(&mut self, event: String) {
        self.history.push(format!("{:>10.6}  {event}", self.backend.now().as_secs_f64()));
    }

    /// Lets time pass; nothing may be sent.
    fn quiet_until(&mut self, until: Duration) -> Result<(), Complaint> {
        match self.backend.wait(until)? {
            None => Ok(()),
            Some(sent) => {
                let at = sent.at;
                let packet = packet::read(&sent.packet)?;
                let got = self.describe(&sent, &packet);
                Err(Complaint {
                    message: "something was sent that the script does not expect".into(),
                    got: Some(format!("{got}  at {:.6}", at.as_secs_f64())),
                    differences: Vec::new(),
                })
            }
        }
    }

    fn inject(&mut self, lane: Lane, spec: &SegmentSpec) -> Result<(), Complaint> {
        for nth in 0..spec.copies {
            let now = self.backend.now();
            let state = self.lanes.get_mut(&lane).ok_or("this subject has no such side")?;
            let segment = state.build(spec, nth, now, &self.variables)?;
            let text = injected_text(lane, state, &segment);
            self.mirror(lane, &segment);
            self.note(text);
            self.backend.inject(lane, &segment.emit())?;
        }
        Ok(())
    }

    /// What one side of a converter sends is what the other side has to get.
    fn mirror(&mut self, lane: Lane, segment: &Segment) {
        let other = match lane {
            Lane::Peer => return,
            Lane::Client => Lane::Server,
            Lane::Server => Lane::Client,
        };
        let Some(isn) = self.lanes.get(&lane).map(|state| state.peer_isn) else { return };
        let at = segment.seq.wrapping_sub(isn.0).wrapping_sub(u32::from(!segment.flags.contains(TcpFlags::SYN)));
        if let Some(state) = self.lanes.get_mut(&other) {
            state.subject_stream.put(u64::from(at), &segment.payload);
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), Complaint> {
        self.note(format!("{action:?}"));
        let state = self.lane(Lane::Peer)?;
        let bytes = match action {
            Action::Write(Written::Pattern { len, pieces }) => state.subject_stream.advance((len * pieces) as usize),
            Action::Write(Written::Text(text)) => {
                let at = state.subject_stream.position;
                state.subject_stream.put(at, text);
                state.subject_stream.advance(text.len())
            }
            _ => Vec::new(),
        };
        let answer = self.backend.act(action, &bytes)?;
        if let Action::Read(read) = action {
            self.judge_read(read, &answer)?;
        }
        Ok(())
    }

    fn judge_read(&mut self, read: &Read, answer: &Answer) -> Result<(), Complaint> {
        let wanted = match read {
            Read::Bytes(count) => Answer::Bytes(self.lane(Lane::Peer)?.peer_stream.advance(*count as usize)),
            Read::Text(text) => {
                self.lane(Lane::Peer)?.peer_stream.position += text.len() as u64;
                Answer::Bytes(text.clone())
            }
            Read::Nothing => Answer::Nothing,
            Read::End => Answer::End,
            Read::Reset => Answer::Reset,
            Read::TimedOut => Answer::TimedOut,
            Read::Unreachable => Answer::Unreachable,
        };
        if wanted == *answer {
            return Ok(());
        }
        let text = |answer: &Answer| match answer {
            Answer::Bytes(bytes) if bytes.len() <= 32 => format!("{} bytes, {bytes:02x?}", bytes.len()),
            Answer::Bytes(bytes) => format!("{} bytes", bytes.len()),
            other => format!("{other:?}"),
        };
        let mut differences = vec![format!("{} is expected, {} came", text(&wanted), text(answer))];
        if let (Answer::Bytes(wanted), Answer::Bytes(got)) = (&wanted, answer)
            && let Some(at) = wanted.iter().zip(got).position(|(wanted, got)| wanted != got)
        {
            differences.push(format!("byte {at} is the first that differs"));
        }
        Err(Complaint { message: "the application reads something else".into(), got: None, differences })
    }

    fn assert(&mut self, assertion: &Assertion) -> Result<(), Complaint> {
        let Some(fact) = self.backend.fact(&assertion.fact) else { return Ok(()) };
        let value = super::parse::amount(&assertion.value)
            .or_else(|| self.backend.word(&assertion.value))
            .ok_or_else(|| format!("`{}` is no number, no time and no state", assertion.value))?;
        let fact = fact?;
        if assertion.relation.holds(fact, value) {
            return Ok(());
        }
        let shown = match assertion.fact.as_str() {
            "rto" | "srtt" => Duration::from_nanos(fact.unsigned_abs()).to_string(),
            _ => fact.to_string(),
        };
        let (name, sign, wanted) = (&assertion.fact, assertion.relation.sign(), &assertion.value);
        Err(Complaint {
            message: "an assertion does not hold".into(),
            got: None,
            differences: vec![format!("{name} {sign} {wanted} is expected, it is {shown}")],
        })
    }

    fn drain(&mut self, until: Duration) -> Result<(), Complaint> {
        while let Some(sent) = self.backend.wait(until)? {
            let packet = packet::read(&sent.packet)?;
            self.take(&sent, &packet)?;
        }
        self.previous = until;
        Ok(())
    }

    fn expect_all(&mut self, when: When, lane: Lane, spec: &SegmentSpec) -> Result<(), Complaint> {
        for nth in 0..spec.copies {
            let when = if nth == 0 { when } else { When::NOW };
            let (sent, packet) = self.next_packet(when)?;
            let Packet::Tcp(seen) = &packet else {
                return Err(self.wrong(&sent, &packet, "something else than a TCP segment was sent", Vec::new()));
            };
            if sent.lane != lane {
                return Err(self.wrong(&sent, &packet, "a segment was sent to the other side", Vec::new()));
            }
            self.take(&sent, &packet)?;
            let state = self.lanes.get(&lane).ok_or("this subject has no such side")?;
            let differences = state.compare(spec, nth, seen, &mut self.variables);
            if !differences.is_empty() {
                return Err(self.wrong(&sent, &packet, "another segment was sent", differences));
            }
            self.in_time(when, &sent, &packet)?;
        }
        Ok(())
    }

    fn expect_icmp(&mut self, when: When, lane: Lane, kind: IcmpKindSpec) -> Result<(), Complaint> {
        let (sent, packet) = self.next_packet(when)?;
        match &packet {
            Packet::Icmp { kind: seen, .. } if *seen == kind && sent.lane == lane => {}
            _ => return Err(self.wrong(&sent, &packet, "something else was sent", Vec::new())),
        }
        self.take(&sent, &packet)?;
        self.in_time(when, &sent, &packet)
    }

    fn window(&self, when: When) -> (Duration, Duration) {
        let base = self.base(when.base);
        let tolerance = when.tolerance.unwrap_or_else(|| self.backend.tolerance());
        let slack = self.backend.slack(when.latest.unwrap_or_default());
        let patience = match self.backend.kind() {
            BackendKind::Mimbox => PATIENCE_MIMBOX,
            BackendKind::Linux => PATIENCE_LINUX,
        };
        let earliest = (base + when.earliest).as_nanos().saturating_sub(tolerance.as_nanos());
        let latest = when.latest.map_or(base + patience, |latest| base + latest + tolerance + slack);
        (Duration::from_nanos(earliest), latest)
    }

    fn next_packet(&mut self, when: When) -> Result<(Sent, Packet), Complaint> {
        let (_, latest) = self.window(when);
        let Some(sent) = self.backend.wait(latest)? else {
            return Err(format!("nothing was sent until {:.6}", latest.as_secs_f64()).into());
        };
        let packet = packet::read(&sent.packet)?;
        Ok((sent, packet))
    }

    fn in_time(&mut self, when: When, sent: &Sent, packet: &Packet) -> Result<(), Complaint> {
        let (earliest, latest) = self.window(when);
        if sent.at < earliest || sent.at > latest {
            let seconds = |time: Duration| format!("{:.6}", time.as_secs_f64());
            let difference =
                format!("{} to {} is expected, {} it was", seconds(earliest), seconds(latest), seconds(sent.at));
            return Err(self.wrong(sent, packet, "the segment came at another time", vec![difference]));
        }
        self.previous = sent.at;
        Ok(())
    }

    /// Takes note of a packet.
    fn take(&mut self, sent: &Sent, packet: &Packet) -> Result<(), Complaint> {
        if let (Packet::Tcp(seen), Some(state)) = (packet, self.lanes.get_mut(&sent.lane)) {
            if sent.lane == Lane::Server && seen.flags == TcpFlags::SYN {
                // The box chose its own port.
                state.ends.to = seen.ends.from;
            }
            let shrunk = state.observe(seen);
            if let Some(message) = shrunk.filter(|_| self.backend.kind() == BackendKind::Mimbox) {
                return Err(self.wrong(sent, packet, &message, Vec::new()));
            }
            let ends = self.lanes.get(&sent.lane).map(|state| state.ends.reversed());
            if ends != Some(seen.ends) {
                return Err(self.wrong(sent, packet, "a segment between other addresses or ports", Vec::new()));
            }
        }
        let text = self.describe(sent, packet);
        self.history.push(format!("{:>10.6}  {text}", sent.at.as_secs_f64()));
        Ok(())
    }

    fn wrong(&self, sent: &Sent, packet: &Packet, message: &str, differences: Vec<String>) -> Complaint {
        let got = format!("{}  at {:.6}", self.describe(sent, packet), sent.at.as_secs_f64());
        Complaint { message: message.into(), got: Some(got), differences }
    }

    fn describe(&self, sent: &Sent, packet: &Packet) -> String {
        let arrow = lane_name(sent.lane);
        match (packet, self.lanes.get(&sent.lane)) {
            (Packet::Tcp(seen), Some(state)) => format!("{arrow}> {}", state.seen_text(seen)),
            (Packet::Icmp { kind, mtu, .. }, _) => format!("{arrow}> icmp {kind:?} mtu {mtu}"),
            _ => format!("{arrow}> a packet of another protocol"),
        }
    }

    fn end(&mut self) -> Result<(), Complaint> {
        let grace = match self.backend.kind() {
            BackendKind::Mimbox => Duration::ZERO,
            BackendKind::Linux => Duration::from_millis(20),
        };
        let until = self.backend.now() + grace;
        self.quiet_until(until)?;
        match self.backend.finish().into_iter().next() {
            Some(complaint) => Err(complaint.into()),
            None => Ok(()),
        }
    }
}

const fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Peer => "",
        Lane::Client => "client",
        Lane::Server => "server",
    }
}

fn injected_text(lane: Lane, state: &State, segment: &Segment) -> String {
    let seq = SeqNum(segment.seq).distance_from(state.peer_isn) as i32;
    let mut text = format!("{}< {} {seq}", lane_name(lane), super::lane::flag_letters(segment.flags));
    if !segment.payload.is_empty() {
        text.push_str(&format!("+{}", segment.payload.len()));
    }
    if segment.flags.contains(TcpFlags::ACK) {
        let ack = SeqNum(segment.ack).distance_from(state.subject_isn.unwrap_or_default()) as i32;
        text.push_str(&format!(" ack {ack}"));
    }
    text.push_str(&format!(" win {}", segment.window));
    text
}
