//! All connections of a shard: an array of hot state and an array of cold state, named by generational handles.

use super::conn::{Cold, Conn, Hot};
use super::{Opening, TcpConfig};
use crate::env::Env;
use crate::time::Instant;
use crate::wire::FlowKey;

/// Names a connection; a stale name finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    /// The connection's place in its table, from 0; reused after the connection is gone.
    pub const fn index(self) -> u32 {
        self.index
    }
}

/// What a connection is made from.
#[derive(Clone, Copy, Debug)]
pub struct ConnSetup {
    /// Opaque to TCP: whose connection it is.
    pub owner: u64,
    /// Its 4-tuple.
    pub flow: FlowKey,
    /// How it begins.
    pub opening: Opening,
    /// Its parameters.
    pub config: TcpConfig,
}

/// The connections.
#[derive(Debug)]
pub struct ConnTable {
    hot: Vec<Hot>,
    cold: Vec<Cold>,
    generations: Vec<u32>,
    free: Vec<u32>,
    limit: usize,
}

impl ConnTable {
    /// A table of at most `limit` connections. Their memory is address space until they come.
    pub fn with_capacity(limit: usize) -> Self {
        Self {
            hot: Vec::with_capacity(limit),
            cold: Vec::with_capacity(limit),
            generations: Vec::new(),
            free: Vec::new(),
            limit,
        }
    }

    /// Makes a connection; `None` when the table is full.
    pub fn insert(&mut self, now: Instant, setup: ConnSetup, env: &mut Env<'_>) -> Option<ConnId> {
        let (hot, cold) = Conn::begin(now, &setup, env);
        let index = match self.free.pop() {
            Some(index) => {
                self.hot[index as usize] = hot;
                self.cold[index as usize] = cold;
                index
            }
            None if self.hot.len() < self.limit => {
                self.hot.push(hot);
                self.cold.push(cold);
                self.generations.push(0);
                (self.hot.len() - 1) as u32
            }
            None => return None,
        };
        Some(ConnId { index, generation: self.generations[index as usize] })
    }

    /// The connection, if it still lives.
    #[inline]
    pub fn get(&mut self, id: ConnId) -> Option<Conn<'_>> {
        let index = id.index as usize;
        if *self.generations.get(index)? != id.generation {
            return None;
        }
        Some(Conn { hot: self.hot.get_mut(index)?, cold: self.cold.get_mut(index)? })
    }

    /// Forgets the connection and releases every frame that it holds.
    pub fn remove(&mut self, id: ConnId, env: &mut Env<'_>) {
        let Some(mut conn) = self.get(id) else { return };
        conn.release(env);
        let generation = &mut self.generations[id.index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(id.index);
    }

    /// Asks the CPU to fetch the connection's hot state.
    #[inline]
    pub fn prefetch(&self, id: ConnId) {
        if let Some(hot) = self.hot.get(id.index as usize) {
            crate::mem::prefetch(hot);
        }
    }

    /// Connections that live.
    pub fn len(&self) -> usize {
        self.hot.len() - self.free.len()
    }

    /// True when none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
impl ConnId {
    /// A name that finds nothing.
    pub(super) fn default_for_tests() -> Self {
        Self { index: u32::MAX, generation: u32::MAX }
    }
}
