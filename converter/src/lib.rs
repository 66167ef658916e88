//! The converter.
#![forbid(unsafe_code)]
