//! What every chart has: a title, two axes with titles and a grid, a legend, colours.

use std::fmt::Write;

use super::Level;
use super::axis::{Axis, escape};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
/// The legend's column lies to the right of this.
const RIGHT: f64 = 545.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 350.0;

/// Okabe and Ito's colours for any colour vision, yellow left out (it cannot be seen on white), and lighter ones of the
/// same hues for dark backgrounds.
const COLOURS: [(&str, &str); 7] = [
    ("#0072b2", "#5ab4f0"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#35d6a5"),
    ("#b5568a", "#eca6cd"),
    ("#b87f00", "#f5c04a"),
    ("#3a95cc", "#a5dcff"),
    ("#555555", "#c8c8c8"),
];
/// Dashes of the second and third round through the colours.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"9 3\"", " stroke-dasharray=\"3 3\""];

/// Height of a row of the legend, and letters that fit into one.
const LEGEND_ROW: f64 = 18.0;
const LEGEND_LETTERS: usize = 24;

/// A text in rows of at most so many letters, longer words excepted.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match rows.last_mut() {
            Some(row) if row.chars().count() + 1 + word.chars().count() <= most => {
                row.push(' ');
                row.push_str(word);
            }
            _ => rows.push(word.to_owned()),
        }
    }
    rows
}

/// The axis of a chart over some values, from 0 to 1 without any.
pub fn span(values: impl Iterator<Item = f64>) -> Axis {
    Axis::over(values, false).unwrap_or(Axis { low: 0.0, high: 1.0, log: false })
}

/// The same with some air, and down to 0 if that is not far: a bar or a curve is read against it.
pub fn span_with_air(values: impl Iterator<Item = f64>) -> Axis {
    let axis = span(values);
    let down = axis.low >= 0.0 && axis.low < 0.5 * axis.high;
    let aired = axis.with_air(0.05);
    if down { Axis { low: 0.0, ..aired } } else { aired }
}

/// A chart that is being drawn.
pub struct Frame {
    out: String,
    x: Axis,
    y: Axis,
    legend_rows: usize,
}

impl Frame {
    /// Title, axes' titles and the y axis with its grid. The x axis has no ticks yet.
    pub fn new(title: &str, x_title: &str, y_title: &str, x: Axis, y: Axis) -> Self {
        let mut style = String::new();
        for (scheme, fill, ink, grid) in [("light", "#fff", "#222", "#ddd"), ("dark", "#16181d", "#e6e6e6", "#3a3f47")]
        {
            let dark = scheme == "dark";
            let mut rules = format!(".back{{fill:{fill}}}text{{fill:{ink}}}.grid{{stroke:{grid}}}.ink{{stroke:{ink}}}");
            for (i, colours) in COLOURS.iter().enumerate() {
                let colour = if dark { colours.1 } else { colours.0 };
                let _ = write!(rules, ".s{i}{{stroke:{colour}}}.f{i}{{fill:{colour}}}");
            }
            style += &if dark { format!("@media(prefers-color-scheme:dark){{{rules}}}") } else { rules };
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let centre = (TOP + BOTTOM) / 2.0;
        let (title, x_title, y_title) = (escape(title), escape(x_title), escape(y_title));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<style>{style}</style>\n\
             <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n\
             <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n\
             <text x=\"{middle}\" y=\"{:.0}\" text-anchor=\"middle\">{x_title}</text>\n\
             <text transform=\"translate(16 {centre}) rotate(-90)\" text-anchor=\"middle\">{y_title}</text>\n",
            HEIGHT - 12.0
        );
        let mut frame = Self { out: String::new(), x, y, legend_rows: 0 };
        for (tick, text) in y.ticks() {
            let at = frame.down(tick);
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
        }
        let _ = writeln!(out, "<path class=\"ink\" fill=\"none\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
        frame.out = out;
        frame
    }

    /// Where a value of the x axis lies, in user units.
    pub fn across(&self, x: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * self.x.along(x)
    }

    /// Where a value of the y axis lies; what is outside lies on the edge.
    pub fn down(&self, y: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.y.along(y).clamp(0.0, 1.0)
    }

    /// Adds an element.
    pub fn put(&mut self, element: &str) {
        self.out.push_str(element);
        self.out.push('\n');
    }

    /// A label under the x axis, `lower` units lower than usual.
    pub fn x_label(&mut self, x: f64, text: &str, lower: f64) {
        let at = self.across(x);
        let (y, text) = (BOTTOM + 16.0 + lower, escape(text));
        self.put(&format!("<text x=\"{at:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>"));
    }

    /// Round numbers along the x axis.
    pub fn x_ticks(&mut self) {
        for (tick, text) in self.x.ticks() {
            let at = self.across(tick);
            self.put(&format!("<path class=\"ink\" d=\"M{at:.1} {BOTTOM}v4\"/>"));
            self.x_label(tick, &text, 0.0);
        }
    }

    /// Classes and dash of the `index`-th series: (stroke, fill, dash).
    pub fn series(index: usize) -> (String, String, &'static str) {
        let colour = index % COLOURS.len();
        (format!("s{colour}"), format!("f{colour}"), DASHES[(index / COLOURS.len()).min(DASHES.len() - 1)])
    }

    /// A name in the legend beside a sample that is drawn around the given point.
    pub fn legend(&mut self, name: &str, sample: impl FnOnce(f64, f64) -> String) {
        let y = TOP + 8.0 + LEGEND_ROW * self.legend_rows as f64;
        let sample = sample(RIGHT + 26.0, y);
        self.put(&sample);
        for row in wrapped(name, LEGEND_LETTERS) {
            let y = TOP + 12.0 + LEGEND_ROW * self.legend_rows as f64;
            self.put(&format!("<text x=\"{:.1}\" y=\"{y:.1}\">{}</text>", RIGHT + 46.0, escape(&row)));
            self.legend_rows += 1;
        }
    }

    /// Lines across the whole chart, in the colours from `first` on.
    pub fn levels(&mut self, levels: &[Level], first: usize) {
        for (i, level) in levels.iter().enumerate() {
            let (stroke, ..) = Self::series(first + i);
            let style = format!("class=\"{stroke}\" stroke-width=\"1.6\" stroke-dasharray=\"6 4\"");
            if level.value.is_finite() {
                let y = self.down(level.value);
                self.put(&format!("<path {style} d=\"M{LEFT} {y:.1}H{RIGHT}\"/>"));
            }
            self.legend(&level.name, |x, y| format!("<path {style} d=\"M{:.1} {y:.1}h32\"/>", x - 16.0));
        }
    }

    /// The whole file.
    pub fn finish(mut self) -> String {
        self.out.push_str("</svg>\n");
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_take_several_rows() {
        assert_eq!(wrapped("ppo gae", 10), ["ppo gae"]);
        assert_eq!(wrapped("ppo gae, gae_lambda 0.95", 10), ["ppo gae,", "gae_lambda", "0.95"]);
        assert_eq!(wrapped("", 10), [""]);
    }

    #[test]
    fn a_chart_of_nothing_has_axes_and_zero_is_shown_where_it_is_near() {
        assert_eq!(span([].into_iter()), Axis { low: 0.0, high: 1.0, log: false });
        let axis = span_with_air([1.0, 3.0].into_iter());
        assert!(axis.low == 0.0 && (axis.high - 3.1).abs() < 1e-12, "{axis:?}");
        let axis = span_with_air([9.0, 10.0].into_iter());
        assert!((axis.low - 8.95).abs() < 1e-12 && (axis.high - 10.05).abs() < 1e-12, "{axis:?}");
    }
}
