//! Packet IO.
