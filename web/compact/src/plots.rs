//! Quality over bytes and losses over steps, as plots of the shared chart crate.

use chart::plot::{Line, Plot, Stroke, smooth};

use crate::report::{METRICS, Report, Variant, colour};

/// Names of what was done, for a legend: group, words.
pub const GROUPS: [(&str, &str); 9] = [
    ("original", "as it ships"),
    ("original_trained", "trained on with the same tokens"),
    ("quantised", "quantised only"),
    ("quantised_trained", "quantised only, with the same tokens"),
    ("pruned", "pruned only"),
    ("distilled", "pruned, distilled"),
    ("ecld", "ECLD: all three"),
    ("lora", "ECLD, only adapters learned"),
    ("random", "the same shape from random weights"),
];

/// Weight of the moving average over a loss.
const SMOOTHING: f64 = 0.9;

/// A metric over bytes: fewer bits alone as a line, with the same training too where it was measured, everything else as points
/// with their 95 % intervals.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "sizes for a chart")]
pub fn quality(report: &Report, metric: usize, [width, height]: [f64; 2], paint: impl Fn(&str) -> String) -> Plot {
    let at = |variant: &Variant| Some((variant.bytes as f64 / 1e6, variant.metric(metric)?));
    let mut lines = Vec::new();
    let compared = [["quantised", "original"], ["quantised_trained", "original_trained"]];
    let mut joined: [Vec<(f64, f64)>; 2] = Default::default();
    for variant in &report.variants {
        let Some((x, value)) = at(variant) else { continue };
        let paint = paint(colour(&variant.group));
        let points = |stroke, points| Line { name: variant.title.clone(), colour: paint.clone(), points, stroke };
        lines.push(points(Stroke::Faint, vec![(x, value.low), (x, value.high)]));
        lines.push(points(Stroke::Dots, vec![(x, value.value)]));
        for (groups, points) in compared.iter().zip(&mut joined) {
            if groups.contains(&variant.group.as_str()) {
                points.push((x, value.value));
            }
        }
    }
    for ([group, _], mut points) in compared.into_iter().zip(joined).filter(|(_, points)| points.len() > 1) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let name = GROUPS.iter().find(|(known, _)| *known == group).map_or(group, |(_, words)| words);
        lines.insert(0, Line { name: name.to_owned(), colour: paint(colour(group)), points, stroke: Stroke::Bold });
    }
    let y_name = METRICS.get(metric).copied().unwrap_or_default().to_owned();
    Plot { x_name: "file, MB".into(), y_name, log_x: false, log_y: false, lines, width, height }
}

/// The losses of all trainings, one colour each, over their steps; `None` where nothing was trained.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "steps of a chart")]
pub fn losses(report: &Report, [width, height]: [f64; 2], paint: impl Fn(&str) -> String) -> Option<Plot> {
    let lines = report.curves.iter().enumerate().flat_map(|(place, (name, losses))| {
        let points = losses.iter().enumerate().filter_map(|(step, loss)| Some((step as f64 + 1.0, (*loss)?)));
        let points: Vec<_> = points.collect();
        let colour = paint(curve_colour(place));
        let mean = Line {
            name: name.clone(),
            colour: colour.clone(),
            points: smooth(&points, SMOOTHING),
            stroke: Stroke::Bold,
        };
        [Line { name: name.clone(), colour, points, stroke: Stroke::Faint }, mean]
    });
    let lines: Vec<Line> = lines.collect();
    (!lines.is_empty()).then_some(Plot {
        x_name: "step".into(),
        y_name: "loss, nats".into(),
        log_x: false,
        log_y: true,
        lines,
        width,
        height,
    })
}

/// The colour of a training by its place in the report.
#[must_use]
pub fn curve_colour(place: usize) -> &'static str {
    const COLOURS: [&str; 6] = ["--run-1", "--run-2", "--run-3", "--run-4", "--run-5", "--run-6"];
    COLOURS[place % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn fewer_bits_are_a_line_and_the_rest_points() {
        let report = report();
        for metric in 0..METRICS.len() {
            let plot = quality(&report, metric, [600.0, 300.0], |token| format!("var({token})"));
            let joined: Vec<&Line> = plot.lines.iter().filter(|line| line.stroke == Stroke::Bold).collect();
            assert!(joined.iter().any(|line| line.points.len() >= 3));
            assert!(joined.iter().all(|line| line.points.is_sorted_by(|a, b| a.0 <= b.0)));
            let points = &plot.lines[joined.len()..];
            assert_eq!(points.iter().filter(|line| line.stroke == Stroke::Dots).count(), report.variants.len());
            assert!(points.iter().any(|line| line.colour == "var(--run-2)" && line.name.contains("ECLD")));
            let palette = chart::plot::Palette {
                surface: "#fff".into(),
                ink: "#000".into(),
                grid: "#ddd".into(),
                font: "serif".into(),
            };
            let drawn = chart::plot::svg(&plot, &palette).expect("points");
            assert!(drawn.contains("ECLD") && !drawn.contains("NaN"));
        }
    }

    #[test]
    fn losses_are_drawn_where_something_was_trained() {
        let plot = losses(&report(), [600.0, 300.0], str::to_owned).expect("trainings");
        assert_eq!(plot.lines.len(), 2 * report().curves.len());
        assert!(losses(&Report::default(), [600.0, 300.0], str::to_owned).is_none());
    }

    #[test]
    fn every_group_of_the_report_has_a_name() {
        for variant in report().variants {
            assert!(GROUPS.iter().any(|(group, _)| *group == variant.group), "{}", variant.group);
        }
    }
}
