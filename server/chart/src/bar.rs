//! Groups of bars with whiskers for the 95 % interval.

use serde::Serialize;

use super::axis::Axis;
use super::frame::{Frame, span_with_air};
use super::{Estimate, Level};

/// Bars of one colour, one a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bars {
    /// Name in the legend.
    pub name: String,
    /// One a group.
    pub values: Vec<Estimate>,
}

/// Groups of bars, and values to compare them with.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BarChart {
    /// Title over the chart.
    pub title: String,
    /// Title of the y axis, with the unit.
    pub y_title: String,
    /// Names of the groups, under the x axis.
    pub groups: Vec<String>,
    /// The bars.
    pub series: Vec<Bars>,
    /// Drawn across.
    pub levels: Vec<Level>,
}

impl BarChart {
    /// Draws it. Bars begin at 0.
    pub fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|s| s.values.iter().map(|e| e.value + e.half_width));
        let y = span_with_air(values.chain(self.levels.iter().map(|l| l.value)).chain([0.0]));
        let groups = self.groups.len().max(1) as f64;
        let mut frame = Frame::new(&self.title, "", &self.y_title, Axis { low: 0.0, high: groups, log: false }, y);
        let width = 0.8 / self.series.len().max(1) as f64;
        for (g, group) in self.groups.iter().enumerate() {
            // Long names stand in two rows in turn, so that neighbours do not meet.
            let lower = if g % 2 == 1 && self.groups.len() > 4 { 16.0 } else { 0.0 };
            frame.x_label(g as f64 + 0.5, group, lower);
        }
        for (i, series) in self.series.iter().enumerate() {
            let (_, fill, _) = Frame::series(i);
            for (g, estimate) in series.values.iter().enumerate().filter(|(_, e)| e.value.is_finite()) {
                let left = g as f64 + 0.1 + width * i as f64;
                let (x0, x1) = (frame.across(left), frame.across(left + width));
                let (top, base) = (frame.down(estimate.value), frame.down(0.0));
                let (wide, tall) = (x1 - x0 - 1.0, base - top);
                frame.put(&format!(
                    "<rect class=\"{fill}\" x=\"{x0:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\"/>"
                ));
                if estimate.half_width > 0.0 {
                    let middle = (x0 + x1) / 2.0;
                    let low = frame.down(estimate.value - estimate.half_width);
                    let high = frame.down(estimate.value + estimate.half_width);
                    frame.put(&format!(
                        "<path class=\"ink\" d=\"M{:.1} {low:.1}h6m-3 0V{high:.1}m-3 0h6\"/>",
                        middle - 3.0
                    ));
                }
            }
            frame.legend(&series.name, |x, y| {
                format!("<rect class=\"{fill}\" x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\"/>", x - 6.0, y - 6.0)
            });
        }
        frame.levels(&self.levels, self.series.len());
        frame.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_high_as_its_value() {
        let value = |value: f64| Estimate { value, half_width: 0.0 };
        let chart = BarChart {
            groups: vec!["one".to_owned(), "two".to_owned()],
            series: vec![Bars { name: "a".to_owned(), values: vec![value(1.0), value(0.5)] }],
            levels: vec![Level { name: "limit".to_owned(), value: 0.8 }],
            ..BarChart::default()
        };
        let svg = chart.svg();
        // 314 units high, 5 % of them air.
        assert!(svg.contains("height=\"299.0\"") && svg.contains("height=\"149.5\""), "{svg}");
        assert!([">one<", ">two<", ">a<", ">limit<"].iter().all(|t| svg.contains(t)));
    }
}
