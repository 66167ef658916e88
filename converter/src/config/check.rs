//! From the written file to a checked [`Config`]: every rule that a configuration must keep stands here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use mimbox_stack::PortId;
use mimbox_stack::time::Duration;
use toml::Spanned;

use super::error::{self, Problem, closest};
use super::file::{self, File, Number, Text};
use super::{Config, ExplicitConfig, InterfaceAddress, PortConfig, Prefix, RouteConfig, TransparentConfig};

mod ports;
mod settings;

/// Ports that a box can have.
const PORTS_MAX: usize = 64;

/// Reads `text` and checks it; on failure every problem that was found, in the order of lines.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let file: File = toml::from_str(text).map_err(|error| vec![error::from_toml(text, &error)])?;
    let mut checker = Checker { text, problems: Vec::new(), names: Vec::new() };
    let config = checker.config(&file);
    if checker.problems.is_empty() {
        Ok(config)
    } else {
        checker.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(checker.problems)
    }
}

/// The file's text, the problems so far, and the names of the ports.
struct Checker<'a> {
    text: &'a str,
    problems: Vec<Problem>,
    names: Vec<String>,
}

impl Checker<'_> {
    fn problem(&mut self, span: Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::at(self.text, span, what.into(), help.into()));
    }

    /// A problem of the file as a whole.
    fn missing(&mut self, what: impl Into<String>, help: impl Into<String>) {
        let (what, help) = (what.into(), help.into());
        self.problems.push(Problem { line: 0, column: 0, source: String::new(), width: 0, what, help });
    }

    fn config(&mut self, file: &File) -> Config {
        let ports = self.ports(&file.port);
        let routes = self.routes(&file.route, &ports);
        let explicit = file.explicit.as_ref().map(|section| self.explicit(section, &ports));
        let transparent = file.transparent.as_ref().map(|section| self.transparent(section, &ports));
        if explicit.is_none() && transparent.is_none() && !ports.is_empty() {
            self.missing(
                "no mode is on: the box would convert nothing",
                "add [explicit] with ports = [\"NAME\"], or [transparent] with from = [\"NAME\"]",
            );
        }
        let policy = self.policy(&file.policy);
        let mptcp = self.mptcp(&file.mptcp);
        let tcp = self.tcp(&file.tcp);
        let worker = self.worker(&file.worker);
        let limits = self.limits(&file.limits, ports.len(), &worker);
        let admin = self.admin(&file.admin);
        Config { ports, routes, explicit, transparent, policy, mptcp, tcp, limits, worker, admin }
    }

    fn routes(&mut self, routes: &[Spanned<file::Route>], ports: &[PortConfig]) -> Vec<RouteConfig> {
        let mut seen: BTreeMap<Prefix, usize> = BTreeMap::new();
        let mut checked = Vec::new();
        for route in routes {
            let place = route.span();
            let route = route.get_ref();
            let (Some(prefix_text), Some(via_text)) = (&route.prefix, &route.via) else {
                self.problem(
                    place,
                    "a [[route]] needs prefix and via",
                    "write prefix = \"0.0.0.0/0\" and via = \"ADDRESS OF THE ROUTER\"",
                );
                continue;
            };
            let prefix = self.prefix(prefix_text);
            let via = self.address(via_text);
            let port = route.port.as_ref().map(|name| self.port_named(name));
            let (Some(prefix), Some(via)) = (prefix, via) else { continue };
            if let Some(first) = seen.insert(prefix, self.line(&prefix_text.span())) {
                self.problem(
                    prefix_text.span(),
                    format!("a route to {prefix} stands in line {first} already"),
                    "keep one of the two",
                );
            }
            if prefix.network().is_ipv4() != via.is_ipv4() {
                self.problem(
                    via_text.span(),
                    format!("the route to {prefix} goes via {via}, which is of the other IP version"),
                    "give the router's address of the same IP version as the prefix",
                );
                continue;
            }
            if let Some(port) = self.next_hop(via, via_text.span(), port, ports) {
                checked.push(RouteConfig { prefix, via, port });
            }
        }
        checked
    }

    /// The port whose link the next hop `via` is on. `wanted` is the port that the route names: `None` when it names
    /// none, `Some(None)` when the name is not known (which has been reported).
    fn next_hop(
        &mut self,
        via: IpAddr,
        place: Range<usize>,
        wanted: Option<Option<PortId>>,
        ports: &[PortConfig],
    ) -> Option<PortId> {
        if ports.iter().any(|port| port.addresses.iter().any(|own| own.addr == via)) {
            self.problem(
                place,
                format!("the next hop {via} is the box's own address"),
                "give the address of the router, not of the box",
            );
            return None;
        }
        let on_link = |port: &&PortConfig| port.addresses.iter().any(|own| own.prefix().contains(via));
        let candidates: Vec<&PortConfig> = ports.iter().filter(on_link).collect();
        match wanted {
            Some(None) => None,
            Some(Some(id)) if candidates.iter().any(|port| port.id == id) => Some(id),
            Some(Some(id)) => {
                let name = self.names.get(usize::from(id.0)).cloned().unwrap_or_default();
                let help = match candidates.first() {
                    Some(port) => format!("it is on the link of port {:?}: write port = {:?}", port.name, port.name),
                    None => format!("give port {name:?} an address in the next hop's network, or mend the next hop"),
                };
                self.problem(place, format!("the next hop {via} is on none of the networks of port {name:?}"), help);
                None
            }
            None => match candidates.as_slice() {
                [] => {
                    self.problem(
                        place,
                        format!("the next hop {via} cannot be reached: it is on no port's network"),
                        "give a port an address in the next hop's network, or mend the next hop",
                    );
                    None
                }
                [port] => Some(port.id),
                [first, second, ..] => {
                    let (first, second) = (first.name.clone(), second.name.clone());
                    self.problem(
                        place,
                        format!("the next hop {via} may be behind port {first:?} or {second:?}"),
                        format!("say which: port = {first:?}"),
                    );
                    None
                }
            },
        }
    }

    fn explicit(&mut self, section: &Spanned<file::Explicit>, ports: &[PortConfig]) -> ExplicitConfig {
        let place = section.span();
        let section = section.get_ref();
        let accepted = self.port_list(section.ports.as_ref(), place.clone(), "[explicit] needs ports", "ports");
        let dst_opt = section.dst_opt.as_ref().and_then(|option| option.get_ref().exid.as_ref());
        let exid = self.number(dst_opt, "exid", 0x4d42, 1..=0xffff) as u16;
        let source = match &section.source {
            Some(list) => self.owned_addresses(list, ports, "source"),
            None => default_source(&accepted, ports),
        };
        if section.source.is_none() && source.is_empty() && ports.iter().any(|port| !port.addresses.is_empty()) {
            self.problem(
                place,
                "[explicit] has no address towards servers: all of the box's are link-local",
                "give a port towards servers an address that they can answer to",
            );
        }
        let announce = section.announce.as_ref().map(|list| self.owned_addresses(list, ports, "announce"));
        ExplicitConfig { ports: accepted, exid, source, announce: announce.unwrap_or_default() }
    }

    fn transparent(&mut self, section: &Spanned<file::Transparent>, ports: &[PortConfig]) -> TransparentConfig {
        let place = section.span();
        let section = section.get_ref();
        let from = self.port_list(section.from.as_ref(), place, "[transparent] needs from", "from");
        let announce = match &section.announce {
            Some(list) => self.owned_addresses(list, ports, "announce"),
            None => addresses_of(ports, |port| from.contains(&port.id)),
        };
        TransparentConfig { from, announce }
    }

    /// A list of port names as port numbers.
    fn port_list(
        &mut self,
        list: Option<&Spanned<Vec<Text>>>,
        section: Range<usize>,
        needs: &str,
        key: &str,
    ) -> Vec<PortId> {
        let Some(list) = list.filter(|list| !list.get_ref().is_empty()) else {
            let place = list.map_or(section, Spanned::span);
            self.problem(
                place,
                format!("{needs}: the names of one or more ports"),
                format!("write {key} = [\"NAME\"]"),
            );
            return Vec::new();
        };
        let mut ids = Vec::new();
        for name in list.get_ref() {
            match self.port_named(name) {
                Some(id) if ids.contains(&id) => {
                    self.problem(name.span(), format!("port {:?} is named twice", name.get_ref()), "name it once");
                }
                Some(id) => ids.push(id),
                None => {}
            }
        }
        ids
    }

    /// A list of addresses each of which must be the box's.
    fn owned_addresses(&mut self, list: &Spanned<Vec<Text>>, ports: &[PortConfig], key: &str) -> Vec<IpAddr> {
        if list.get_ref().is_empty() && key == "source" {
            self.problem(
                list.span(),
                "the list of source addresses is empty",
                "name addresses of the box, or leave the key out to use those of the ports towards servers",
            );
        }
        let mut checked = Vec::new();
        for text in list.get_ref() {
            let Some(addr) = self.address(text) else { continue };
            if checked.contains(&addr) {
                self.problem(text.span(), format!("{addr} is named twice"), "name it once");
            } else if ports.iter().any(|port| port.addresses.iter().any(|own| own.addr == addr)) {
                checked.push(addr);
            } else {
                self.problem(
                    text.span(),
                    format!("{addr} in {key} is not an address of the box"),
                    "add it to the addresses of a [[port]], or name one that stands there",
                );
            }
        }
        checked
    }

    /// The port of this name.
    fn port_named(&mut self, name: &Text) -> Option<PortId> {
        let word = name.get_ref();
        if let Some(index) = self.names.iter().position(|known| known == word) {
            return Some(PortId(index as u8));
        }
        let help = match closest(word, self.names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None if self.names.is_empty() => "define a [[port]] with that name".to_owned(),
            None => format!("the ports are {}", quoted(self.names.iter().map(String::as_str))),
        };
        self.problem(name.span(), format!("no port has the name {word:?}"), help);
        None
    }

    fn address(&mut self, text: &Text) -> Option<IpAddr> {
        let parsed = text.get_ref().parse::<IpAddr>();
        if parsed.is_err() {
            let help = if text.get_ref().contains('/') {
                "leave out the prefix length"
            } else {
                "write an address such as 192.0.2.1 or 2001:db8::1"
            };
            self.problem(text.span(), format!("{:?} is not an IP address", text.get_ref()), help);
        }
        parsed.ok()
    }

    /// An address with a prefix length.
    fn address_and_length(&mut self, text: &Text) -> Option<InterfaceAddress> {
        let word = text.get_ref();
        let Some((addr, len)) = word.split_once('/') else {
            let (what, help) = match word.parse::<IpAddr>() {
                Ok(addr) => {
                    let len = if addr.is_ipv4() { 24 } else { 64 };
                    (
                        "has no prefix length",
                        format!("write {:?}, with the length that your network has", format!("{addr}/{len}")),
                    )
                }
                Err(_) => ("is not an address with a prefix length", "write 192.0.2.1/24 or 2001:db8::1/64".to_owned()),
            };
            self.problem(text.span(), format!("{word:?} {what}"), help);
            return None;
        };
        let Ok(addr) = addr.parse::<IpAddr>() else {
            self.problem(
                text.span(),
                format!("{addr:?} is not an IP address"),
                "write an address such as 192.0.2.1 or 2001:db8::1 before the slash",
            );
            return None;
        };
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        match len.parse::<u8>().ok().filter(|len| *len <= longest) {
            Some(prefix_len) => Some(InterfaceAddress { addr, prefix_len }),
            None => {
                self.problem(
                    text.span(),
                    format!("{len:?} is not a prefix length of an IPv{} address", if addr.is_ipv4() { 4 } else { 6 }),
                    format!("write a number from 0 to {longest} behind the slash"),
                );
                None
            }
        }
    }

    /// A network: no bit may be set behind the prefix length.
    fn prefix(&mut self, text: &Text) -> Option<Prefix> {
        let InterfaceAddress { addr, prefix_len } = self.address_and_length(text)?;
        let prefix = Prefix::of(addr, prefix_len)?;
        if prefix.network() != addr {
            self.problem(
                text.span(),
                format!("{addr}/{prefix_len} is not a network: bits behind the prefix length are set"),
                format!(
                    "write \"{prefix}\", or \"{addr}/{}\" for the one address",
                    if addr.is_ipv4() { 32 } else { 128 }
                ),
            );
            return None;
        }
        Some(prefix)
    }

    /// A number in `range`, `default` when the key is absent or wrong.
    fn number(&mut self, value: Option<&Number>, key: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let Some(value) = value else { return default };
        match u64::try_from(*value.get_ref()).ok().filter(|number| range.contains(number)) {
            Some(number) => number,
            None => {
                let (low, high) = (range.start(), range.end());
                self.problem(
                    value.span(),
                    format!("{key} = {} is out of range", value.get_ref()),
                    format!("write a number from {low} to {high}; without the key it is {default}"),
                );
                default
            }
        }
    }

    /// A span of time such as "200ms" in `range`, `default` when the key is absent or wrong.
    fn duration(
        &mut self,
        value: Option<&Text>,
        key: &str,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let Some(text) = value else { return default };
        let (low, high) = (duration_text(*range.start()), duration_text(*range.end()));
        match parse_duration(text.get_ref()) {
            Some(span) if range.contains(&span) => return span,
            Some(_) => self.problem(
                text.span(),
                format!("{key} = {:?} is out of range", text.get_ref()),
                format!("write a time from {low} to {high}; without the key it is {}", duration_text(default)),
            ),
            None => self.problem(
                text.span(),
                format!("{key} = {:?} is not a time", text.get_ref()),
                format!("write a whole number with a unit (us, ms, s, m, h), such as {:?}", duration_text(default)),
            ),
        }
        default
    }

    /// One of a fixed set of words.
    fn choice<T: Copy>(
        &mut self,
        value: Option<&Text>,
        key: &str,
        default: T,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> T {
        let Some(text) = value else { return default };
        if let Some(choice) = all.iter().find(|choice| name(**choice) == text.get_ref()) {
            return *choice;
        }
        let help = match closest(text.get_ref(), all.iter().map(|choice| name(*choice))) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {}", quoted(all.iter().map(|choice| name(*choice)))),
        };
        self.problem(text.span(), format!("{key} = {:?} is not known", text.get_ref()), help);
        default
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.text[..span.start.min(self.text.len())].matches('\n').count() + 1
    }
}

/// The addresses of the ports that lead to servers: all but those in `accepted`, unless that leaves none.
fn default_source(accepted: &[PortId], ports: &[PortConfig]) -> Vec<IpAddr> {
    let outside = addresses_of(ports, |port| !accepted.contains(&port.id));
    if outside.is_empty() { addresses_of(ports, |_| true) } else { outside }
}

fn addresses_of(ports: &[PortConfig], wanted: impl Fn(&PortConfig) -> bool) -> Vec<IpAddr> {
    ports
        .iter()
        .filter(|port| wanted(port))
        .flat_map(|port| port.addresses.iter().map(|own| own.addr))
        .filter(|addr| !is_link_local(*addr))
        .collect()
}

/// True for addresses that mean something on one link only.
fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Words in quotation marks, with commas between them.
fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];

/// Reads "200ms", "5s", "15m".
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*nanos).map(Duration::from_nanos)
}

/// A span of time as [`parse_duration`] reads it, in the largest unit that shows it whole.
pub(super) fn duration_text(span: Duration) -> String {
    let nanos = span.as_nanos();
    let whole = UNITS.iter().find(|(_, unit)| nanos.is_multiple_of(*unit) && nanos >= *unit);
    let (name, unit) = whole.copied().unwrap_or(("us", 1_000));
    format!("{}{name}", nanos / unit)
}
