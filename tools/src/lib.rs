//! The lab, the simulator and the replayer of MiMBox.

pub mod bench;
mod engine;
pub mod eval;
pub mod lab;
pub mod link;
pub mod replay;
pub mod script;
pub mod sim;
