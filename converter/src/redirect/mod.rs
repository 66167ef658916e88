//! How a connection reaches the box.

pub mod dst_opt;
mod explicit;
mod transparent;
