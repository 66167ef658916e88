//! Programs that run beside the lab for a while: started, watched, and ended for certain.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end by itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running program whose output goes to a file; ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    keep: bool,
}

impl Process {
    /// Starts a command with its standard output and error in `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self { child, name: name.to_owned(), log: log.to_owned(), keep: false })
    }

    /// Lets the program run on when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that it used so far, in user and kernel mode.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(&self.child.id().to_string())
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Its exit status, once it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().map(drop).with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {limit:?}; its output so far:\n{}", self.name, self.output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end (SIGTERM), waits, and returns its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(PATIENCE)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.keep && self.stop().is_err() {
            // Nothing is left to be done about a process that even this does not end.
            let _ = self.kill();
        }
    }
}

/// CPU time that a process (`self`, or a number) used so far, in user and kernel mode.
pub(crate) fn cpu_time(process: &str) -> Result<Duration> {
    /// Ticks of /proc a second: the kernel's USER_HZ, the same on every architecture that this runs on.
    const TICKS: u64 = 100;
    let file = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    // The program's name may hold anything; what follows its closing parenthesis is numbers, the state before them.
    let ticks = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// A command that is sent SIGTERM when the thread that started it ends, however it ends.
pub(crate) fn bound_to_parent(command: &Command) -> Command {
    wrap("setpriv", &["--pdeathsig", "TERM"], command)
}

/// `program arguments… command`.
pub(crate) fn wrap<S: AsRef<OsStr>>(program: &str, arguments: &[S], command: &Command) -> Command {
    let mut wrapped = Command::new(program);
    wrapped.args(arguments).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Whether a lab can be built here. `Ok(false)` only when `MIMBOX_UNPRIVILEGED=1` says that going without is meant;
/// otherwise lacking root is an error, so that a test run never passes by skipping.
pub fn require_privileges() -> Result<bool> {
    if rustix::process::geteuid().is_root() {
        return Ok(true);
    }
    if std::env::var_os("MIMBOX_UNPRIVILEGED").is_some_and(|value| value == "1") {
        return Ok(false);
    }
    bail!(
        "the lab makes network namespaces and loads BPF programs: run this as root, \
         or set MIMBOX_UNPRIVILEGED=1 to go without the tests that need it"
    )
}
