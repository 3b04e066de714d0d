//! Quality over bytes, and Fig. 6.

use chart::{BarChart, Bars, Estimate, Line, LineChart, Point};
use lm::family::{Group, Interval};

use super::{Report, Variant};

fn half_width(interval: &Interval) -> f64 {
    (interval.high - interval.low) / 2.0
}

/// One metric over the bytes of the file: quantised only as a line, the others as points that belong together.
pub fn quality_over_bytes(report: &Report, metric: usize, name: &str) -> LineChart {
    let of = |groups: &[Group], title: &str| -> Line {
        let wanted = |variant: &&Variant| groups.contains(&variant.group) && variant.draw == 0;
        let point = |variant: &Variant| {
            let interval = variant.metrics.get(metric).copied().flatten()?;
            let (x, y) = (variant.bytes as f64 / 1e6, interval.value);
            Some(Point { x, y, half_width: half_width(&interval) })
        };
        let mut points: Vec<Point> = report.variants.iter().filter(wanted).filter_map(point).collect();
        points.sort_by(|left, right| left.x.total_cmp(&right.x));
        Line { name: title.to_owned(), points }
    };
    let all = [
        of(&[Group::Original, Group::Quantised], "quantised only"),
        of(&[Group::Ecld], "ECLD"),
        of(&[Group::Distilled], "pruned, distilled"),
        of(&[Group::Pruned], "pruned only"),
        of(&[Group::QuantisedTrained], "quantised, same tokens"),
        of(&[Group::OriginalTrained], "original, same tokens"),
        of(&[Group::Lora], "pruned, LoRA"),
        of(&[Group::Random], "random weights"),
    ];
    LineChart {
        title: format!("{name} over bytes"),
        x_title: "file, MB".to_owned(),
        y_title: name.to_owned(),
        lines: all.into_iter().filter(|line| !line.points.is_empty()).collect(),
        levels: Vec::new(),
    }
}

/// HRE and ARE of every variant, by min(x)/x.
pub fn efficiency(report: &Report) -> BarChart {
    let bars = |name: &str, which: usize| {
        let value = |variant: &Variant| {
            let value = variant.efficiency.first().and_then(|pair| pair.get(which)).copied().unwrap_or(0.0);
            Estimate { value, half_width: 0.0 }
        };
        Bars { name: name.to_owned(), values: report.variants.iter().map(value).collect() }
    };
    BarChart {
        title: "Fig. 6 of our family: HRE and ARE by min(x)/x".to_owned(),
        y_title: "harmonic mean".to_owned(),
        groups: report.variants.iter().map(|variant| variant.id.clone()).collect(),
        series: vec![bars("HRE", 0), bars("ARE", 1)],
        levels: Vec::new(),
    }
}
