//! A small SVG of the learning curve: one panel, reward over environment steps, with the optimum and the closed form as
//! lines to compare with.

use std::fmt::Write;

/// A line of the picture.
pub struct Series<'a> {
    /// Name in the legend.
    pub name: &'a str,
    /// Colour, any CSS colour.
    pub colour: &'a str,
    /// Points (step, value) in order of steps; one point makes a level line.
    pub points: &'a [(f64, f64)],
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 32.0;
/// More points than this are thinned: the file stays small however long the run was.
const MOST_POINTS: usize = 400;

/// Draws the picture.
pub fn draw(title: &str, series: &[Series<'_>]) -> String {
    let all = || series.iter().flat_map(|s| s.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let x_max = all().map(|p| p.0).fold(1.0, f64::max);
    let y_max = all().map(|p| p.1).fold(f64::MIN_POSITIVE, f64::max) * 1.05;
    let at = |x: f64, y: f64| {
        let across = LEFT + (WIDTH - LEFT - 12.0) * x / x_max;
        (across, HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 28.0) * (y / y_max).clamp(0.0, 1.0))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"16\" font-size=\"13\">{title}</text>\n"
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (x, y) = at(x_max * share, y_max * share);
        let (left, base) = at(0.0, 0.0);
        let right = WIDTH - 12.0;
        let _ = writeln!(out, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.2}</text>",
            left - 6.0,
            y + 4.0,
            y_max * share
        );
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}k</text>",
            base + 16.0,
            x_max * share / 1e3
        );
    }
    for (i, line) in series.iter().enumerate() {
        let stride = line.points.len().div_ceil(MOST_POINTS).max(1);
        let mut path = String::new();
        for (n, (x, y)) in line.points.iter().step_by(stride).filter(|(_, y)| y.is_finite()).enumerate() {
            let (px, py) = at(*x, *y);
            let _ = write!(path, "{}{px:.1} {py:.1}", if n == 0 { "M" } else { "L" });
        }
        let mut dash = "";
        if let [(_, y)] = line.points {
            let ((left, level), (right, _)) = (at(0.0, *y), at(x_max, *y));
            path = format!("M{left:.1} {level:.1}H{right:.1}");
            dash = " stroke-dasharray=\"5 4\"";
        }
        let colour = line.colour;
        let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>");
        let (x, y) = (WIDTH - 130.0, HEIGHT - BOTTOM - 14.0 * (series.len() - i) as f64);
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", line.name);
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_stays_small_and_names_its_lines() {
        let points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), f64::from(i).sqrt())).collect();
        let level = [(0.0, 200.0)];
        let svg = draw(
            "reward",
            &[
                Series { name: "policy", colour: "#06c", points: &points },
                Series { name: "optimum", colour: "#080", points: &level },
            ],
        );
        assert!(
            svg.len() < 20_000 && svg.contains(">policy<") && svg.contains(">optimum<") && svg.ends_with("</svg>\n")
        );
        assert!(!svg.contains("NaN"));
    }
}
