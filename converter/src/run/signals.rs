//! SIGINT and SIGTERM, turned into a number that the worker looks at.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use mimbox_dataplane::Notify;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Pending};

/// Signals that came, or will come. Caught from the first moment, counted once somebody listens.
pub(super) struct Signals {
    pending: RefCell<Option<Pending>>,
    arrived: Cell<bool>,
    handle: Handle,
}

/// Ends the listening thread.
pub(super) struct Listening(Handle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Signals {
    /// From now on the signals do not end the process by themselves.
    pub(super) fn catch() -> io::Result<Self> {
        let pending = Pending::new([SIGINT, SIGTERM])?;
        Ok(Self { handle: pending.handle(), pending: RefCell::new(Some(pending)), arrived: Cell::new(false) })
    }

    /// Whether a signal has come so far, as long as nobody listens.
    pub(super) fn arrived(&self) -> bool {
        if let Some(pending) = self.pending.borrow_mut().as_mut()
            && let Some(signal) = pending.pending().next()
        {
            tracing::info!(signal, "asked to stop");
            self.arrived.set(true);
        }
        self.arrived.get()
    }

    /// Counts each signal in `requests` and wakes the worker.
    pub(super) fn listen(&self, requests: Arc<AtomicU8>, waker: Notify) -> Listening {
        let taken = self.pending.borrow_mut().take();
        if let Some(mut pending) = taken {
            let spawned = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
                for signal in pending.forever() {
                    tracing::info!(signal, "asked to stop");
                    requests.fetch_add(1, Ordering::Relaxed);
                    waker.raise();
                }
            });
            if let Err(error) = spawned {
                tracing::error!(%error, "no thread for signals: only SIGKILL will stop this process");
            }
        }
        Listening(self.handle.clone())
    }
}
