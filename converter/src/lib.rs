//! The converter: configuration, conversions and the operator's side of MiMBox.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod metrics;
pub mod run;
