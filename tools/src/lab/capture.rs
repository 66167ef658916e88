//! Packet captures of a lab's devices.
//!
//! Capture at the peer of a box's port: AF_XDP transmission passes by the taps of its own device.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;

use super::namespace::Namespace;
use super::process::{Process, bound_to_parent};

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures what passes a device, into a file; returns when the tap is in place.
    pub fn start(namespace: &Namespace, device: &str, filter: &str, file: &Path) -> Result<Self> {
        let mut command = namespace.command("tcpdump");
        command.args(["-i", device, "--immediate-mode", "-U", "-n", "-B", "16384", "-Z", "root", "-w"]).arg(file);
        if !filter.is_empty() {
            command.arg(filter);
        }
        let log = file.with_extension("log");
        let mut process = Process::spawn("tcpdump", bound_to_parent(&command), &log)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process.output().contains("listening on") {
            if process.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("tcpdump does not capture: {}", process.output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { process, file: file.to_owned() })
    }

    /// Ends the capture and returns its file.
    pub fn stop(mut self) -> Result<PathBuf> {
        // The kernel hands packets over in blocks: let the last one fill.
        std::thread::sleep(Duration::from_millis(200));
        self.process.signal(Signal::INT)?;
        self.process.wait(Duration::from_secs(10))?;
        Ok(self.file.clone())
    }
}
