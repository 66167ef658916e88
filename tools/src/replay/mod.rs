//! Recordings and captures: shown in words, and run through the engine again.

mod command;
mod drive;
mod inspect;
mod words;

pub use command::{ReplayArgs, Replayed, replay, replay_file};
pub use inspect::{InspectArgs, inspect};
