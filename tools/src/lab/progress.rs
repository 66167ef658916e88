//! Progress of a transfer: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a line is printed where there is no terminal.
const PACE: Duration = Duration::from_secs(5);

/// Shows how far something is.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    total: u64,
    began: Instant,
    last: Instant,
}

impl Progress {
    pub(crate) fn begin(label: &str, total: u64) -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template =
                "  {msg:24} {wide_bar:.cyan/blue} {bytes:>11} of {total_bytes}  {bytes_per_sec:>13}  {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(label.to_owned());
            bar
        });
        if bar.is_none() {
            eprintln!("  {label} …");
        }
        Self { bar, label: label.to_owned(), total, began: now, last: now }
    }

    pub(crate) fn set(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done.min(self.total));
        } else if self.last.elapsed() >= PACE {
            self.last = Instant::now();
            let percent = done.min(self.total) * 100 / self.total.max(1);
            eprintln!("  {}: {percent}% after {} s", self.label, self.began.elapsed().as_secs());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
