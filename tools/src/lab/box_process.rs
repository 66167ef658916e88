//! `mimbox run` in the box's namespace.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use mimbox_converter::admin::ask_stats;
use mimbox_converter::metrics::Snapshot;
use rustix::process::Signal;

use super::namespace::run;
use super::plan::{BOX_PORTS, Family, Path, Plan};
use super::process::{Process, bound_to_parent, wrap};
use super::topology::{Lab, Mode};

/// How long a box may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// The program `mimbox`: what `MIMBOX` names, else beside the running program or, for a test, one directory above it.
pub fn mimbox_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MIMBOX") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("mimbox"))
        .find(|path| path.is_file())
        .ok_or_else(|| anyhow!("no program mimbox beside {}: `cargo build --bins` makes it", own.display()))
}

/// The configuration of a box in a lab.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// How connections reach it.
    pub mode: Mode,
    /// TOML to append: further tables, such as `[tcp]` or `[worker]`.
    pub extra: String,
    /// Further arguments of `mimbox run`.
    pub arguments: Vec<String>,
    /// Environment variables, `MIMBOX_LOG` for one.
    pub environment: Vec<(String, String)>,
    /// Runs the box before every ordinary program, at this real-time priority: for measurements on a machine with other
    /// work.
    pub real_time: Option<u8>,
}

impl Configuration {
    /// The usual configuration for a mode.
    pub fn new(mode: Mode) -> Self {
        Self { mode, extra: String::new(), arguments: Vec::new(), environment: Vec::new(), real_time: None }
    }

    /// The whole file.
    pub fn render(&self, lab: &Lab) -> String {
        let mut text = String::new();
        for (index, name) in BOX_PORTS.into_iter().enumerate() {
            let addresses = [Family::V4, Family::V6].map(|family| match index {
                0 => Plan::box_wan(Path::First, family),
                1 => Plan::box_wan(Path::Second, family),
                _ => Plan::box_core(family),
            });
            let addresses = addresses.map(Plan::with_prefix);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "[[port]]\nname = \"{name}\"\ninterface = \"{name}\"\nbackend = \"af_xdp\"\naddresses = {addresses:?}\n"
            );
        }
        let wan = &BOX_PORTS[..2];
        let _ = match self.mode {
            Mode::Explicit => {
                let source = [Family::V4, Family::V6].map(Plan::box_core);
                writeln!(
                    text,
                    "[explicit]\nports = {wan:?}\ndst_opt = {{ exid = 0x4d42 }}\nsource = {}\n",
                    list(&source)
                )
            }
            Mode::Transparent => {
                // The client reaches this one through its second interface, where the first subflow is not.
                let announce = [Family::V4, Family::V6].map(|family| Plan::box_wan(Path::Second, family));
                writeln!(text, "[transparent]\nfrom = {wan:?}\nannounce = {}\n", list(&announce))
            }
        };
        let _ = writeln!(text, "[admin]\nsocket = {:?}\n", lab.file("mimbox.sock"));
        text.push_str(&self.extra);
        text
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    format!("{texts:?}")
}

/// A running box, stopped when this is dropped.
#[derive(Debug)]
pub struct BoxProcess {
    process: Process,
    binary: PathBuf,
    socket: PathBuf,
}

impl BoxProcess {
    /// Starts a box and waits until it answers.
    pub fn start(lab: &Lab, configuration: &Configuration) -> Result<Self> {
        let mut this = Self::spawn(lab, configuration)?;
        this.wait_until_it_answers()?;
        Ok(this)
    }

    /// Starts a box and does not wait.
    pub fn spawn(lab: &Lab, configuration: &Configuration) -> Result<Self> {
        let binary = mimbox_binary()?;
        let file = lab.file("mimbox.toml");
        fs::write(&file, configuration.render(lab)).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = lab.middle().command(&binary);
        command.arg("run").arg("-c").arg(&file).args(&configuration.arguments);
        command.envs(configuration.environment.iter().map(|(name, value)| (name, value)));
        if let Some(priority) = configuration.real_time {
            command = wrap("chrt", &["--rr", &priority.to_string()], &command);
        }
        let process = Process::spawn("mimbox", bound_to_parent(&command), &lab.file("mimbox.log"))?;
        Ok(Self { process, binary, socket: lab.file("mimbox.sock") })
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.process.try_wait()? {
                bail!("mimbox run ended with {status}:\n{}", self.log());
            }
            match self.stats() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let log = self.log();
                    return Err(error.context(format!("mimbox does not answer after {START_LIMIT:?}; its log:\n{log}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// What the box says of itself.
    pub fn stats(&self) -> Result<Snapshot> {
        Ok(ask_stats(&self.socket)?)
    }

    /// Runs a subcommand of `mimbox` that asks the running box (`stats --json`), and returns what it printed.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.binary).args(arguments).arg("--socket").arg(&self.socket))
    }

    /// Starts `mimbox events --json`, which writes to `file` until it is dropped or the box stops.
    pub fn follow(&self, file: &std::path::Path) -> Result<Process> {
        let mut command = Command::new(&self.binary);
        command.args(["events", "--json", "--socket"]).arg(&self.socket);
        Process::spawn("mimbox events", bound_to_parent(&command), file)
    }

    /// Waits until no conversion and no half-open record is left; returns the statistics then.
    pub fn wait_until_idle(&self, limit: Duration) -> Result<Snapshot> {
        let deadline = Instant::now() + limit;
        loop {
            let stats = self.stats()?;
            if stats.conversions.live == 0 && stats.conversions.half_open == 0 {
                return Ok(stats);
            }
            if Instant::now() >= deadline {
                bail!("after {limit:?} there are still conversions: {:?}", stats.conversions);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// CPU time that it used so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }

    /// The process itself.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it as an operator does and expects exit status 0.
    pub fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Duration::from_secs(15))?;
        if !status.success() {
            bail!("mimbox run ended with {status}:\n{}", self.log());
        }
        Ok(())
    }
}
