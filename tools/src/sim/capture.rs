//! A capture of everything that nodes send, for looking at a failing seed with other tools.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration as StdDuration;

use anyhow::Context as _;
use mimbox_stack::Instant;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};

/// The file of one run: an interface for each direction of each link.
pub(crate) struct Capture {
    file: PcapNgWriter<BufWriter<File>>,
}

impl Capture {
    /// Creates the file.
    pub(crate) fn create(path: &Path, interfaces: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut file = PcapNgWriter::new(BufWriter::new(file))?;
        for name in interfaces {
            let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0xffff);
            interface.options.push(InterfaceDescriptionOption::IfName(Cow::Owned(name)));
            // Times are in nanoseconds.
            interface.options.push(InterfaceDescriptionOption::IfTsResol(9));
            file.write_pcapng_block(interface)?;
        }
        Ok(Self { file })
    }

    /// Writes one packet.
    pub(crate) fn packet(&mut self, now: Instant, interface: usize, bytes: &[u8]) {
        let block = EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: StdDuration::from_nanos(now.as_nanos()),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: Vec::new(),
        };
        if let Err(error) = self.file.write_pcapng_block(block) {
            tracing::warn!("the capture is not complete: {error}");
        }
    }
}
