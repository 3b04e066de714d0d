//! What every chart is drawn with: axes with round ticks, their labels, paths, and text that is safe in SVG.

use std::fmt::Write as _;

/// An axis: from its lowest to its highest value, or from the one's decimal logarithm to the other's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    /// Where it begins.
    pub(crate) low: f64,
    /// Where it ends, over `low`.
    pub(crate) high: f64,
    /// Whether both are logarithms.
    pub(crate) log: bool,
}

impl Axis {
    /// Spans the finite ones of some values; `None` without any. One value alone stands in the middle.
    pub(crate) fn over(values: impl Iterator<Item = f64>, log: bool) -> Option<Self> {
        let place = |value: f64| if log { value.log10() } else { value };
        let (low, high) = values
            .map(place)
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let room = if high > low { 0.0 } else { 0.5 };
        low.is_finite().then_some(Self { low: low - room, high: high + room, log })
    }

    /// The same with some air on both sides, a share of its length.
    pub(crate) fn with_air(self, share: f64) -> Self {
        let air = share * (self.high - self.low);
        Self { low: self.low - air, high: self.high + air, ..self }
    }

    /// Where a value lies on it: 0 at its beginning, 1 at its end.
    pub(crate) fn along(self, value: f64) -> f64 {
        let place = if self.log { value.log10() } else { value };
        (place - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE)
    }

    /// Round values on it, about five, with what stands beside them.
    pub(crate) fn ticks(self) -> Vec<(f64, String)> {
        if self.log {
            return self.decades().map(|value| (value, log_label(value))).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        // Counted, not added up, so that no error grows.
        (first..=last).map(|i| i as f64 * step).map(|value| (value, label(value, step))).collect()
    }

    /// Powers of ten; few of them get values between, many leave some out.
    fn decades(self) -> impl Iterator<Item = f64> {
        let (first, last) = (self.low.floor() as i32, self.high.ceil() as i32);
        let count = last - first;
        let within: &[f64] = if count <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every = (count / 6).max(1);
        (first..=last)
            .filter(move |exponent| (exponent - first) % every == 0)
            .flat_map(move |exponent| within.iter().map(move |m| m * 10f64.powi(exponent)))
            .filter(move |value| (self.low..=self.high).contains(&value.log10()))
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

/// A number of a logarithmic axis: its neighbours are of another size, so it is its own step.
fn log_label(value: f64) -> String {
    if (1e-3..1e9).contains(&value) { label(value, value) } else { format!("{value:.0e}") }
}

/// Text that is safe within an element and within an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// At most about `most` of some points, the last one among them: a curve ends where its data end.
pub(crate) fn thinned<T: Copy>(points: &[T], most: usize) -> impl Iterator<Item = T> {
    let stride = points.len().div_ceil(most.max(1)).max(1);
    let last = points.len().saturating_sub(1);
    points.iter().enumerate().filter(move |(n, _)| n % stride == 0 || *n == last).map(|(_, point)| *point)
}

/// A path through points of the drawing.
pub(crate) fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (n, (x, y)) in points.enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(path, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> Vec<String> {
        Axis { low, high, log }.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_within() {
        for (low, high, want) in [
            (0.0, 2.3, vec!["0.0", "0.5", "1.0", "1.5", "2.0"]),
            (0.0, 100_000.0, vec!["0k", "20k", "40k", "60k", "80k", "100k"]),
            (0.55, 0.85, vec!["0.6", "0.7", "0.8"]),
            (2.0, 5.0, vec!["2", "3", "4", "5"]),
        ] {
            assert_eq!(labels(low, high, false), want);
        }
    }

    #[test]
    fn a_logarithmic_axis_has_powers_of_ten() {
        assert_eq!(labels(0.0, 1.0, true), ["1", "2", "5", "10"]);
        assert_eq!(labels(-4.0, 2.0, true), ["1e-4", "0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(2.0, 6.5, true), ["100", "1k", "10k", "100k", "1M"]);
        assert_eq!(labels(-29.5, 30.5, true).len(), 6);
    }

    #[test]
    fn axes_are_never_empty() {
        for values in [vec![3.0], vec![f64::NAN, 2.0, 2.0], vec![-1.0, f64::INFINITY]] {
            let axis = Axis::over(values.into_iter(), false).expect("a finite value");
            assert!(axis.high > axis.low && axis.low.is_finite() && axis.high.is_finite(), "{axis:?}");
        }
        assert_eq!(Axis::over([f64::NAN].into_iter(), false), None);
        assert_eq!(Axis::over([0.0, -1.0].into_iter(), true), None, "nothing that has a logarithm");
        let axis = Axis::over([1.0, 100.0].into_iter(), true).expect("two").with_air(0.5);
        assert_eq!((axis.along(10.0), axis.along(0.1)), (0.5, 0.0));
    }

    #[test]
    fn what_is_thinned_keeps_its_ends() {
        let points: Vec<usize> = (0..1000).collect();
        let thin: Vec<usize> = thinned(&points, 300).collect();
        assert!(thin.len() <= 301 && thin[0] == 0 && thin.last() == Some(&999), "{}", thin.len());
        assert_eq!(thinned(&points[..3], 300).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(thinned::<usize>(&[], 0).count(), 0);
    }

    #[test]
    fn text_is_safe() {
        assert_eq!(escape("a < \"b\" & c>"), "a &lt; &quot;b&quot; &amp; c&gt;");
    }
}
