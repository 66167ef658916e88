//! What the box puts on the wire, by the judgement of tshark; and what others leave unfinished there.

use anyhow::{Result, ensure};
use mimbox_stack::Counter;
use mimbox_tools::lab::transfer::{Direction, Outcome};
use mimbox_tools::lab::{Mode, Plan, Transfer};

use crate::bench::{Bench, MIB, eventually};

#[test]
fn checksums_that_a_device_left_unfinished_are_recognised() -> Result<()> {
    let Some(mut bench) = Bench::new(Mode::Explicit)? else { return Ok(()) };
    let device = Plan::SERVER_INTERFACE;
    bench.lab.server().run("ethtool", &["-K", device, "tx", "on"])?;
    let transfer = Transfer { stall: 3, ..Transfer::new(Direction::Upload, 1) };
    let running = transfer.start(&bench.lab, &bench.server)?;
    eventually(std::time::Duration::from_secs(15), || {
        let stats = bench.middle.stats()?;
        ensure!(stats.counters.get(Counter::DropTcpChecksumPartial) > 0, "nothing was counted");
        let log = bench.middle.log();
        ensure!(log.contains("ethtool -K") && log.contains("core0"), "the log does not say what mends it:\n{log}");
        let shown = bench.middle.ask(&["stats"])?;
        ensure!(shown.contains("ethtool -K"), "mimbox stats does not say what mends it:\n{shown}");
        Ok(())
    })?;
    drop(running);
    bench.lab.server().finish_checksums(device)?;
    let report = Transfer { seed: 2, ..Transfer::new(Direction::Upload, MIB) }.run(&bench.lab, &mut bench.server)?;
    ensure!(report.client.first().is_some_and(|client| client.outcome == Outcome::Complete), "{:?}", report.client);
    Ok(())
}
