//! What every chart has: a title, two axes with titles and a grid, a legend, colours.

use std::fmt::Write;

use super::Level;

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

/// A linear axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Least value.
    pub low: f64,
    /// Greatest value, over `low`.
    pub high: f64,
}

impl Range {
    /// Spans the finite ones of some values; never empty.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        match (low.is_finite(), high > low) {
            (false, _) => Self { low: 0.0, high: 1.0 },
            (true, true) => Self { low, high },
            (true, false) => Self { low: low - 0.5, high: high + 0.5 },
        }
    }

    /// The same with some air, and down to 0 if that is not far: a bar or a curve is read against it.
    pub fn with_air(self) -> Self {
        let air = 0.05 * (self.high - self.low);
        let low = if self.low >= 0.0 && self.low < 0.5 * self.high { 0.0 } else { self.low - air };
        Self { low, high: self.high + air }
    }

    /// Round values within, about five, and the step between them.
    fn ticks(self) -> (Vec<f64>, f64) {
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        ((first..=last).map(|i| i as f64 * step).collect(), step)
    }
}

/// A number as briefly as a step between ticks allows.
fn label(value: f64, step: f64) -> String {
    let (scale, unit) = match step {
        1e6.. => (1e6, "M"),
        1e3.. => (1e3, "k"),
        _ => (1.0, ""),
    };
    let (value, step) = (value / scale, step / scale);
    let is_whole = |v: f64| (v - v.round()).abs() < 1e-6;
    let digits = (0..6).find(|d| is_whole(step * 10f64.powi(*d))).unwrap_or(6) as usize;
    format!("{value:.digits$}{unit}")
}

/// Text that is safe within an element.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A chart that is being drawn.
pub struct Frame {
    out: String,
    x: Range,
    y: Range,
    legend_rows: usize,
}

impl Frame {
    /// Title, axes' titles and the y axis with its grid. The x axis has no ticks yet.
    pub fn new(title: &str, x_title: &str, y_title: &str, x: Range, y: Range) -> Self {
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
        let (ticks, step) = y.ticks();
        for tick in ticks {
            let at = frame.down(tick);
            let _ = writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/>");
            let text = label(tick, step);
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
        }
        let _ = writeln!(out, "<path class=\"ink\" fill=\"none\" d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\"/>");
        frame.out = out;
        frame
    }

    /// Where a value of the x axis lies, in user units.
    pub fn across(&self, x: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (x - self.x.low) / (self.x.high - self.x.low)
    }

    /// Where a value of the y axis lies; what is outside lies on the edge.
    pub fn down(&self, y: f64) -> f64 {
        let share = (y - self.y.low) / (self.y.high - self.y.low);
        BOTTOM - (BOTTOM - TOP) * share.clamp(0.0, 1.0)
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
        let (ticks, step) = self.x.ticks();
        for tick in ticks {
            let at = self.across(tick);
            self.put(&format!("<path class=\"ink\" d=\"M{at:.1} {BOTTOM}v4\"/>"));
            self.x_label(tick, &label(tick, step), 0.0);
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
    fn ticks_are_round_and_within() {
        for (low, high, want) in [
            (0.0, 2.3, vec!["0.0", "0.5", "1.0", "1.5", "2.0"]),
            (0.0, 100_000.0, vec!["0k", "20k", "40k", "60k", "80k", "100k"]),
            (0.55, 0.85, vec!["0.6", "0.7", "0.8"]),
            (2.0, 5.0, vec!["2", "3", "4", "5"]),
        ] {
            let (ticks, step) = Range { low, high }.ticks();
            assert_eq!(ticks.iter().map(|t| label(*t, step)).collect::<Vec<_>>(), want);
        }
    }

    #[test]
    fn long_names_take_several_rows() {
        assert_eq!(wrapped("ppo gae", 10), ["ppo gae"]);
        assert_eq!(wrapped("ppo gae, gae_lambda 0.95", 10), ["ppo gae,", "gae_lambda", "0.95"]);
        assert_eq!(wrapped("", 10), [""]);
    }

    #[test]
    fn ranges_are_never_empty() {
        for values in [vec![], vec![3.0], vec![f64::NAN, 2.0, 2.0], vec![-1.0, f64::INFINITY]] {
            let range = Range::of(values.into_iter()).with_air();
            assert!(range.high > range.low && range.low.is_finite() && range.high.is_finite(), "{range:?}");
        }
    }
}
