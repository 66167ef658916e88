//! Congestion control that couples the subflows of a connection: LIA (RFC 6356), OLIA
//! (draft-khalili-mptcp-congestion-control-05) and Balia (draft-walid-mptcp-congestion-control-04).
//!
//! Each differs from NewReno in how much an acknowledgment grows a subflow's window in congestion avoidance, Balia also in
//! what a loss takes away. Both numbers depend on windows and round-trip times of all subflows; they are computed here and
//! handed to the subflows' connections ([`Conn::set_coupling`](mimbox_stack::tcp::Conn::set_coupling)), which run
//! [`CcKind::Coupled`](mimbox_stack::tcp::CcKind::Coupled). Growth is expressed as a share of NewReno's, so that segment
//! sizes and acknowledged bytes stay the connection's affair.

use arrayvec::ArrayVec;
use mimbox_stack::tcp::{ConnTable, Coupling};

use crate::connection::Connection;
use crate::limits::MAX_SUBFLOWS;

/// How the subflows' windows depend on each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Coupled {
    /// Not at all: each subflow is a TCP connection of its own. The most throughput, and unfair to single-path connections
    /// where subflows share a bottleneck.
    #[default]
    No,
    /// RFC 6356: in sum as fast as the best path alone would be.
    Lia,
    /// Opportunistic linked increases: as LIA, but moves traffic to the less congested path.
    Olia,
    /// Balanced linked adaptation: between LIA's responsiveness and OLIA's fairness.
    Balia,
}

/// What is remembered of a subflow between losses, for OLIA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LossHistory {
    /// Loss events that have been seen.
    losses: u32,
    /// Bytes acknowledged when the last one happened.
    acked_at_loss: u64,
    /// Bytes acknowledged between the last two.
    between: u64,
    /// Whole segments of the window when the numbers were last computed.
    segments: u32,
}

impl LossHistory {
    /// Notes where the subflow stands; true when that changes what the others may do.
    fn update(&mut self, losses: u32, acked: u64, segments: u32) -> bool {
        let lost = losses != self.losses;
        if lost {
            self.losses = losses;
            self.between = acked.saturating_sub(self.acked_at_loss);
            self.acked_at_loss = acked;
        }
        // RFC 6356 §4.1: computing once per segment that the window has grown by is often enough.
        let changed = lost || segments != self.segments;
        self.segments = segments;
        changed
    }

    /// The smoothed number of bytes between losses (OLIA §2, l_r).
    fn bytes(&self, acked: u64) -> u64 {
        self.between.max(acked.saturating_sub(self.acked_at_loss))
    }
}

/// A subflow as the algorithms see it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct PathState {
    /// Congestion window in bytes.
    pub(crate) cwnd: f64,
    /// Smoothed round-trip time in seconds; never zero.
    pub(crate) rtt: f64,
    /// OLIA's l_r: bytes between losses.
    pub(crate) between_losses: f64,
}

impl PathState {
    fn rate(&self) -> f64 {
        self.cwnd / self.rtt
    }
}

/// The numbers for each of `paths`, in their order.
pub(crate) fn couple(kind: Coupled, paths: &[PathState]) -> ArrayVec<Coupling, MAX_SUBFLOWS> {
    let count = paths.len().min(MAX_SUBFLOWS);
    let paths = &paths[..count];
    // With one path all of them are NewReno.
    if kind == Coupled::No || count < 2 {
        return paths.iter().map(|_| Coupling::default()).collect();
    }
    match kind {
        Coupled::No | Coupled::Lia => lia(paths),
        Coupled::Olia => olia(paths),
        Coupled::Balia => balia(paths),
    }
}

fn total_rate(paths: &[PathState]) -> f64 {
    paths.iter().map(PathState::rate).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// RFC 6356 §3: min(alpha * acked * MSS / cwnd_total, acked * MSS / cwnd_i), alpha by equation (2).
fn lia(paths: &[PathState]) -> ArrayVec<Coupling, MAX_SUBFLOWS> {
    let total = total_rate(paths);
    let best = paths.iter().map(|path| path.cwnd / (path.rtt * path.rtt)).fold(0.0, f64::max);
    // alpha / cwnd_total: the total itself cancels out.
    let per_byte = best / (total * total);
    let share = |path: &PathState| Coupling { increase: (path.cwnd * per_byte).min(1.0) as f32, ..Coupling::default() };
    paths.iter().map(share).collect()
}

/// OLIA §3, equation (1), times w_r; a loss is NewReno's with a threshold of one segment.
fn olia(paths: &[PathState]) -> ArrayVec<Coupling, MAX_SUBFLOWS> {
    let total = total_rate(paths);
    let quality = |path: &PathState| path.between_losses * path.between_losses / path.rtt;
    let best = paths.iter().map(quality).fold(0.0, f64::max);
    let widest = paths.iter().map(|path| path.cwnd).fold(0.0, f64::max);
    let is_widest = |path: &PathState| path.cwnd >= widest;
    let is_collected = |path: &PathState| quality(path) >= best && !is_widest(path);
    let (widest_paths, collected) =
        (paths.iter().filter(|p| is_widest(p)).count(), paths.iter().filter(|p| is_collected(p)).count());
    let count = paths.len() as f64;
    let alpha = |path: &PathState| match collected {
        0 => 0.0,
        n if is_collected(path) => 1.0 / (count * n as f64),
        _ if is_widest(path) => -1.0 / (count * widest_paths.max(1) as f64),
        _ => 0.0,
    };
    let share = |path: &PathState| {
        let linked = path.rate() / total;
        Coupling { increase: (linked * linked + alpha(path)) as f32, decrease: 0.5, floor: 1 }
    };
    paths.iter().map(share).collect()
}

/// Balia §2, the increase times w_r.
fn balia(paths: &[PathState]) -> ArrayVec<Coupling, MAX_SUBFLOWS> {
    let total = total_rate(paths);
    let fastest = paths.iter().map(PathState::rate).fold(0.0, f64::max);
    let share = |path: &PathState| {
        let rate = path.rate();
        let linked = rate / total;
        let alpha = fastest / rate.max(f64::MIN_POSITIVE);
        let increase = linked * linked * (1.0 + alpha) / 2.0 * (4.0 + alpha) / 5.0;
        Coupling { increase: increase as f32, decrease: (alpha.min(1.5) / 2.0) as f32, floor: 1 }
    };
    paths.iter().map(share).collect()
}

impl Connection {
    /// True when the subflows' connections are to run [`CcKind::Coupled`](mimbox_stack::tcp::CcKind::Coupled).
    pub fn couples_congestion(&self) -> bool {
        self.config.coupled != Coupled::No
    }

    /// The window of subflow `index` may have changed: computes everybody's numbers anew when it did.
    pub(crate) fn recouple(&mut self, index: usize, conns: &mut ConnTable) {
        if self.config.coupled == Coupled::No {
            return;
        }
        let subflow = &mut self.subflows[index];
        let Some(conn) = conns.get(subflow.id) else { return };
        let segments = conn.cwnd() / u32::from(conn.sending_mss().max(1));
        let changed = subflow.loss_history.update(conn.loss_events(), conn.bytes_acked(), segments);
        let working = self.subflows.iter().filter(|subflow| subflow.takes_data() && !subflow.stale).count() as u8;
        if changed || working != self.coupled_paths {
            self.coupled_paths = working;
            self.recouple_all(conns);
        }
    }

    /// Computes the numbers of all subflows that carry data and have been measured.
    fn recouple_all(&mut self, conns: &mut ConnTable) {
        let mut members: ArrayVec<(usize, PathState), MAX_SUBFLOWS> = ArrayVec::new();
        for (index, subflow) in self.subflows.iter().enumerate().filter(|(_, subflow)| subflow.takes_data()) {
            let Some(conn) = conns.get(subflow.id) else { continue };
            let rtt = conn.srtt().as_secs_f64();
            // What has not been measured, or is silent, has no rate that the others would have to give way to.
            if rtt > 0.0 && !subflow.stale {
                let between_losses = subflow.loss_history.bytes(conn.bytes_acked()) as f64;
                let state = PathState { cwnd: f64::from(conn.cwnd().max(1)), rtt, between_losses };
                if members.try_push((index, state)).is_err() {
                    break;
                }
            }
        }
        let states: ArrayVec<PathState, MAX_SUBFLOWS> = members.iter().map(|member| member.1).collect();
        for ((index, _), coupling) in members.iter().zip(couple(self.config.coupled, &states)) {
            if let Some(mut conn) = conns.get(self.subflows[*index].id) {
                conn.set_coupling(coupling);
            }
        }
    }
}

#[cfg(test)]
mod tests;
