//! The chart of verdicts by month of registration, as SVG. Its colours are placeholders, which the page's style
//! replaces for light and dark mode.

use std::collections::BTreeMap;

use plotters::prelude::*;

/// Width and height in the page's units. The page scales the chart.
const SIZE: (u32, u32) = (960, 260);

/// Placeholder colours for text and for lines: see the style.
const INK: RGBColor = RGBColor(1, 1, 1);
const LINE: RGBColor = RGBColor(2, 2, 2);

/// Placeholder colour for the verdict with this index.
fn colour(number: usize) -> RGBColor {
    RGBColor(16 + u8::try_from(number).unwrap_or(0), 16, 16)
}

/// Draws the chart: all months from the first to the last, each with its verdicts stacked. Empty if there is no month.
pub(super) fn of(
    months: &BTreeMap<String, BTreeMap<String, u64>>,
    verdicts: &[&str],
) -> Result<String, String> {
    let (Some((first, _)), Some((last, _))) = (months.first_key_value(), months.last_key_value())
    else {
        return Ok(String::new());
    };
    let (first, last) = (number(first), number(last));
    let tallest = months
        .values()
        .map(|piles| piles.values().sum::<u64>())
        .max()
        .unwrap_or(1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(4)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(first..last + 1, 0..tallest + tallest / 12 + 1)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(LINE)
            .bold_line_style(LINE)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 13, &INK))
            .x_labels(12)
            .y_labels(5)
            .x_label_formatter(&|month| name(*month))
            .draw()
            .map_err(|error| error.to_string())?;
        for (month, piles) in months {
            let at = number(month);
            let mut below = 0;
            for (index, verdict) in verdicts.iter().enumerate() {
                let height = piles.get(*verdict).copied().unwrap_or_default();
                if height == 0 {
                    continue;
                }
                let pile = [(at, below), (at + 1, below + height)];
                let mut pile = Rectangle::new(pile, colour(index).filled());
                pile.set_margin(0, 0, 1, 1);
                chart
                    .draw_series([pile])
                    .map_err(|error| error.to_string())?;
                below += height;
            }
        }
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// Converts `2026-11` to the number of months since the year 0.
fn number(month: &str) -> i32 {
    let (year, month) = month.split_once('-').unwrap_or_default();
    let of = |text: &str| text.parse::<i32>().unwrap_or_default();
    of(year) * 12 + of(month) - 1
}

fn name(month: i32) -> String {
    format!(
        "{:04}-{:02}",
        month.div_euclid(12),
        month.rem_euclid(12) + 1
    )
}
