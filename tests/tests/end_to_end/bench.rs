//! A lab with a box and a server in it, one at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use mimbox_converter::metrics::Snapshot;
use mimbox_tools::lab::{
    BoxProcess, Configuration, Lab, LabOptions, Mode, Transfer, TransferReport, TransferServer, damage,
    require_privileges,
};

/// Mebibytes.
pub(crate) const MIB: u64 = 1 << 20;
/// The port of the lab's server.
pub(crate) const PORT: u16 = 8080;
/// How long a box may take to let go of what is over.
pub(crate) const SETTLE: Duration = Duration::from_secs(20);

/// Labs share two cores and are measured: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A lab, its box and its server.
pub(crate) struct Bench {
    // Dropped in this order: what runs first, then where it runs.
    pub(crate) server: TransferServer,
    pub(crate) middle: BoxProcess,
    pub(crate) lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

/// Waits for the turn to build labs; `None` when the tests that need root are meant to be left out.
pub(crate) fn turn() -> Result<Option<MutexGuard<'static, ()>>> {
    Ok(if require_privileges()? { Some(TURN.lock().unwrap_or_else(PoisonError::into_inner)) } else { None })
}

impl Bench {
    /// The usual lab in a mode.
    pub(crate) fn new(mode: Mode) -> Result<Option<Self>> {
        Self::with(LabOptions { mode, ..LabOptions::default() }, &Configuration::new(mode))
    }

    /// A lab whose box has further configuration.
    pub(crate) fn configured(mode: Mode, extra: &str) -> Result<Option<Self>> {
        let configuration = Configuration { extra: extra.to_owned(), ..Configuration::new(mode) };
        Self::with(LabOptions { mode, ..LabOptions::default() }, &configuration)
    }

    /// Any lab with a plain TCP server.
    pub(crate) fn with(options: LabOptions, configuration: &Configuration) -> Result<Option<Self>> {
        let Some(turn) = turn()? else { return Ok(None) };
        let lab = Lab::build(options)?;
        let middle = BoxProcess::start(&lab, configuration)?;
        let server = TransferServer::start(&lab, PORT)?;
        Ok(Some(Self { server, middle, lab, _turn: turn }))
    }

    /// Runs a transfer that must come out whole.
    pub(crate) fn transfer(&mut self, transfer: &Transfer) -> Result<TransferReport> {
        let report = transfer.run(&self.lab, &mut self.server)?;
        whole(&report)?;
        Ok(report)
    }

    /// Waits until the box holds nothing any more, and looks that it does not hold frames either. Nothing that the client's
    /// kernel counts of MPTCP may tell of damage or fallback.
    pub(crate) fn settled(&self) -> Result<Snapshot> {
        let stats = self.middle.wait_until_idle(SETTLE)?;
        if stats.pool.in_use > 0 {
            bail!("the box holds no conversion but {} frames", stats.pool.in_use);
        }
        let damage = damage(self.lab.client())?;
        if !damage.is_empty() {
            bail!("{}", damage.join("\n"));
        }
        Ok(stats)
    }

    /// Looks that neither kernel has a socket left over from connections that are over.
    pub(crate) fn no_sockets_left(&self) -> Result<()> {
        for (who, namespace) in [("client", self.lab.client()), ("server", self.lab.server())] {
            eventually(SETTLE, || {
                let left = namespace.tcp_sockets()?;
                if left.is_empty() { Ok(()) } else { bail!("the {who} still has sockets: {left:?}") }
            })?;
        }
        Ok(())
    }
}

/// Complains of a transfer that did not come out whole.
pub(crate) fn whole(report: &TransferReport) -> Result<()> {
    let faults = report.faults();
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\n")) }
}

/// Tries until it works or the time is over.
pub(crate) fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        match attempt() {
            Err(_) if std::time::Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            outcome => return outcome,
        }
    }
}
