//! Packets on links: plain byte vectors, used again and again.

/// One Ethernet frame on its way.
pub(crate) type Packet = Vec<u8>;

/// Spare packet buffers.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    spare: Vec<Packet>,
}

impl Packets {
    /// A packet with these bytes.
    pub(crate) fn copy_of(&mut self, bytes: &[u8]) -> Packet {
        let mut packet = self.empty();
        packet.extend_from_slice(bytes);
        packet
    }

    /// An empty packet.
    pub(crate) fn empty(&mut self) -> Packet {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(2048))
    }

    /// Takes a packet back that nobody needs any more.
    pub(crate) fn recycle(&mut self, mut packet: Packet) {
        packet.clear();
        self.spare.push(packet);
    }
}

/// Where nodes put what they send: the port that it leaves by, and the bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Buffers to take from.
    pub(crate) packets: Packets,
    /// What is to be sent, in order.
    pub(crate) queue: Vec<(u8, Packet)>,
}

impl Outbox {
    /// Queues a copy of `bytes` to leave by `port`.
    pub(crate) fn send(&mut self, port: u8, bytes: &[u8]) {
        let packet = self.packets.copy_of(bytes);
        self.queue.push((port, packet));
    }
}
