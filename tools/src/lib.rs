//! The lab, the simulator and the replayer of MiMBox.

pub mod lab;
pub mod replay;
pub mod sim;
