//! The converter's engine, made from a configuration as `mimbox run` makes it.

use anyhow::Context as _;
use mimbox_converter::Shard;
use mimbox_converter::config::Config;
use mimbox_converter::run::neighbours;
use mimbox_stack::mem::Region;
use mimbox_stack::{FramePool, PoolConfig};

/// A shard with a pool of its own.
pub(crate) fn shard(config: &Config, seed: u64) -> anyhow::Result<Shard> {
    let limits = &config.limits;
    let region = Region::map(limits.frames, limits.frame_size).context("cannot map the frames")?;
    let pool = FramePool::new(region, PoolConfig { rx_reserve: limits.rx_reserve });
    Ok(Shard::new(config, pool, seed, neighbours(config)?))
}
