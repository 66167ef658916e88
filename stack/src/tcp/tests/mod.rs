//! Tests of connections, by concept.

mod bbr;
mod closing;
mod coalesce;
mod congestion;
mod ecn;
mod in_order;
mod pmtu;
mod receive;
mod recovery;
mod timers;
mod transfer;
mod undo;
