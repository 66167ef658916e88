//! Tests of connections, by concept.

mod congestion;
mod ecn;
mod receive;
mod recovery;
mod transfer;
mod undo;
