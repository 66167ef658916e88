//! The converter: configuration, conversions and the operator's side of MiMBox.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod events;
pub mod metrics;
pub mod redirect;
pub mod run;
pub mod shard;

mod closing;
mod conversion;
mod flows;
mod half;
mod icmp;
mod isn;
mod links;
mod mss;
mod observe;
mod opening;
mod path;
mod routing;
mod settings;
mod splice;
#[cfg(test)]
mod testing;
mod train;
mod window;

pub use shard::Shard;
