//! The page's settings as a link, and back.
//!
//! They stand in the link's fragment (`#users=3&seed=7`), which browsers do not send to servers: a question that is to stay on
//! the device stays there when the page is reloaded. A query is read as well, for links that people type. Only what
//! differs from the default is written; what is unknown or out of range is passed over.

use std::fmt::Write as _;
use std::str::FromStr;

use client::cell::MAX_DEVICES;
use client::protocol::sampling;
use client::protocol::worker::{AskMode, TierChoice};
use client::protocol::world::{CalibratedTask, Decider, QosSource};
use mec::settings::SETTINGS;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::settings::{MANUAL, Settings, Theme, View};

/// Names of the page's own parameters that are no numbers with a declaration of their own: those are in [`MANUAL`], in
/// [`sampling::SETTINGS`] and, of the simulator, in [`SETTINGS`].
pub const OWN: [&str; 17] = [
    "view", "users", "seed", "size", "decider", "qos", "pos", "mode", "pacing", "compare", "tier", "model", "q",
    "theme", "hide", "record", "cal",
];

/// Most characters of a text that go into a link.
const MAX_TEXT: usize = 4_000;
/// Farthest a device can be placed, in metres.
const MAX_POSITION_M: f64 = 1_000.0;

/// Writes the settings as `name=value&…`.
#[must_use]
pub fn encode(settings: &Settings) -> String {
    let plain = Settings::default();
    let (world, options) = (&settings.world, &settings.options);
    let mut link = Link::default();
    link.name("view", settings.view);
    link.text("q", &settings.prompt, "");
    link.number("users", world.users, plain.world.users);
    link.number("seed", world.seed, plain.world.seed);
    if let Some(size) = world.size_mbit {
        link.add("size", &size.to_string());
    }
    if let Some(CalibratedTask { tokens, fixed_tokens }) = world.calibrated {
        link.add("cal", &format!("{tokens}:{fixed_tokens}"));
    }
    link.name("decider", world.decider);
    if world.decider == Decider::Manual {
        for own in &MANUAL {
            link.number(own.url, (own.read)(settings), (own.read)(&plain));
        }
    }
    link.name("qos", world.qos);
    if !world.positions.is_empty() {
        let places: Vec<String> = world.positions.iter().map(|(k, [x, y])| format!("{k}:{x}:{y}")).collect();
        link.add("pos", &places.join(";"));
    }
    for setting in SETTINGS.iter().filter(|s| s.key != "users") {
        if let Some(value) = world.values.get(setting.key) {
            link.number(setting.url, *value, setting.default);
        }
    }
    link.name("mode", options.mode);
    for setting in sampling::SETTINGS.iter().filter(|setting| !setting.url.is_empty()) {
        link.text(setting.url, &setting.read(&options.sampling), &setting.read(&plain.options.sampling));
    }
    link.number("pacing", u8::from(options.pacing), 1);
    link.number("compare", u8::from(options.compare), 1);
    link.name("tier", settings.tier);
    link.text("model", &settings.model, "");
    link.text("theme", settings.theme.name(), Theme::default().name());
    link.number("hide", u8::from(settings.hide_controls), 0);
    link.0
}

/// Reads settings from `name=value&…`, with or without a leading `#` or `?`, on top of others.
pub fn decode_onto(settings: &mut Settings, link: &str) {
    for pair in link.trim_start_matches(['#', '?']).split('&') {
        // The short ways to the views: /#train.
        match pair {
            "train" => settings.view = View::Train,
            "chat" => settings.view = View::Chat,
            "compact" => settings.view = View::Compact,
            _ => {}
        }
        let Some((name, value)) = pair.split_once('=') else { continue };
        if let Some(value) = decode_text(value) {
            // A value that cannot be used changes nothing.
            let _ = set(settings, name, &value);
        }
    }
}

fn set(settings: &mut Settings, name: &str, value: &str) -> Option<()> {
    let (world, options) = (&mut settings.world, &mut settings.options);
    match name {
        "view" => settings.view = from_name::<View>(value)?,
        "q" => settings.prompt = value.chars().take(MAX_TEXT).collect(),
        "model" => settings.model = value.chars().take(MAX_TEXT).collect(),
        "users" | "k" => {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a small count")]
            let count = number::<f64>(value, 1.0, MAX_DEVICES as f64).filter(|n| n.fract() == 0.0)? as usize;
            world.users = count;
        }
        "seed" => world.seed = value.parse().ok()?,
        "size" => {
            let largest = SETTINGS.iter().find(|s| s.key == "size_max_mbit")?;
            world.size_mbit = Some(number(value, largest.min, largest.max)?);
        }
        "cal" => {
            // Links from before have the first number alone.
            let (tokens, fixed) = value.split_once(':').unwrap_or((value, "0"));
            let (tokens, fixed_tokens) = (number(tokens, 1.0, 1e6)?, number(fixed, 0.0, 1e6)?);
            world.calibrated = Some(CalibratedTask { tokens, fixed_tokens });
        }
        "decider" => world.decider = from_name(value)?,
        "qos" => world.qos = from_name::<QosSource>(value)?,
        "pos" => {
            for place in value.split(';') {
                let mut parts = place.split(':');
                let device = parts.next()?.parse().ok().filter(|k| *k < MAX_DEVICES)?;
                let mut metres = || number(parts.next()?, -MAX_POSITION_M, MAX_POSITION_M);
                world.positions.insert(device, [metres()?, metres()?]);
            }
        }
        "mode" => options.mode = from_name::<AskMode>(value)?,
        "pacing" => options.pacing = switch(value)?,
        "compare" => options.compare = switch(value)?,
        "tier" => settings.tier = from_name::<TierChoice>(value)?,
        "theme" => settings.theme = Theme::from_name(value)?,
        "hide" => settings.hide_controls = switch(value)?,
        "" => return None,
        _ => {
            if let Some(setting) = sampling::SETTINGS.iter().find(|setting| setting.url == name) {
                return setting.write(&mut options.sampling, value);
            }
            if let Some(own) = MANUAL.iter().find(|own| own.url == name) {
                (own.write)(settings, number(value, own.min, own.max)?);
                return Some(());
            }
            let setting = SETTINGS.iter().find(|s| s.url == name)?;
            settings.world.values.insert(setting.key.to_owned(), number(value, setting.min, setting.max)?);
        }
    }
    Some(())
}

/// A number within limits; NaN is within none.
fn number<T: FromStr + PartialOrd>(text: &str, min: T, max: T) -> Option<T> {
    text.parse().ok().filter(|value: &T| *value >= min && *value <= max)
}

fn switch(text: &str) -> Option<bool> {
    number::<u8>(text, 0, 1).map(|v| v == 1)
}

/// The wire name of a unit variant (`webgpu` and the like), so that links and messages use the same words.
pub fn wire_name<T: Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The inverse of [`wire_name`].
pub fn from_name<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

#[derive(Default)]
struct Link(String);

impl Link {
    fn add(&mut self, name: &str, value: &str) {
        let joint = if self.0.is_empty() { "" } else { "&" };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{joint}{name}={}", encode_text(value));
    }

    fn number<T: ToString + PartialEq>(&mut self, name: &str, value: T, plain: T) {
        if value != plain {
            self.add(name, &value.to_string());
        }
    }

    fn text(&mut self, name: &str, value: &str, plain: &str) {
        if value != plain {
            self.add(name, &value.chars().take(MAX_TEXT).collect::<String>());
        }
    }

    fn name<T: Serialize + Default + PartialEq>(&mut self, name: &str, value: T) {
        if value != T::default() {
            self.add(name, &wire_name(value));
        }
    }
}

/// Percent-encodes all but what is safe in a fragment and in a query.
fn encode_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b';' | b',' | b'?' | b'!' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn decode_text(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(link: &str) -> Settings {
        let mut settings = Settings::default();
        decode_onto(&mut settings, link);
        settings
    }

    /// Settings in which nothing has its default value.
    fn unusual() -> Settings {
        let prompt = "What is 5% of 3 + 4 & more?\nWer schrieb „Faust“? 漢字 #1".into();
        let mut s = Settings { prompt, ..Settings::default() };
        s.world.users = 5;
        s.world.seed = u64::MAX;
        s.world.size_mbit = Some(2.25);
        s.world.decider = Decider::Manual;
        s.world.manual_alpha = 0.125;
        s.world.manual_power = 1.0;
        s.world.qos = QosSource::Shipped;
        s.world.calibrated = Some(CalibratedTask { tokens: 23.5, fixed_tokens: 4.25 });
        s.world.positions = [(0, [1.5, -2.25]), (4, [0.0, 19.0])].into();
        for setting in SETTINGS.iter().filter(|s| s.key != "users") {
            let value = if setting.default == setting.max { setting.min } else { setting.max };
            s.world.values.insert(setting.key.into(), value);
        }
        s.options.mode = AskMode::LocalOnly;
        for setting in sampling::SETTINGS.iter().filter(|setting| !setting.url.is_empty()) {
            // A value within the range that is not the default.
            let [low, high] = [setting.range.0, setting.range.1.min(40.0)].map(|end| end.to_string());
            let value = if setting.read(&s.options.sampling) == low { high } else { low };
            setting.write(&mut s.options.sampling, &value).expect("within the range");
        }
        s.options.pacing = false;
        s.options.compare = false;
        s.tier = TierChoice::Cpu;
        s.model = "https://a.example/m.gguf?x=1&y".into();
        s.theme = Theme::Dark;
        s.hide_controls = true;
        s.view = View::Train;
        s
    }

    #[test]
    fn round_trip() {
        for settings in [Settings::default(), unusual()] {
            let link = encode(&settings);
            assert_eq!(decode(&link), settings, "{link}");
            assert_eq!(decode(&format!("#{link}")), settings);
            assert!(link.bytes().all(|b| b.is_ascii_graphic()), "{link}");
        }
        assert_eq!(encode(&Settings::default()), "", "defaults make a clean link");
    }

    #[test]
    fn every_decider_mode_and_tier_survives() {
        let mut settings = Settings::default();
        use Decider::{AlwaysLocal, AlwaysOffload, ClosedForm, Manual, Oracle, Policy, Random};
        for decider in [Policy, Oracle, ClosedForm, AlwaysLocal, AlwaysOffload, Random, Manual] {
            settings.world.decider = decider;
            assert_eq!(decode(&encode(&settings)), settings);
        }
        for tier in [TierChoice::Auto, TierChoice::WebGpu, TierChoice::Cpu, TierChoice::ServerOnly] {
            settings.tier = tier;
            assert_eq!(decode(&encode(&settings)), settings);
        }
    }

    #[test]
    fn the_training_view_has_a_short_link() {
        for link in ["#train", "#train&users=3", "#view=train", "?seed=2&train"] {
            assert_eq!(decode(link).view, View::Train, "{link}");
        }
        assert_eq!(encode(&decode("#train")), "view=train");
        assert_eq!(decode("#chat&users=3").view, View::Chat);
        assert_eq!(encode(&decode("#chat")), "view=chat");
        assert_eq!(decode("#compact").view, View::Compact);
    }

    #[test]
    fn names_do_not_collide() {
        let sampling = sampling::SETTINGS.iter().map(|s| s.url).filter(|url| !url.is_empty());
        let own = OWN.into_iter().chain(MANUAL.iter().map(|own| own.url));
        let mut names: Vec<&str> = own.chain(sampling).chain(SETTINGS.iter().map(|s| s.url)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let links = [
            "users=0",
            "users=2.5",
            "users=11",
            "users=999999",
            "k=NaN",
            "seed=-1",
            "seed=x",
            "size=inf",
            "size=-3",
            "cal=0",
            "alpha=2",
            "decider=nobody",
            "mode=",
            "pos=99:1:1",
            "pos=1:NaN:2",
            "pos=1",
            "tokens=0",
            "temp=-1",
            "tokens=99999",
            "topp=1.5",
            "topp=-0.1",
            "temp=NaN",
            "sample=-3",
            "b=1",
            "q=%zz",
            "q=%ff",
            "=",
            "&&",
            "nothing=1",
            "pacing=2",
            "theme=pink",
            "hide",
        ];
        for link in links {
            assert_eq!(decode(link), Settings::default(), "{link}");
        }
    }

    #[test]
    fn the_later_link_wins() {
        let mut settings = decode("?users=3&seed=9");
        decode_onto(&mut settings, "#k=4");
        assert_eq!((settings.world.users, settings.world.seed), (4, 9));
    }
}
