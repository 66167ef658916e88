//! Recordings and captures: shown in words, and run through the engine again.

mod capture;
mod command;
mod drive;
mod golden;
mod inspect;
mod out;
mod words;

pub use command::{ReplayArgs, Replayed, Skipped, replay, replay_file};
pub use inspect::{InspectArgs, inspect};
