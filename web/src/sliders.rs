//! Settings of the simulator as sliders: which are shown first, where the knob stands, how the value reads.

use mec::settings::{Group, SETTINGS, Scale, Setting};

use crate::format;

/// Settings that stand open; the others wait behind “All settings”.
const PRIMARY: [&str; 12] = [
    "bandwidth_hz",
    "noise_dbm",
    "p_max_dbm",
    "rician_kappa",
    "radius_m",
    "a_min",
    "h_max",
    "omega",
    "device_hz",
    "server_hz",
    "cycles_per_bit",
    "e_max_j",
];

/// Set elsewhere on the page, by controls of their own.
const ELSEWHERE: [&str; 1] = ["users"];

/// Steps of a logarithmic slider.
const LOG_STEPS: f64 = 400.0;

/// The groups, in the order of the page, with their titles.
pub const GROUPS: [(Group, &str); 4] =
    [(Group::Channel, "Channel"), (Group::Task, "Task"), (Group::Quality, "Quality"), (Group::Compute, "Compute")];

/// Settings of a group that are shown as sliders, open ones or the rest.
pub fn of_group(group: Group, open: bool) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |s| s.group == group && !ELSEWHERE.contains(&s.key) && PRIMARY.contains(&s.key) == open)
}

/// Range and step of the slider element: the value's own for a linear setting, else positions 0..=400.
#[must_use]
pub fn range(setting: &Setting) -> (f64, f64, f64) {
    match setting.scale {
        Scale::Linear => (setting.min, setting.max, setting.step),
        Scale::Log => (0.0, LOG_STEPS, 1.0),
    }
}

/// Where the knob stands for a value.
#[must_use]
pub fn position(setting: &Setting, value: f64) -> f64 {
    match setting.scale {
        Scale::Linear => value,
        Scale::Log => LOG_STEPS * (value / setting.min).ln() / (setting.max / setting.min).ln(),
    }
}

/// The value at a knob's place; always within the setting's limits. A logarithmic slider snaps to three digits, and to the
/// default when it is the nearest place.
#[must_use]
pub fn value_at(setting: &Setting, place: f64) -> f64 {
    let value = match setting.scale {
        Scale::Linear => {
            let steps = ((place - setting.min) / setting.step).round();
            // Through text, so that 0.1 + 0.2 does not become 0.30000000000000004 in links and files.
            round_to_digits(setting.min + steps * setting.step, 9)
        }
        Scale::Log if (place - position(setting, setting.default)).abs() < 0.5 => setting.default,
        Scale::Log => round_to_digits(setting.min * (setting.max / setting.min).powf(place / LOG_STEPS), 3),
    };
    if value.is_finite() { value.clamp(setting.min, setting.max) } else { setting.default }
}

fn round_to_digits(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value)
}

/// The value as text with its unit.
#[must_use]
pub fn text(setting: &Setting, value: f64) -> String {
    match setting.unit {
        unit @ ("Hz" | "bit/s" | "J" | "s") => format::si(value, unit),
        unit => {
            let number = if value != 0.0 && value.abs() < 1e-6 {
                format!("{value:.1e}")
            } else if value.fract() == 0.0 && setting.step >= 1.0 {
                format!("{value:.0}")
            } else {
                let decimals = if setting.step >= 0.1 && setting.scale == Scale::Linear { 1 } else { 2 };
                format!("{value:.decimals$}")
            };
            format!("{number} {unit}").trim_end().replace('-', "−")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_on_the_page_once() {
        let shown: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(g, _)| [true, false].map(|open| of_group(*g, open)))
            .flatten()
            .map(|s| s.key)
            .collect();
        assert_eq!(shown.len() + ELSEWHERE.len(), SETTINGS.len());
        for key in PRIMARY.iter().chain(&ELSEWHERE) {
            assert!(SETTINGS.iter().any(|s| s.key == *key), "{key} is no setting any more");
        }
    }

    #[test]
    fn knob_and_value_agree() {
        for setting in SETTINGS {
            let (low, high, _) = range(setting);
            assert_eq!(value_at(setting, low), setting.min, "{}", setting.key);
            assert_eq!(value_at(setting, high), setting.max, "{}", setting.key);
            // The paper's values are exact, whatever the slider's steps are; other places come back within a step.
            if setting.scale == Scale::Log {
                assert_eq!(
                    value_at(setting, position(setting, setting.default).round()),
                    setting.default,
                    "{}",
                    setting.key
                );
                for place in [1.0, 57.0, 200.0, 399.0] {
                    let back = position(setting, value_at(setting, place));
                    assert!((back - place).abs() < 0.6, "{}: {place} came back as {back}", setting.key);
                }
            }
            for outside in [f64::NAN, f64::INFINITY, -1e300] {
                let value = value_at(setting, outside);
                assert!(value >= setting.min && value <= setting.max, "{}", setting.key);
            }
        }
    }

    #[test]
    fn values_read_well() {
        let find = |key: &str| SETTINGS.iter().find(|s| s.key == key).expect("key");
        let cases = [
            ("bandwidth_hz", 10e6, "10.0 MHz"),
            ("noise_dbm", -104.0, "−104 dBm"),
            ("rician_kappa", 8.0, "8.0"),
            ("a_min", 0.6, "0.60"),
            ("cycles_per_bit", 900.0, "900 cycles/bit"),
            ("kappa_comp", 1e-28, "1.0e−28"),
            ("e_max_j", 2.0, "2.00 J"),
        ];
        for (key, value, expected) in cases {
            assert_eq!(text(find(key), value), expected, "{key}");
        }
    }
}
