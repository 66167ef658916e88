//! The rules for settings that stand for themselves: protocols, limits, worker, admin, policy.

use std::path::PathBuf;

use mimbox_stack::time::Duration;
use toml::Spanned;

use super::{Checker, quoted};
use crate::config::file::{self, Text};
use crate::config::{
    AdminConfig, Congestion, DEFAULT_SOCKET, LimitsConfig, MptcpConfig, PolicyConfig, PolicyRule, Prefix, Scheduler,
    TcpConfig, Wait, WorkerConfig,
};

/// Longest path of a Unix socket (`sun_path` less its end).
const SOCKET_PATH_MAX: usize = 107;

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Checker<'_> {
    pub(super) fn policy(&mut self, section: &file::Policy) -> PolicyConfig {
        PolicyConfig {
            clients: self.prefixes(section.clients.as_ref()),
            allow: self.prefixes(section.allow.as_ref()),
            deny: self.prefixes(section.deny.as_ref()),
            rules: section.rule.iter().map(|rule| self.rule(rule)).collect(),
        }
    }

    fn rule(&mut self, section: &Spanned<file::Rule>) -> PolicyRule {
        let place = section.span();
        let section = section.get_ref();
        let rule = PolicyRule {
            clients: self.prefixes(section.clients.as_ref()),
            servers: self.prefixes(section.servers.as_ref()),
            ports: self.server_ports(section.ports.as_ref()),
            scheduler: section.scheduler.as_ref().map(|text| self.scheduler(Some(text))),
            congestion: section.congestion.as_ref().map(|text| self.congestion(Some(text))),
            subflows: section.subflows.as_ref().map(|n| self.number(Some(n), "subflows", 8, 1..=8) as u8),
            announce: section.announce.as_ref().map(|n| self.number(Some(n), "announce", 8, 0..=8) as u8),
        };
        let file::Rule { clients: _, servers: _, ports: _, scheduler, congestion, subflows, announce } = section;
        if scheduler.is_none() && congestion.is_none() && subflows.is_none() && announce.is_none() {
            self.problem(
                place,
                "the [[policy.rule]] changes nothing",
                "say what is different: scheduler, congestion, subflows or announce",
            );
        }
        rule
    }

    fn server_ports(&mut self, list: Option<&Spanned<Vec<file::Number>>>) -> Vec<u16> {
        let list = list.map(|list| list.get_ref().as_slice()).unwrap_or_default();
        list.iter().map(|port| self.number(Some(port), "ports", 443, 1..=65_535) as u16).collect()
    }

    fn prefixes(&mut self, list: Option<&Spanned<Vec<Text>>>) -> Vec<Prefix> {
        let list = list.map(|list| list.get_ref().as_slice()).unwrap_or_default();
        list.iter().filter_map(|text| self.prefix(text)).collect()
    }

    pub(super) fn mptcp(&mut self, section: &file::Mptcp) -> MptcpConfig {
        MptcpConfig {
            enabled: section.enabled.unwrap_or(true),
            version0: section.version0.unwrap_or(false),
            scheduler: self.scheduler(section.scheduler.as_ref()),
            congestion: self.congestion(section.congestion.as_ref()),
            subflows: self.number(section.subflows.as_ref(), "subflows", 8, 1..=8) as u8,
            announce: self.number(section.announce.as_ref(), "announce", 8, 0..=8) as u8,
            checksum: section.checksum.unwrap_or(false),
            ask_backup: section.ask_backup.unwrap_or(true),
            no_subflow_timeout: self.duration(
                section.no_subflow_timeout.as_ref(),
                "no_subflow_timeout",
                secs(60),
                secs(1)..=secs(3600),
            ),
        }
    }

    pub(super) fn tcp(&mut self, section: &file::Tcp) -> TcpConfig {
        let min_rto = self.duration(section.min_rto.as_ref(), "min_rto", millis(200), millis(1)..=secs(10));
        let max_rto = self.duration(section.max_rto.as_ref(), "max_rto", secs(120), secs(1)..=secs(600));
        if let Some(text) = section.max_rto.as_ref().or(section.min_rto.as_ref()).filter(|_| min_rto > max_rto) {
            self.problem(text.span(), "max_rto is shorter than min_rto", "make max_rto the longer one");
        }
        TcpConfig {
            congestion: self.plain_congestion(section.congestion.as_ref()),
            initial_window: self.number(section.initial_window.as_ref(), "initial_window", 10, 1..=100) as u8,
            min_rto,
            max_rto,
            // RFC 9293 §3.8.6.3: an acknowledgement is delayed by less than 0.5 s.
            delayed_ack: self.duration(
                section.delayed_ack.as_ref(),
                "delayed_ack",
                millis(40),
                millis(1)..=millis(499),
            ),
            user_timeout: self.duration(
                section.user_timeout.as_ref(),
                "user_timeout",
                secs(900),
                secs(1)..=secs(86_400),
            ),
            keepalive: self.keepalive(section.keepalive.as_ref()),
            time_wait: self.duration(section.time_wait.as_ref(), "time_wait", secs(60), secs(1)..=secs(240)),
            timestamps: section.timestamps.unwrap_or(true),
            sack: section.sack.unwrap_or(true),
            ecn: section.ecn.unwrap_or(false),
            pacing: section.pacing.unwrap_or(false),
        }
    }

    fn keepalive(&mut self, text: Option<&Text>) -> Option<Duration> {
        if text.is_some_and(|text| text.get_ref() == "off") {
            return None;
        }
        Some(self.duration(text, "keepalive", secs(7200), secs(1)..=secs(604_800)))
    }

    fn scheduler(&mut self, text: Option<&Text>) -> Scheduler {
        self.choice(text, "scheduler", Scheduler::LowestRtt, Scheduler::ALL, Scheduler::name)
    }

    fn congestion(&mut self, text: Option<&Text>) -> Congestion {
        self.choice(text, "congestion", Congestion::Cubic, Congestion::ALL, Congestion::name)
    }

    /// Congestion control of a connection that has no subflows to couple.
    fn plain_congestion(&mut self, text: Option<&Text>) -> Congestion {
        let plain = [Congestion::Cubic, Congestion::NewReno, Congestion::Bbr];
        match text.filter(|text| Congestion::ALL.iter().any(|c| c.name() == text.get_ref() && !plain.contains(c))) {
            Some(text) => {
                self.problem(
                    text.span(),
                    format!("congestion = {:?} couples subflows, which plain TCP does not have", text.get_ref()),
                    format!("write one of {} here", quoted(plain.iter().map(|c| c.name()))),
                );
                Congestion::Cubic
            }
            None => self.choice(text, "congestion", Congestion::Cubic, &plain, Congestion::name),
        }
    }

    pub(super) fn worker(&mut self, section: &file::Worker) -> WorkerConfig {
        let mut ring = self.number(section.ring.as_ref(), "ring", 2048, 64..=32_768) as u32;
        if let Some(value) = section.ring.as_ref().filter(|_| !ring.is_power_of_two()) {
            self.problem(
                value.span(),
                format!("ring = {ring} is not a power of two"),
                format!("write {} or {}", ring.next_power_of_two() / 2, ring.next_power_of_two()),
            );
            ring = ring.next_power_of_two();
        }
        WorkerConfig {
            wait: self.choice(section.wait.as_ref(), "wait", Wait::Sleep, Wait::ALL, Wait::name),
            cpu: section.cpu.as_ref().map(|cpu| self.number(Some(cpu), "cpu", 0, 0..=1023) as u16),
            batch: self.number(section.batch.as_ref(), "batch", 64, 1..=512) as u16,
            ring,
            drain: self.duration(section.drain.as_ref(), "drain", secs(5), millis(1)..=secs(3600)),
            next_hop_wait: self.duration(
                section.next_hop_wait.as_ref(),
                "next_hop_wait",
                secs(10),
                millis(1)..=secs(3600),
            ),
        }
    }

    pub(super) fn limits(&mut self, section: &file::Limits, ports: usize, worker: &WorkerConfig) -> LimitsConfig {
        let frames = self.number(section.frames.as_ref(), "frames", 65_536, 1024..=4_194_304) as u32;
        let frame_size = self.frame_size(section.frame_size.as_ref());
        let reserve_default = u64::from(frames / 8);
        let rx_reserve =
            self.number(section.rx_reserve.as_ref(), "rx_reserve", reserve_default, 64..=u64::from(frames / 2)) as u32;
        let ceiling_default = u64::from((frames / 8).min(4096));
        let window_ceiling = self.number(
            section.window_ceiling.as_ref(),
            "window_ceiling",
            ceiling_default,
            16..=u64::from((frames / 2).min(65_535)),
        ) as u32;
        let floor_default = u64::from(window_ceiling.min(64));
        let window_floor = self.number(section.window_floor.as_ref(), "window_floor", floor_default, 8..=65_535) as u32;
        if window_floor > window_ceiling
            && let Some(place) = section.window_floor.as_ref().or(section.window_ceiling.as_ref()).map(Spanned::span)
        {
            self.problem(
                place,
                format!("window_floor = {window_floor} is above window_ceiling = {window_ceiling}"),
                "make window_ceiling the larger one",
            );
        }
        // A port holds at most a full fill ring and a full TX ring.
        let needed = ports as u64 * 2 * u64::from(worker.ring) + u64::from(rx_reserve) + u64::from(window_floor);
        if needed > u64::from(frames) {
            let what =
                format!("{frames} frames are too few: {ports} ports with rings of {} need {needed}", worker.ring);
            let help =
                format!("set frames to {} or more, or make ring in [worker] smaller", needed.next_power_of_two());
            match section.frames.as_ref().map(Spanned::span) {
                Some(place) => self.problem(place, what, help),
                None => self.missing(what, help),
            }
        }
        self.records(section, frames, frame_size, [rx_reserve, window_floor, window_ceiling])
    }

    fn records(
        &mut self,
        section: &file::Limits,
        frames: u32,
        frame_size: u32,
        [rx_reserve, window_floor, window_ceiling]: [u32; 3],
    ) -> LimitsConfig {
        let half_open = self.number(section.half_open.as_ref(), "half_open", 16_384, 16..=1_048_576);
        let per_source = half_open.min(1024);
        LimitsConfig {
            conversions: self.number(section.conversions.as_ref(), "conversions", 100_000, 1..=4_000_000) as u32,
            half_open: half_open as u32,
            half_open_per_source: self.number(
                section.half_open_per_source.as_ref(),
                "half_open_per_source",
                per_source,
                1..=half_open,
            ) as u32,
            // A client's SYNs come at most 64 s apart.
            half_open_timeout: self.duration(
                section.half_open_timeout.as_ref(),
                "half_open_timeout",
                secs(75),
                secs(1)..=secs(600),
            ),
            time_wait: self.number(section.time_wait.as_ref(), "time_wait", 65_536, 0..=4_000_000) as u32,
            neighbours: self.number(section.neighbours.as_ref(), "neighbours", 4096, 8..=65_536) as u32,
            frames,
            frame_size,
            rx_reserve,
            window_floor,
            window_ceiling,
        }
    }

    fn frame_size(&mut self, value: Option<&file::Number>) -> u32 {
        match value.map(|value| (*value.get_ref(), value.span())) {
            None | Some((2048, _)) => 2048,
            Some((4096, _)) => 4096,
            Some((other, place)) => {
                self.problem(place, format!("frame_size = {other} is not possible"), "write 2048 or 4096");
                2048
            }
        }
    }

    pub(super) fn admin(&mut self, section: &file::Admin) -> AdminConfig {
        let Some(text) = &section.socket else { return AdminConfig { socket: PathBuf::from(DEFAULT_SOCKET) } };
        let path = text.get_ref();
        if !path.starts_with('/') || path.ends_with('/') || path.len() > SOCKET_PATH_MAX {
            self.problem(
                text.span(),
                format!("{path:?} cannot be the admin socket's path"),
                format!("write an absolute path of at most {SOCKET_PATH_MAX} bytes, such as {DEFAULT_SOCKET:?}"),
            );
        }
        AdminConfig { socket: PathBuf::from(path) }
    }
}
