//! How a host's connections begin: clients connect and join, servers accept.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use mimbox_mptcp::{AcceptParams, ConnectParams, Connection, Event, MptcpConfig, Version, capable_in_syn, join_in_syn};
use mimbox_stack::options::kind;
use mimbox_stack::tcp::{ConnSetup, Offer, Opening, SynSeen, TcpConfig, TsOffer};
use mimbox_stack::{Duration, FlowKey, Instant, Outgoing, SegmentIn, SeqNum, TcpFlags};

use super::half::Half;
use super::port::HostPort;
use super::session::{Lane, Session};
use super::{Host, Owner};
use crate::sim::node::End;
use crate::sim::peer::server_of;
use crate::sim::plan::{App, Ended, Plan, Speaks, Target};

/// Which end of its connections a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It connects.
    Client,
    /// It accepts, by MPTCP when asked to.
    Server,
}

impl Role {
    /// The end that it is.
    pub(crate) const fn end(self) -> End {
        match self {
            Self::Client => End::Client,
            Self::Server => End::Server,
        }
    }
}

/// How a client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addressing {
    /// It addresses the server.
    Server,
    /// It addresses the box and names the server in the destination option with this experiment identifier.
    Box {
        /// The box's address.
        address: Ipv4Addr,
        /// The experiment identifier (RFC 6994).
        exid: u16,
    },
    /// All servers are one host that runs this stack.
    Host {
        /// The host's address.
        address: Ipv4Addr,
    },
}

/// The first port that a host listens on; connection `i` has port `FIRST_PORT + i`.
const FIRST_PORT: u16 = 2_000;
/// The first port that clients connect from.
pub(super) const FIRST_LOCAL_PORT: u16 = 20_000;
/// The last port that clients connect from.
const LAST_LOCAL_PORT: u16 = 60_000;
/// Bytes of the IPv4 and TCP headers without options.
const HEADERS: u16 = 40;

/// How long a client waits before it tries again to join.
const JOIN_AGAIN: Duration = Duration::from_millis(50);

/// The connections of `plans` that a host in this role starts or waits for.
pub(super) fn mine(plans: &[Plan], role: Role) -> Vec<usize> {
    let is_mine = |plan: &Plan| match role {
        Role::Client => plan.speaks != Speaks::ForeignTcp,
        Role::Server => plan.target == Target::Listening,
    };
    plans.iter().enumerate().filter(|(_, plan)| is_mine(plan)).map(|(index, _)| index).collect()
}

impl Host {
    /// When the next client starts by itself; none does before the first neighbour is known.
    pub(super) fn next_start(&self) -> Option<Instant> {
        let ready = self.role == Role::Client && self.ports.first().is_some_and(HostPort::is_ready);
        let next = self.to_start.last().and_then(|&index| self.plans.get(index));
        next.filter(|_| ready).map(|plan| plan.start)
    }

    /// Starts the clients whose time has come.
    pub(super) fn start_due(&mut self, now: Instant) {
        while self.next_start().is_some_and(|at| at <= now) {
            let Some(index) = self.to_start.pop() else { return };
            self.start(now, index);
        }
    }

    fn start(&mut self, now: Instant, plan_index: usize) {
        let Some(plan) = self.plans.get(plan_index).copied() else { return };
        let remote = self.remote_of(plan_index);
        let flow = self.flow_from(0, remote);
        let session_index = self.sessions.len();
        let mut session = Session::new(plan_index, App::client(&plan));
        let opening = Opening::Connect { iss: SeqNum(self.res.rng.next_u32()), offer: self.offer() };
        let setup = ConnSetup { owner: session_index as u64, flow, opening, config: self.tcp_config(plan.speaks) };
        let Some(id) = self.conns.insert(now, setup, &mut self.res.env()) else {
            session.end(Ended::Failed);
            self.sessions.push(session);
            return;
        };
        session.half = match plan.speaks {
            Speaks::Mptcp => {
                let params = ConnectParams {
                    local_key: self.res.rng.next_u64(),
                    conn: id,
                    version: Version::V1,
                    config: self.mptcp_config(),
                    local: flow.local,
                    local_port: flow.local_port,
                    remote: flow.remote,
                    remote_port: flow.remote_port,
                };
                Half::Mptcp(Box::new(Connection::connect(now, params, &mut self.conns, &mut self.res.env())))
            }
            Speaks::Tcp | Speaks::ForeignTcp => Half::Tcp(id),
        };
        session.lanes.push(Lane { id, flow, port: 0 });
        self.flows.insert(flow, Owner { id, session: session_index });
        self.sessions.push(session);
        self.touch(session_index);
    }

    fn remote_of(&self, plan: usize) -> SocketAddrV4 {
        match self.addressing {
            Addressing::Server => server_of(plan),
            Addressing::Box { address, .. } => SocketAddrV4::new(address, server_of(plan).port()),
            Addressing::Host { address } => SocketAddrV4::new(address, FIRST_PORT + plan as u16),
        }
    }

    fn flow_from(&mut self, port: usize, remote: SocketAddrV4) -> FlowKey {
        let local = self.ports.get(port).map_or(Ipv4Addr::UNSPECIFIED, |port| port.address);
        loop {
            let local_port = self.next_port;
            self.next_port = if local_port == LAST_LOCAL_PORT { FIRST_LOCAL_PORT } else { local_port + 1 };
            let flow = FlowKey {
                local: IpAddr::V4(local),
                remote: IpAddr::V4(*remote.ip()),
                local_port,
                remote_port: remote.port(),
            };
            if !self.flows.contains_key(&flow) && !self.resting.contains_key(&flow) {
                return flow;
            }
        }
    }

    fn offer(&mut self) -> Offer {
        let options = &self.options;
        Offer {
            mss: options.mtu - HEADERS,
            window_scale: Some(options.window_scale),
            sack: options.sack,
            timestamps: options.timestamps.then(|| TsOffer { offset: self.res.rng.next_u32() }),
            ecn: false,
            rcv_wnd: options.receive_buffer.min(u32::from(u16::MAX)),
        }
    }

    fn tcp_config(&self, speaks: Speaks) -> TcpConfig {
        let upper_reserve = if speaks == Speaks::Mptcp { MptcpConfig::UPPER_RESERVE } else { 0 };
        let keepalive = Some(self.options.keepalive);
        TcpConfig { mtu: self.options.mtu, upper_reserve, keepalive, ..TcpConfig::default() }
    }

    fn mptcp_config(&self) -> MptcpConfig {
        MptcpConfig { checksum: self.options.checksum, ..MptcpConfig::default() }
    }

    /// Puts the destination option on a client's first SYN.
    pub(super) fn decorate(&self, session: usize, mut segment: Outgoing) -> Outgoing {
        let Addressing::Box { exid, .. } = self.addressing else { return segment };
        let Some(session) = self.sessions.get(session) else { return segment };
        let first = segment.flags.contains(TcpFlags::SYN) && session.lanes.len() == 1 && session.app.opened.is_none();
        if first {
            let server = server_of(session.plan);
            let [exid_high, exid_low] = exid.to_be_bytes();
            let [port_high, port_low] = server.port().to_be_bytes();
            let [a, b, c, d] = server.ip().octets();
            let option = [kind::EXPERIMENT_1, 10, exid_high, exid_low, a, b, c, d, port_high, port_low];
            let added = segment.upper.try_extend_from_slice(&option);
            debug_assert!(added.is_ok(), "a SYN has room for the destination option");
        }
        segment
    }

    /// Takes an event of an MPTCP half.
    pub(super) fn on_event(&mut self, now: Instant, index: usize, event: &Event) {
        let join_after = self.options.join_after;
        let Some(session) = self.sessions.get_mut(index) else { return };
        match event {
            Event::Established if self.role == Role::Client && self.ports.len() > 1 => {
                session.join_at = Some(now + join_after);
                session.leave_at = self.options.leave_after.map(|after| now + after);
            }
            Event::PeerAnnounced { addr: IpAddr::V4(addr), port, .. } if self.role == Role::Client => {
                session.announced = Some((*addr, *port));
                session.join_at = Some(now + join_after);
            }
            Event::Reset => session.end(Ended::Reset),
            Event::Fallback(_) => session.app.fell_back = true,
            _ => {}
        }
    }

    /// Opens a second subflow from the second port.
    pub(super) fn join(&mut self, now: Instant, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        session.join_at = None;
        let neighbour_known = self.ports.get(1).is_some_and(HostPort::is_ready);
        let Half::Mptcp(connection) = &session.half else { return };
        let first = session.lanes.first().map(|lane| lane.flow);
        let target = match (session.announced, first) {
            (Some((addr, port)), Some(flow)) => SocketAddrV4::new(addr, port.unwrap_or(flow.remote_port)),
            // RFC 8684 §3.1: the C flag forbids joins to the address of the first subflow.
            (None, Some(flow)) if !connection.peer_denies_joins() => match flow.remote {
                IpAddr::V4(addr) => SocketAddrV4::new(addr, flow.remote_port),
                IpAddr::V6(_) => return,
            },
            _ => return,
        };
        if !neighbour_known || session.lanes.len() > 1 || session.app.ended.is_some() {
            return;
        }
        let flow = self.flow_from(1, target);
        let opening = Opening::Connect { iss: SeqNum(self.res.rng.next_u32()), offer: self.offer() };
        let setup = ConnSetup { owner: index as u64, flow, opening, config: self.tcp_config(Speaks::Mptcp) };
        let Some(id) = self.conns.insert(now, setup, &mut self.res.env()) else { return };
        let Some(session) = self.sessions.get_mut(index) else { return };
        let Half::Mptcp(connection) = &mut session.half else { return };
        if connection.open_subflow(now, id, 1, &mut self.conns, &mut self.res.env()).is_err() {
            // RFC 8684 §3.1: not before data has crossed the first subflow.
            session.join_at = Some(now + JOIN_AGAIN);
            self.conns.remove(id, &mut self.res.env());
            return;
        }
        session.lanes.push(Lane { id, flow, port: 1 });
        self.flows.insert(flow, Owner { id, session: index });
    }

    /// The first port's address is no longer to be used: its subflow ends, once there is another.
    pub(super) fn leave(&mut self, now: Instant, index: usize) {
        let Some(session) = self.sessions.get_mut(index) else { return };
        session.leave_at = None;
        let Half::Mptcp(connection) = &mut session.half else { return };
        if session.lanes.len() > 1 && session.app.ended.is_none() && !connection.has_fallen_back() {
            connection.withdraw(now, 0, &mut self.conns, &mut self.res.env());
        } else if !connection.has_fallen_back() {
            session.leave_at = Some(now + JOIN_AGAIN);
        }
    }

    /// A server takes a SYN; false when it is none that it takes.
    pub(super) fn accept(&mut self, now: Instant, port: u8, segment: &SegmentIn) -> bool {
        let is_syn = segment.flags.contains(TcpFlags::SYN) && !segment.flags.intersects(TcpFlags::ACK | TcpFlags::RST);
        if self.role != Role::Server || !is_syn {
            return false;
        }
        if let Some(join) = join_in_syn(segment) {
            return match self.tokens.get(&join.token).copied() {
                Some(index) => self.accept_join(now, port, segment, join, index),
                None => false,
            };
        }
        let plan_index = usize::from(segment.flow.local_port.wrapping_sub(FIRST_PORT));
        let Some(at) = self.to_start.iter().position(|&waiting| waiting == plan_index) else { return false };
        let Some(plan) = self.plans.get(plan_index).copied() else { return false };
        let session_index = self.sessions.len();
        let Some(id) = self.insert_accepted(now, segment, session_index) else { return false };
        self.to_start.swap_remove(at);
        let mut session = Session::new(plan_index, App::server(&plan));
        session.half = match capable_in_syn(segment) {
            Some(peer) => {
                let params = AcceptParams {
                    local_key: self.res.rng.next_u64(),
                    peer,
                    conn: id,
                    config: self.mptcp_config(),
                    local: segment.flow.local,
                    local_port: segment.flow.local_port,
                    remote: segment.flow.remote,
                    remote_port: segment.flow.remote_port,
                };
                let connection = Connection::accept(now, params, &mut self.conns, &mut self.res.env());
                self.tokens.insert(connection.local_token(), session_index);
                Half::Mptcp(Box::new(connection))
            }
            None => Half::Tcp(id),
        };
        session.lanes.push(Lane { id, flow: segment.flow, port });
        self.flows.insert(segment.flow, Owner { id, session: session_index });
        self.sessions.push(session);
        self.touch(session_index);
        true
    }

    fn insert_accepted(
        &mut self,
        now: Instant,
        segment: &SegmentIn,
        session: usize,
    ) -> Option<mimbox_stack::tcp::ConnId> {
        let opening =
            Opening::Accept { iss: SeqNum(self.res.rng.next_u32()), syn: SynSeen::of(segment), offer: self.offer() };
        let config = self.tcp_config(Speaks::Mptcp);
        let setup = ConnSetup { owner: session as u64, flow: segment.flow, opening, config };
        self.conns.insert(now, setup, &mut self.res.env())
    }

    fn accept_join(
        &mut self,
        now: Instant,
        port: u8,
        segment: &SegmentIn,
        join: mimbox_mptcp::JoinSyn,
        index: usize,
    ) -> bool {
        let Some(id) = self.insert_accepted(now, segment, index) else { return false };
        let Some(session) = self.sessions.get_mut(index) else { return false };
        let Half::Mptcp(connection) = &mut session.half else { return false };
        if connection.join(now, segment, join, id, &mut self.conns, &mut self.res.env()).is_err() {
            self.conns.remove(id, &mut self.res.env());
            return false;
        }
        session.lanes.push(Lane { id, flow: segment.flow, port });
        self.flows.insert(segment.flow, Owner { id, session: index });
        self.touch(index);
        true
    }
}
