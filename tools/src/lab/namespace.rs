//! A network namespace: made, entered, and removed with everything that runs in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace, removed when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keep: bool,
}

/// Bytes and packets of one interface, as its kernel counts them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InterfaceCounters {
    /// Bytes received, link-layer headers included.
    pub rx_bytes: u64,
    /// Packets received; a segment that offloading left whole counts once.
    pub rx_packets: u64,
    /// Bytes transmitted.
    pub tx_bytes: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Packets that it dropped, either way.
    pub dropped: u64,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub fn create(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, keep: false };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A namespace that somebody else made; dropping this handle leaves it in place.
    pub fn existing(name: impl Into<String>) -> Self {
        Self { name: name.into(), keep: true }
    }

    /// A namespace that a lab left behind; dropping this handle removes it.
    pub(crate) fn leftover(name: String) -> Self {
        Self { name, keep: false }
    }

    /// Leaves the namespace in place when the handle is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in here.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program in here to its end and returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        run(self.command(program).args(arguments))
    }

    /// Runs lines of `ip` commands in here; the first one that fails ends it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.ip_batch(&[], lines)
    }

    /// The same for `ip -6`.
    pub fn ip6(&self, lines: &str) -> Result<()> {
        self.ip_batch(&["-6"], lines)
    }

    fn ip_batch(&self, options: &[&str], lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(options).args(["-n", &self.name, "-batch", "-"]);
        feed(&mut command, lines).with_context(|| format!("in namespace {}:\n{lines}", self.name))
    }

    /// Loads a ruleset in here.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        feed(self.command("nft").args(["-f", "-"]), ruleset)
            .with_context(|| format!("nft in namespace {}:\n{ruleset}", self.name))
    }

    /// Runs a closure on a thread of its own that lives in this namespace, and returns what it returned.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let file = fs::File::open(&path).with_context(|| format!("namespace {} is gone", path.display()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || -> Result<T> {
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("cannot enter a network namespace: this needs root")?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets kernel parameters, `net.ipv4.tcp_rmem` style.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in settings {
                let file = sysctl_file(key);
                fs::write(&file, value)
                    .with_context(|| format!("cannot set {key} = {value} ({}) in {}", file.display(), self.name))?;
            }
            Ok(())
        })?
    }

    /// Sets the parameters that this kernel has, and passes over the others.
    pub fn sysctl_where_known(&self, settings: &[(&str, &str)]) -> Result<()> {
        let known: Vec<_> = settings.iter().copied().filter(|(key, _)| sysctl_file(key).exists()).collect();
        self.sysctl(&known)
    }

    /// Counters of all interfaces.
    pub fn interfaces(&self) -> Result<BTreeMap<String, InterfaceCounters>> {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        Ok(parse_interface_counters(&text))
    }

    /// The kernel's protocol counters, named as `nstat` names them (`TcpRetransSegs`, `MPTcpExtMPCapableSYNTX`).
    pub fn protocol_counters(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.enter(|| -> Result<String> {
            let mut text = fs::read_to_string("/proc/thread-self/net/snmp")?;
            text.push_str(&fs::read_to_string("/proc/thread-self/net/netstat")?);
            Ok(text)
        })??;
        Ok(parse_protocol_counters(&text))
    }

    /// TCP sockets that are not listening, one line each, as `ss` prints them.
    pub fn tcp_sockets(&self) -> Result<Vec<String>> {
        let text = self.run("ss", &["-Htan", "state", "connected", "exclude", "time-wait"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Switches offloads of a device off (checksum, and with it segmentation).
    ///
    /// A kernel leaves the checksum of what it sends over veth unfinished; an AF_XDP port at the other end would see
    /// the pseudo-header's sum only.
    pub fn finish_checksums(&self, device: &str) -> Result<()> {
        self.run("ethtool", &["-K", device, "tx", "off", "tso", "off", "gso", "off", "sg", "off"]).map(drop)
    }

    fn remove(&self) {
        if !self.path().exists() {
            return;
        }
        // First a request, then force: what runs in here would keep the namespace and its devices alive.
        for (signal, patience) in [(Signal::TERM, 20), (Signal::KILL, 50)] {
            for _ in 0..patience {
                let pids = self.pids();
                if pids.is_empty() {
                    break;
                }
                for pid in pids {
                    // One that ended meanwhile is what we want.
                    let _ = kill_process(pid, signal);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name])) {
            eprintln!("cannot remove namespace {}: {error:#}", self.name);
        }
    }

    fn pids(&self) -> Vec<Pid> {
        let own = std::process::id();
        run(Command::new("ip").args(["netns", "pids", &self.name]))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse::<i32>().ok())
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            self.remove();
        }
    }
}

/// Where a kernel parameter stands under /proc. `/` separates as well, for interface names with a dot.
fn sysctl_file(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key.replace('.', "/"))
}

/// Runs a command to its end; its error text becomes part of the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn feed(command: &mut Command, text: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_run(command))?;
    let mut input = child.stdin.take().ok_or_else(|| anyhow!("no standard input"))?;
    // A program that refuses its first line closes its input: its own words tell more than the broken pipe.
    let written = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    written.context("writing to a program's standard input")
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run {}: `make setup` installs what the lab needs", command.get_program().to_string_lossy())
}

fn parse_interface_counters(text: &str) -> BTreeMap<String, InterfaceCounters> {
    let mut all = BTreeMap::new();
    for line in text.lines().skip(2) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        if let [rx_bytes, rx_packets, _, rx_dropped, _, _, _, _, tx_bytes, tx_packets, _, tx_dropped, ..] = numbers[..]
        {
            let dropped = rx_dropped + tx_dropped;
            let counters = InterfaceCounters { rx_bytes, rx_packets, tx_bytes, tx_packets, dropped };
            all.insert(name.trim().to_owned(), counters);
        }
    }
    all
}

/// Pairs of lines: `Tcp: NameA NameB`, then `Tcp: 1 2`.
fn parse_protocol_counters(text: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        let (Some((group, names)), Some((_, values))) = (names.split_once(':'), values.split_once(':')) else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            all.insert(format!("{group}{name}"), value.parse().unwrap_or(0));
        }
    }
    all
}
