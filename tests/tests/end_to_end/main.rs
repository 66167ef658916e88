//! Real kernels at both ends, the box between them, in network namespaces. Needs root; without it these tests fail
//! unless `MIMBOX_UNPRIVILEGED=1` says that going without is meant.

mod bench;
mod calls;
mod closing;
mod configuration;
mod events;
mod lifecycle;
mod opening;
mod paths;
mod ports;
mod recording;
mod stress;
mod transfers;
mod wire;
