//! Lines in colours of the caller's, on linear or logarithmic axes: what the page shows, and what it hands out as a picture.

use std::fmt::Write as _;

use super::axis::{self, Axis, escape, thinned};

/// A line through points.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it shows, for screen readers and pointers.
    pub name: String,
    /// Any CSS colour.
    pub colour: String,
    /// Points (x, y), x rising. What is no finite number is left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub stroke: Stroke,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// What counts.
    Bold,
    /// Values that no line joins: a dot each.
    Dots,
    /// What happens on the way.
    Faint,
    /// Something to compare with; its one point makes a level line.
    Dashed,
    /// Something else to compare with, in the same way.
    Dotted,
}

impl Stroke {
    fn is_level(self) -> bool {
        matches!(self, Self::Dashed | Self::Dotted)
    }
}

/// Colours of everything but the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Behind all.
    pub surface: String,
    /// Text.
    pub ink: String,
    /// Grid.
    pub grid: String,
    /// Font family.
    pub font: String,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Name of the x axis with its unit.
    pub x_name: String,
    /// Name of the y axis with its unit.
    pub y_name: String,
    /// Logarithmic x; points at or below 0 are left out.
    pub log_x: bool,
    /// Logarithmic y; points at or below 0 are left out.
    pub log_y: bool,
    /// Lines, the last on top.
    pub lines: Vec<Line>,
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
}

/// More points of a line than this are thinned: nobody sees them, and every one costs.
const MOST_POINTS: usize = 600;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 40.0;
/// Room at the top and bottom of the y axis, as a share of its range.
const MARGIN: f64 = 0.06;

/// Draws a chart; `None` when it holds no point.
#[must_use]
pub fn svg(plot: &Plot, palette: &Palette) -> Option<String> {
    let shown =
        |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && !(plot.log_x && x <= 0.0) && !(plot.log_y && y <= 0.0);
    // A level has no place on the x axis.
    let points = |line: &Line| line.points.iter().copied().filter(|p| shown(p)).collect::<Vec<_>>();
    let curves = || plot.lines.iter().filter(|line| !line.stroke.is_level());
    let xs = curves().flat_map(|line| points(line).into_iter().map(|p| p.0)).collect::<Vec<_>>();
    let level = |line: &Line| line.points.first().map(|p| p.1).filter(|y| shown(&(1.0, *y)));
    let ys = curves().flat_map(|line| points(line).into_iter().map(|p| p.1));
    let levels = plot.lines.iter().filter(|line| line.stroke.is_level()).filter_map(level);
    let start = (!plot.log_x).then_some(0.0);
    let x_axis = Axis::over(xs.into_iter().chain(start), plot.log_x)?;
    let y_axis = Axis::over(ys.chain(levels), plot.log_y)?.with_air(MARGIN);
    let (width, height) = (plot.width, plot.height);
    let (inner_width, inner_height) = (width - LEFT - RIGHT, height - TOP - BOTTOM);
    let across = |x: f64| LEFT + inner_width * x_axis.along(x).clamp(-0.01, 1.01);
    let down = |y: f64| TOP + inner_height * (1.0 - y_axis.along(y).clamp(-0.01, 1.01));

    let Palette { surface, ink, grid, font } = palette;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         style=\"font-family:{};font-size:12px\"><rect width=\"100%\" height=\"100%\" style=\"fill:{surface}\"/>",
        escape(font)
    );
    let text = |out: &mut String, x: f64, y: f64, anchor: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" style=\"fill:{ink}\">{}</text>",
            escape(text)
        );
    };
    for (tick, label) in y_axis.ticks() {
        let y = down(tick);
        let _ = write!(out, "<path d=\"M{LEFT} {y:.1}H{:.1}\" style=\"stroke:{grid}\"/>", width - RIGHT);
        text(&mut out, LEFT - 6.0, y + 4.0, "end", &label);
    }
    for (tick, label) in x_axis.ticks() {
        let x = across(tick);
        // The last one would stick out.
        let anchor = if x > width - RIGHT - 12.0 { "end" } else { "middle" };
        text(&mut out, x, height - BOTTOM + 16.0, anchor, &label);
    }
    text(&mut out, LEFT - 6.0, 14.0, "start", &plot.y_name);
    text(&mut out, width - RIGHT, height - 6.0, "end", &plot.x_name);
    for line in &plot.lines {
        let path = match line.stroke {
            stroke if stroke.is_level() => level(line).map(|y| format!("M{LEFT} {:.1}H{:.1}", down(y), width - RIGHT)),
            Stroke::Dots => dots(&points(line), across, down),
            _ => path(&points(line), across, down),
        };
        let Some(path) = path else { continue };
        let look = match line.stroke {
            Stroke::Bold => "stroke-width:2;stroke-linejoin:round;stroke-linecap:round",
            Stroke::Dots => "stroke-width:9;stroke-linecap:round",
            Stroke::Faint => "stroke-width:1.25;opacity:0.55",
            Stroke::Dashed => "stroke-width:1.25;stroke-dasharray:6 4",
            Stroke::Dotted => "stroke-width:1.5;stroke-dasharray:1.5 3",
        };
        let _ = write!(
            out,
            "<path d=\"{path}\" style=\"fill:none;stroke:{};{look}\"><title>{}</title></path>",
            line.colour,
            escape(&line.name)
        );
    }
    out.push_str("</svg>");
    Some(out)
}

/// A path through points; a single one becomes a dot.
fn path(points: &[(f64, f64)], across: impl Fn(f64) -> f64, down: impl Fn(f64) -> f64) -> Option<String> {
    let dot = if points.len() == 1 { "h0.01" } else { "" };
    let path = axis::path(thinned(points, MOST_POINTS).map(|(x, y)| (across(x), down(y))));
    (!points.is_empty()).then(|| path + dot)
}

/// A dot at each of the points.
fn dots(points: &[(f64, f64)], across: impl Fn(f64) -> f64, down: impl Fn(f64) -> f64) -> Option<String> {
    let mut path = String::new();
    for (x, y) in thinned(points, MOST_POINTS) {
        let _ = write!(path, "M{:.1} {:.1}h0.01", across(x), down(y));
    }
    (!path.is_empty()).then_some(path)
}

/// Exponential moving average with weight `weight` (0 is off, below 1), without the pull towards 0 at the beginning.
#[must_use]
pub fn smooth(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let weight = weight.clamp(0.0, 0.999);
    let (mut mean, mut share) = (0.0, 0.0);
    let finite = points.iter().filter(|(_, y)| y.is_finite());
    finite
        .map(|(x, y)| {
            mean = weight * mean + (1.0 - weight) * y;
            share = weight * share + (1.0 - weight);
            (*x, mean / share)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn palette() -> Palette {
        let colour = |text: &str| text.to_owned();
        Palette { surface: colour("#fff"), ink: colour("#000"), grid: colour("#ddd"), font: colour("sans-serif") }
    }

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        let line = |stroke, points| Line { name: "a < b".into(), colour: "red".into(), points, stroke };
        Plot {
            x_name: "steps".into(),
            y_name: "reward".into(),
            log_x: false,
            log_y: false,
            lines: vec![line(Stroke::Bold, points), line(Stroke::Dashed, vec![(0.0, 2.0)])],
            width: 600.0,
            height: 300.0,
        }
    }

    #[test]
    fn dots_are_not_joined() {
        let mut of_dots = plot(vec![(10.0, 1.0), (30.0, 1.5)]);
        of_dots.lines[0].stroke = Stroke::Dots;
        let drawn = svg(&of_dots, &palette()).expect("points");
        assert_eq!(drawn.matches("h0.01").count(), 2);
        assert!(drawn.contains("stroke-width:9"));
    }

    #[test]
    fn a_curve_and_a_level() {
        let drawn = svg(&plot(vec![(10.0, 1.0), (20.0, f64::NAN), (30.0, 1.5)]), &palette()).expect("points");
        assert_eq!(drawn.matches("<path").count() - drawn.matches("stroke:#ddd").count(), 2);
        assert!(drawn.contains("a &lt; b") && drawn.contains("steps") && !drawn.contains("NaN"), "{drawn}");
        assert!(svg(&plot(Vec::new()), &palette()).is_some(), "the level alone is something");
        let nothing = Plot { lines: Vec::new(), ..plot(Vec::new()) };
        assert_eq!(svg(&nothing, &palette()), None);
        assert!(svg(&plot(vec![(0.0, 2.0)]), &palette()).expect("one point").contains("h0.01"));
    }

    #[test]
    fn a_long_curve_stays_small_and_keeps_its_end() {
        let points: Vec<_> = (0..100_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        let drawn = svg(&plot(points), &palette()).expect("points");
        assert!(drawn.len() < 15_000, "{}", drawn.len());
        assert!(drawn.contains("L588.0 "), "the last point is at the right end: {drawn}");
    }

    #[test]
    fn a_logarithmic_axis_leaves_out_what_it_cannot_show() {
        let mut plot = plot(vec![(0.0, 1.0), (10.0, -1.0), (100.0, 0.001), (1000.0, 10.0)]);
        (plot.log_x, plot.log_y) = (true, true);
        let drawn = svg(&plot, &palette()).expect("points");
        let curve = drawn.split("d=\"").map(|part| part.split('"').next().unwrap_or("")).find(|d| d.contains('L'));
        assert_eq!(curve.map(|d| d.matches(['M', 'L']).count()), Some(2), "{drawn}");
    }

    #[test]
    fn smoothing_keeps_a_level_and_calms_a_curve() {
        let level = vec![(0.0, 3.0), (1.0, 3.0), (2.0, f64::NAN), (3.0, 3.0)];
        assert!(smooth(&level, 0.9).iter().all(|(_, y)| (y - 3.0).abs() < 1e-12));
        assert_eq!(smooth(&level, 0.9).len(), 3);
        let wild: Vec<_> = (0..100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let calm = smooth(&wild, 0.95);
        assert!(calm[80..].iter().all(|(_, y)| (y - 0.5).abs() < 0.05));
        assert_eq!(smooth(&wild, 0.0), wild);
    }
}
