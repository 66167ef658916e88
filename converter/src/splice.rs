//! Moves segments from one half's receive side to the other half's send side.

use mimbox_stack::tcp::ConnTable;
use mimbox_stack::{Env, RxQueue, TxSegment};

use crate::half::Half;

/// Hands everything in `from` to `to`: frames change hands, no byte moves.
pub(crate) fn forward(from: &mut RxQueue, to: &mut Half, conns: &mut ConnTable, env: &mut Env<'_>) {
    while let Some(segment) = from.pop_front() {
        to.push(TxSegment::from_rx(segment), conns, env);
    }
}
