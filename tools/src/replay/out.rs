//! Where the frames of a replay go: to a file, to the comparison with a golden output, or to be counted only.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use mimbox_dataplane::pcap::{CaptureWriter, Direction};
use mimbox_stack::{Instant, PortId};

use super::drive::Sink;
use super::golden::Golden;

/// A pcapng file with an interface for each port.
pub(super) struct Out {
    path: PathBuf,
    writer: CaptureWriter,
    /// What is added to the engine's time to have the file's.
    epoch: u64,
}

impl Out {
    pub(super) fn create<'a>(path: &Path, ports: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let name = || format!("cannot create {}", path.display());
        let mut writer = CaptureWriter::create(path, None).with_context(name)?;
        for port in ports {
            writer.interface(port, None).with_context(name)?;
        }
        Ok(Self { path: path.to_owned(), writer, epoch: 0 })
    }

    /// The engine's time zero is so many nanoseconds after that of the capture that is replayed.
    pub(super) fn set_epoch(&mut self, nanos: u64) {
        self.epoch = nanos;
    }
}

/// Everything that looks at the frames.
pub(super) struct Outputs {
    out: Option<Out>,
    golden: Option<Golden>,
    event: u64,
    frames: u64,
}

impl Outputs {
    pub(super) fn new(out: Option<Out>, golden: Option<Golden>) -> Self {
        Self { out, golden, event: 0, frames: 0 }
    }

    /// The frames that follow are those of this event, counted from one.
    pub(super) fn begin_event(&mut self, event: u64) {
        self.event = event;
    }

    /// Writes everything out; says how many frames there were, and where the golden output differs.
    pub(super) fn finish(self) -> anyhow::Result<(u64, Option<String>)> {
        if let Some(mut out) = self.out {
            out.writer.flush().with_context(|| format!("cannot write {}", out.path.display()))?;
        }
        let difference = self.golden.map(Golden::finish).transpose()?.flatten();
        Ok((self.frames, difference))
    }
}

impl Sink for Outputs {
    fn frame(&mut self, now: Instant, port: PortId, bytes: &[u8]) -> anyhow::Result<()> {
        self.frames += 1;
        if let Some(out) = &mut self.out {
            let nanos = now.as_nanos().saturating_add(out.epoch);
            let written = out.writer.packet(u32::from(port.0), nanos, Some(Direction::Outbound), bytes, None);
            written.with_context(|| format!("cannot write {}", out.path.display()))?;
        }
        if let Some(golden) = &mut self.golden {
            golden.compare(self.event, now, port, bytes)?;
        }
        Ok(())
    }
}
