//! The chart of cost over live conversions.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::rows::{Measured, What};
use super::world::{Direction, Order};

/// Draws the rows of full-size segments, in order, one line for each direction and number of subflows.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(file: &Path, rows: &[Measured]) -> anyhow::Result<()> {
    draw(file, rows).map_err(|error| anyhow!("cannot draw {}: {error}", file.display()))
}

fn draw(file: &Path, rows: &[Measured]) -> Result<(), Box<dyn std::error::Error>> {
    let largest = rows.iter().map(|measured| measured.row.load.segment_bytes).max().unwrap_or(0);
    let shown = |measured: &&Measured| {
        let row = &measured.row;
        let plain = row.load.order == Order::Straight && !row.shape.checksum;
        row.what == What::Data && plain && row.load.segment_bytes == largest
    };
    let top = rows.iter().filter(shown).map(|measured| measured.ns_per_segment).fold(100.0, f64::max) * 1.1;
    let most = rows.iter().map(|measured| measured.row.shape.conversions).max().unwrap_or(1).max(10);
    let area = SVGBackend::new(file, (900, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Cost of a segment of {largest} bytes"), ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((1_f64..f64::from(most)).log_scale(), 0_f64..top)?;
    chart.configure_mesh().x_desc("live conversions").y_desc("nanoseconds").draw()?;
    let lines = [
        (Direction::Upload, 1, RED),
        (Direction::Upload, 2, MAGENTA),
        (Direction::Download, 1, BLUE),
        (Direction::Download, 2, CYAN),
    ];
    for (direction, subflows, color) in lines {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(shown)
            .filter(|measured| measured.row.load.direction == direction && measured.row.shape.subflows == subflows)
            .map(|measured| (f64::from(measured.row.shape.conversions), measured.ns_per_segment))
            .collect();
        let way = if direction == Direction::Upload { "upload" } else { "download" };
        chart
            .draw_series(LineSeries::new(points.clone(), &color))?
            .label(format!("{way}, {subflows} subflow{}", if subflows > 1 { "s" } else { "" }))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
    }
    if let Some(floor) = rows.iter().find(|m| m.row.what == What::Floor && m.row.load.segment_bytes == largest) {
        let ends = [(1.0, floor.ns_per_segment), (f64::from(most), floor.ns_per_segment)];
        chart
            .draw_series(LineSeries::new(ends, &BLACK))?
            .label("bare forwarder")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
