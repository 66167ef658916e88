//! What makes an AF_XDP port fast: what of it the kernel, the driver and the machine gave, and why the rest is missing.

use std::fs;
use std::io;

use mimbox_stack::mem::Region;

use super::BusyPoll;
use crate::port::Feature;

/// Frames that a kernel without `XDP_MAX_TX_SKB_BUDGET` takes in one system call where it copies.
pub(super) const OLD_TX_BUDGET: u32 = 32;

/// The outcome of each thing that was asked for. `Err` says why not, for the operator.
#[derive(Clone, Debug)]
pub(super) struct Gains {
    /// The NIC reads and writes the frames.
    pub(super) zero_copy: Result<(), String>,
    /// The steering program runs in the driver.
    pub(super) native: Result<(), String>,
    /// The rings say whether the kernel wants a system call.
    pub(super) need_wakeup: Result<(), String>,
    /// Frames that one system call sends.
    pub(super) tx_budget: Result<u32, String>,
    /// Bytes that may be on their way in copy mode.
    pub(super) send_buffer: u32,
    /// The worker's system calls drive the driver.
    pub(super) busy_poll: Result<BusyPoll, String>,
    /// Bytes of the frames' memory that stand on huge pages, of how many.
    pub(super) huge_pages: Result<String, String>,
}

impl Gains {
    /// Nothing yet.
    pub(super) fn none() -> Self {
        let not_yet = || "the port is not open".to_owned();
        Self {
            zero_copy: Err(not_yet()),
            native: Err(not_yet()),
            need_wakeup: Err(not_yet()),
            tx_budget: Err(not_yet()),
            send_buffer: 0,
            busy_poll: Err(not_yet()),
            huge_pages: Err(not_yet()),
        }
    }

    /// For display.
    pub(super) fn features(&self, interface: &str) -> Vec<Feature> {
        let Self { zero_copy, native, need_wakeup, tx_budget, send_buffer, busy_poll, huge_pages } = self.clone();
        let copies = zero_copy.is_err();
        let budget = match tx_budget {
            // The NIC takes what is on the ring.
            _ if !copies => Ok("no bound: the NIC takes the frames itself".to_owned()),
            Ok(frames) => Ok(format!("{frames} frames a call, {send_buffer} bytes on their way")),
            Err(why) => Err(format!("{OLD_TX_BUDGET} frames a call: {why}")),
        };
        let busy_poll = busy_poll.map(|busy_poll| {
            format!("{} packets, {} µs a call; {}", busy_poll.budget, busy_poll.micros, deferral(interface))
        });
        vec![
            Feature::new("zero_copy", zero_copy.map(|()| "the NIC reads and writes the frames".to_owned())),
            Feature::new("native_xdp", native.map(|()| "steered in the driver".to_owned())),
            Feature::new("need_wakeup", need_wakeup.map(|()| "calls only when the kernel asks for one".to_owned())),
            Feature::new("tx_budget", budget),
            Feature::new("busy_poll", busy_poll),
            Feature::new("huge_pages", huge_pages),
        ]
    }
}

/// Whether the device leaves its interrupts off while it is polled, and what to do when it does not.
fn deferral(interface: &str) -> String {
    let read = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/class/net/{interface}/{file}")).ok()?.trim().parse().ok()
    };
    match (read("napi_defer_hard_irqs"), read("gro_flush_timeout")) {
        (Some(defer), Some(timeout)) if defer > 0 && timeout > 0 => {
            format!("interrupts are deferred {defer} times for {timeout} ns")
        }
        _ => format!(
            "interrupts go on beside it: `echo 2 > /sys/class/net/{interface}/napi_defer_hard_irqs; echo 200000 > \
             /sys/class/net/{interface}/gro_flush_timeout` defers them"
        ),
    }
}

/// What a refused socket option means.
pub(super) fn refused(error: &io::Error, since: &str) -> String {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => format!("this kernel has it not ({since} has)"),
        _ => error.to_string(),
    }
}

/// How much of the frames' memory stands on huge pages, or why none does.
pub(super) fn huge_pages(region: &Region) -> Result<String, String> {
    let smaps = fs::read_to_string("/proc/self/smaps").map_err(|error| format!("/proc/self/smaps: {error}"))?;
    let start = region.as_ptr() as usize;
    let bytes = huge_bytes(&smaps, start..start + region.len());
    let mib = |bytes: usize| bytes >> 20;
    match bytes {
        0 => Err(
            "no free huge page: `sysctl vm.nr_hugepages=N` before the start reserves N of 2 MiB, or write `madvise` \
                  to /sys/kernel/mm/transparent_hugepage/enabled"
                .to_owned(),
        ),
        _ => Ok(format!("{} of {} MiB", mib(bytes), mib(region.len()))),
    }
}

/// The bytes on huge pages of all mappings that `range` is part of, no more than the range has.
fn huge_bytes(smaps: &str, range: std::ops::Range<usize>) -> usize {
    let mut inside = false;
    let mut kib = 0;
    for line in smaps.lines() {
        let head = line.split_once(' ').and_then(|(addresses, _)| addresses.split_once('-'));
        let addresses = head
            .and_then(|(from, to)| Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?));
        if let Some(mapping) = addresses {
            inside = mapping.start < range.end && range.start < mapping.end;
        }
        let huge = ["AnonHugePages:", "ShmemPmdMapped:", "Private_Hugetlb:", "Shared_Hugetlb:"];
        if let Some(value) = huge.iter().find_map(|name| line.strip_prefix(name)).filter(|_| inside) {
            kib += value.split_whitespace().next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        }
    }
    (kib << 10).min(range.len())
}

#[cfg(test)]
mod tests;
