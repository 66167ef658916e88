//! A link in user space: what comes in on one interface goes out by the other, at a rate, after a delay, and not always.
//!
//! `Channel` is the model of one direction, which the simulator uses as well. `engine` carries real frames through
//! two of them, driven by the data plane's worker over AF_XDP ports that take every frame of their interface.

mod command;
mod engine;
mod model;
mod packet;
mod report;
mod teller;
mod values;

pub use command::{LinkArgs, command};
pub use model::{Burst, LinkOptions, LinkTotals};
pub(crate) use model::{Channel, Dice, Fate, Offered};
pub use report::{Event, Lateness, OwnLosses, Statistics, WayReport};
pub use values::{Both, Chance, Held, QueueSize, Runs, Span};
