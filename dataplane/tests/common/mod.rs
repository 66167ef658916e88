//! Network namespaces for one test: the box in the middle, a peer on either side, veth pairs between them.
//!
//! ```text
//! left (l0) ── (p0) box (p1) ── (r0) right
//! ```
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod router;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{Builder, JoinHandle};

/// True when the test may run; without root it fails, unless the environment says that this is known.
pub fn privileged() -> bool {
    // SAFETY: asks for a number.
    let root = unsafe { libc::geteuid() } == 0;
    if !root && std::env::var_os("MIMBOX_UNPRIVILEGED").is_some_and(|value| value == "1") {
        eprintln!("skipped: not root, and MIMBOX_UNPRIVILEGED=1");
        return false;
    }
    assert!(root, "this test makes network namespaces and needs root; MIMBOX_UNPRIVILEGED=1 skips it");
    true
}

/// Runs a command and fails the test with its output when it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "`{command}` failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Three namespaces; they and everything in them go when it is dropped.
pub struct Lab {
    tag: String,
}

impl Lab {
    /// Makes the namespaces, the pairs and the peers' addresses and routes.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("mbdp{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { tag };
        for name in ["left", "box", "right"] {
            sh(&format!("ip netns add {}", lab.netns(name)));
        }
        let (left, middle, right) = (lab.netns("left"), lab.netns("box"), lab.netns("right"));
        sh(&format!(
            "ip link add l0 netns {left} type veth peer name p0 netns {middle}
             ip link add r0 netns {right} type veth peer name p1 netns {middle}"
        ));
        for (name, device) in [("left", "l0"), ("box", "p0"), ("box", "p1"), ("right", "r0")] {
            let ns = lab.netns(name);
            // The box wants finished checksums and packets no longer than the MTU.
            sh(&format!(
                "ip netns exec {ns} ethtool -K {device} tx off tso off gso off gro off >/dev/null
                 ip -n {ns} link set lo up
                 ip netns exec {ns} sysctl -qw net.ipv6.conf.{device}.accept_dad=0
                 ip -n {ns} link set {device} up"
            ));
        }
        for (name, device, net, other) in [("left", "l0", 1, 2), ("right", "r0", 2, 1)] {
            let ns = lab.netns(name);
            sh(&format!(
                "ip -n {ns} addr add 10.77.{net}.2/24 dev {device}
                 ip -n {ns} addr add fd77:{net}::2/64 dev {device} nodad
                 ip -n {ns} route add 10.77.{other}.0/24 via 10.77.{net}.1
                 ip -n {ns} route add fd77:{other}::/64 via fd77:{net}::1"
            ));
        }
        lab
    }

    /// The system's name of a namespace.
    pub fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// Runs a command in a namespace.
    pub fn sh(&self, name: &str, command: &str) -> String {
        sh(&format!("ip netns exec {} {command}", self.netns(name)))
    }

    /// Runs a closure on a thread of its own in a namespace.
    pub fn spawn<T: Send + 'static>(&self, name: &str, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.netns(name));
        Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                enter(&path);
                run()
            })
            .expect("a thread starts")
    }

    /// As `spawn`, and waits for it.
    pub fn within<T: Send + 'static>(&self, name: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(name, run).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["left", "box", "right"] {
            let _gone_already = Command::new("ip").args(["netns", "del", &self.netns(name)]).status();
        }
    }
}

/// Moves the calling thread into the namespace at `path`.
pub fn enter(path: &str) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // SAFETY: moves this thread only; the descriptor is open.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "setns({path}): {}", std::io::Error::last_os_error());
}
