//! Multipath TCP (RFC 8684), sans-IO.
#![forbid(unsafe_code)]
