//! A cell as SVG text: the mast, every MLU in its place, its link coloured by rate, its bar of α. Text, since a picture comes
//! with every slot and is drawn whole: that is less work for a browser, and less code, than five hundred elements that each
//! look after themselves.

use std::fmt::Write as _;

use web::geometry::{CellMap, DISC};

/// The rates between which a link's colour and width tell one from another, bit/s.
const RATES: (f64, f64) = (2e5, 5e7);

/// One MLU of a drawing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dot {
    /// Its number in the room.
    pub number: u32,
    /// Its name; empty for none.
    pub name: String,
    /// Position in metres, the mast at the origin.
    pub at_m: [f64; 2],
    /// Offloading ratio; `None` before the first decision.
    pub alpha: Option<f64>,
    /// Uplink rate, bit/s.
    pub rate_bps: f64,
    /// Whether it is away: its seat is kept, and it does not interfere.
    pub is_away: bool,
    /// Whether it is the reader's own.
    pub is_own: bool,
    /// Whether it answers the present round.
    pub is_busy: bool,
}

/// How much is written into a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Names and rings' distances.
    Full,
    /// Numbers alone.
    Numbers,
    /// Dots alone.
    Dots,
}

/// How good a rate is, 0 to 1, evenly in its logarithm.
#[must_use]
pub fn goodness(rate_bps: f64) -> f64 {
    let (low, high) = RATES;
    if rate_bps > 0.0 { ((rate_bps / low).ln() / (high / low).ln()).clamp(0.0, 1.0) } else { 0.0 }
}

/// Text that is safe between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '&' => safe += "&amp;",
            '"' => safe += "&quot;",
            c if c.is_control() => {}
            c => safe.push(c),
        }
    }
    safe
}

/// The beginning of a name, for narrow places.
#[must_use]
pub fn short(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    let mut cut: String = name.chars().take(most.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut + "…"
}

/// A cell in a square of 200 × 200 drawing units.
#[must_use]
pub fn cell(dots: &[Dot], radius_m: f64, detail: Detail) -> String {
    let map = CellMap::new(radius_m);
    let mut svg = String::with_capacity(1024 + dots.len() * 600);
    let class = if detail == Detail::Full { "cell-map full" } else { "cell-map" };
    let _ = write!(svg, "<svg viewBox=\"-100 -100 200 200\" class=\"{class}\" aria-hidden=\"true\">");
    for metres in map.rings().into_iter().rev() {
        let (r, _) = map.to_drawing([metres, 0.0]);
        let rim = if (r - DISC).abs() < 0.01 { " rim" } else { "" };
        let _ = write!(svg, "<circle class=\"ring{rim}\" r=\"{r:.1}\"/>");
        if detail == Detail::Full {
            let _ = write!(
                svg,
                "<text class=\"ring-label\" y=\"{:.1}\">{} m</text>",
                -r - 1.6,
                (metres * 10.0).round() / 10.0
            );
        }
    }
    for dot in dots.iter().filter(|dot| !dot.is_away) {
        link(&mut svg, map.to_drawing(dot.at_m), dot);
    }
    svg += "<g class=\"mast\"><circle r=\"8\"/><path d=\"M-3 5 L0 -2 L3 5 M-1.7 2 H1.7 M-3.2 -5.4 a3.6 3.6 0 0 0 0 4.8 \
            M3.2 -5.4 a3.6 3.6 0 0 1 0 4.8\"/></g>";
    // The reader's own last: on top.
    for own in [false, true] {
        for dot in dots.iter().filter(|dot| dot.is_own == own) {
            mark(&mut svg, map.to_drawing(dot.at_m), dot, detail);
        }
    }
    svg += "</svg>";
    svg
}

fn link(svg: &mut String, (x, y): (f64, f64), dot: &Dot) {
    let good = goodness(dot.rate_bps);
    let idle = if dot.alpha.is_some_and(|alpha| alpha > 0.0) { "" } else { " idle" };
    let _ = write!(
        svg,
        "<line class=\"uplink{idle}\" style=\"--good-share:{:.0}%\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke-width=\"{:.2}\"/>",
        good * 100.0,
        0.7 + 2.3 * good
    );
}

fn mark(svg: &mut String, (x, y): (f64, f64), dot: &Dot, detail: Detail) {
    let flags = [(dot.is_away, " away"), (dot.is_own, " own"), (dot.is_busy, " busy")];
    let classes: String = flags.iter().filter(|(is, _)| *is).map(|(_, class)| *class).collect();
    let _ =
        write!(svg, "<g class=\"mlu{classes}\" data-mlu=\"{}\" transform=\"translate({x:.1} {y:.1})\">", dot.number);
    let radius = match detail {
        Detail::Full => 5.6,
        Detail::Numbers => 8.0,
        Detail::Dots => 5.5,
    };
    let _ = write!(svg, "<circle r=\"{radius}\"/>");
    if detail != Detail::Dots {
        let _ = write!(svg, "<text class=\"mlu-number\" y=\"{:.1}\">{}</text>", radius / 3.0, dot.number);
    }
    if let Some(alpha) = dot.alpha.filter(|_| !dot.is_away) {
        let (wide, top) = (radius * 2.2, radius + 1.6);
        let left = -wide / 2.0;
        let _ = write!(
            svg,
            "<rect class=\"alpha-device\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"2.8\" rx=\"0.8\"/>\
             <rect class=\"alpha-server\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"2.8\" rx=\"0.8\"/>",
            wide * alpha.clamp(0.0, 1.0)
        );
    }
    if detail == Detail::Full && !dot.name.is_empty() {
        let _ =
            write!(svg, "<text class=\"mlu-name\" y=\"{:.1}\">{}</text>", -radius - 1.8, escape(&short(&dot.name, 14)));
    }
    *svg += "</g>";
}

/// Median and 95th percentile of a slot; `None` where nobody took part.
pub type Spread = (Option<f64>, Option<f64>);

/// Median and 95th percentile of a past, newest last, as an area between two lines in a box of 100 × 30 drawing units. `slots`
/// is how many fit; `end` is the top of the axis.
#[must_use]
pub fn band(past: &[Spread], slots: usize, end: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "slots of a screen")]
    let x = |at: usize| 100.0 * (slots.saturating_sub(past.len()) + at) as f64 / slots.max(2).saturating_sub(1) as f64;
    let y = |value: f64| 30.0 - 30.0 * (value / end.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let points = |read: fn(&Spread) -> Option<f64>| -> Vec<String> {
        let known = past.iter().enumerate().filter_map(|(at, point)| Some((at, read(point)?)));
        known.map(|(at, value)| format!("{:.2},{:.2}", x(at), y(value))).collect()
    };
    let (low, high) = (points(|point| point.0), points(|point| point.1));
    let back: Vec<&str> = low.iter().rev().map(String::as_str).collect();
    format!(
        "<svg viewBox=\"0 0 100 30\" preserveAspectRatio=\"none\" class=\"band\" aria-hidden=\"true\">\
         <polygon class=\"band-area\" points=\"{} {}\"/><polyline class=\"band-high\" points=\"{}\"/>\
         <polyline class=\"band-low\" points=\"{}\"/></svg>",
        high.join(" "),
        back.join(" "),
        high.join(" "),
        low.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(number: u32) -> Dot {
        Dot { number, at_m: [f64::from(number), 0.0], alpha: Some(0.25), rate_bps: 1e6, ..Dot::default() }
    }

    #[test]
    fn every_mlu_is_drawn_and_those_that_are_away_have_no_link() {
        let away = Dot { is_away: true, ..dot(3) };
        let svg = cell(&[dot(1), dot(2), away], 20.0, Detail::Numbers);
        let count = |what: &str| svg.matches(what).count();
        assert_eq!((count("data-mlu="), count("<line"), count("alpha-server"), count("mlu away")), (3, 2, 2, 1));
        assert!(svg.contains("width=\"17.6\"") && svg.contains("width=\"4.4\""), "a quarter of the bar: {svg}");
        assert_eq!(cell(&[], 20.0, Detail::Dots).matches("data-mlu").count(), 0);
    }

    #[test]
    fn a_name_is_text_and_nothing_else() {
        let name = "<img src=x onerror=\"alert(1)\">&\u{7}".to_owned();
        let svg = cell(&[Dot { name: name.clone(), ..dot(1) }], 20.0, Detail::Full);
        assert!(!svg.contains("<img") && svg.contains("&lt;img"), "{svg}");
        assert_eq!(escape(&name), "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;");
        assert_eq!((short("Ann", 8), short("Annabelle Lee", 11)), ("Ann".to_owned(), "Annabelle…".to_owned()));
    }

    #[test]
    fn a_past_ends_at_the_right() {
        let svg = band(&[(Some(0.0), Some(1.0)), (None, None), (Some(0.5), Some(2.0))], 11, 1.0);
        assert!(svg.contains("band-low\" points=\"80.00,30.00 100.00,15.00\""), "{svg}");
        assert!(svg.contains("band-high\" points=\"80.00,0.00 100.00,0.00\""), "over the axis stays on it: {svg}");
        assert!(band(&[], 180, 0.0).contains("points=\"\""));
    }

    #[test]
    fn links_tell_good_rates_from_bad_ones() {
        for (rate, expect) in [(0.0, 0.0), (f64::NAN, 0.0), (1.0, 0.0), (2e5, 0.0), (5e7, 1.0), (1e9, 1.0)] {
            assert_eq!(goodness(rate), expect, "{rate}");
        }
        assert!(goodness(1e6) < goodness(1e7));
    }
}
