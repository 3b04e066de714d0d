//! Lines over a numeric axis, with the 95 % interval as a band or as whiskers.

use serde::Serialize;

use super::Level;
use super::axis::{path, thinned};
use super::frame::{Frame, span, span_with_air};

/// More points than this are thinned: the file stays small however long a curve is.
const MOST_POINTS: usize = 400;
/// Up to so many points each is marked, and intervals are whiskers instead of a band.
const MARKED_POINTS: usize = 16;

/// A point of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Point {
    /// Where on the x axis.
    pub x: f64,
    /// Where on the y axis.
    pub y: f64,
    /// Half the width of the 95 % interval; 0 draws none.
    pub half_width: f64,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// Its points in order of x; what is not finite is left out.
    pub points: Vec<Point>,
}

/// Lines, and values to compare them with.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LineChart {
    /// Title over the chart.
    pub title: String,
    /// Title of the x axis, with the unit.
    pub x_title: String,
    /// Title of the y axis, with the unit.
    pub y_title: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// Drawn across.
    pub levels: Vec<Level>,
}

impl LineChart {
    /// Draws it.
    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let x = span(all().map(|p| p.x));
        // Whiskers are to be seen whole. A band may be cut off: one wide stretch would flatten every line.
        let whole = |line: &&Line| line.points.len() <= MARKED_POINTS;
        let whiskers = self.lines.iter().filter(whole).flat_map(|line| &line.points);
        let ends = whiskers.flat_map(|p| [p.y - p.half_width, p.y + p.half_width]).chain(all().map(|p| p.y));
        let y = span_with_air(ends.chain(self.levels.iter().map(|level| level.value)));
        let mut frame = Frame::new(&self.title, &self.x_title, &self.y_title, x, y);
        frame.x_ticks();
        for (i, line) in self.lines.iter().enumerate() {
            let finite: Vec<Point> =
                line.points.iter().copied().filter(|p| p.x.is_finite() && p.y.is_finite()).collect();
            let points: Vec<Point> = thinned(&finite, MOST_POINTS).collect();
            draw(&mut frame, i, &line.name, &points);
        }
        frame.levels(&self.levels, self.lines.len());
        frame.finish()
    }
}

/// A marker of the `index`-th line around a point: disc, square, triangle, in turn.
fn marker(index: usize, fill: &str, x: f64, y: f64) -> String {
    match index % 3 {
        0 => format!("<circle class=\"{fill}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"),
        1 => format!("<rect class=\"{fill}\" x=\"{:.1}\" y=\"{:.1}\" width=\"6.4\" height=\"6.4\"/>", x - 3.2, y - 3.2),
        _ => format!("<path class=\"{fill}\" d=\"M{:.1} {:.1}h8l-4 -7z\"/>", x - 4.0, y + 3.0),
    }
}

fn draw(frame: &mut Frame, index: usize, name: &str, points: &[Point]) {
    let (stroke, fill, dash) = Frame::series(index);
    let marked = points.len() <= MARKED_POINTS;
    let interval = points.iter().any(|p| p.half_width > 0.0);
    if marked {
        for p in points.iter().filter(|p| p.half_width > 0.0) {
            let (x, low, high) = (frame.across(p.x), frame.down(p.y - p.half_width), frame.down(p.y + p.half_width));
            frame.put(&format!("<path class=\"{stroke}\" d=\"M{:.1} {low:.1}h6m-3 0V{high:.1}m-3 0h6\"/>", x - 3.0));
        }
    } else if interval {
        let at = |x, y| (frame.across(x), frame.down(y));
        let upper = points.iter().map(|p| at(p.x, p.y + p.half_width));
        let lower = points.iter().rev().map(|p| at(p.x, p.y - p.half_width));
        let band = path(upper.chain(lower));
        frame.put(&format!("<path class=\"{fill}\" opacity=\".18\" d=\"{band}z\"/>"));
    }
    let line = path(points.iter().map(|p| (frame.across(p.x), frame.down(p.y))));
    frame.put(&format!("<path class=\"{stroke}\" fill=\"none\" stroke-width=\"1.8\"{dash} d=\"{line}\"/>"));
    if marked {
        for p in points {
            let element = marker(index, &fill, frame.across(p.x), frame.down(p.y));
            frame.put(&element);
        }
    }
    frame.legend(name, |x, y| {
        let sample = if marked { marker(index, &fill, x, y) } else { String::new() };
        format!("<path class=\"{stroke}\" stroke-width=\"1.8\"{dash} d=\"M{:.1} {y:.1}h32\"/>{sample}", x - 16.0)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_stays_small_and_names_its_lines() {
        let points = (0..100_000).map(|i| Point { x: f64::from(i), y: f64::from(i).sqrt(), half_width: 1.0 }).collect();
        let broken =
            vec![Point { x: 0.0, y: f64::NAN, half_width: f64::NAN }, Point { x: 5.0, y: 3.0, half_width: 0.0 }];
        let chart = LineChart {
            title: "a < b & c".to_owned(),
            lines: vec![
                Line { name: "policy".to_owned(), points },
                Line { name: "broken".to_owned(), points: broken },
                Line { name: "empty".to_owned(), points: Vec::new() },
            ],
            levels: vec![Level { name: "optimum".to_owned(), value: 200.0 }],
            ..LineChart::default()
        };
        let svg = chart.svg();
        assert!(svg.len() < 40_000, "{}", svg.len());
        assert!([">policy<", ">broken<", ">empty<", ">optimum<", "a &lt; b &amp; c"].iter().all(|t| svg.contains(t)));
        assert!(!svg.contains("NaN") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_point_lies_where_its_value_says() {
        let points = vec![Point { x: 0.0, y: 0.0, half_width: 0.0 }, Point { x: 10.0, y: 1.0, half_width: 0.0 }];
        let chart = LineChart { lines: vec![Line { name: String::new(), points }], ..LineChart::default() };
        // The whole width for 0 to 10; the height has 5 % of air over 1.
        assert!(chart.svg().contains("d=\"M64.0 350.0L545.0 51.0\""), "{}", chart.svg());
    }
}
