//! Recordings and captures, shown in words.

mod inspect;
mod words;

pub use inspect::{InspectArgs, inspect};
