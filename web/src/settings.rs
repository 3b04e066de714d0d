//! Everything that a person can set on the page.

use client::protocol::worker::{AskOptions, TierChoice};
use client::protocol::world::WorldSettings;
use serde::{Deserialize, Serialize};

/// Colours of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// As the system has it.
    #[default]
    Auto,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Theme {
    /// Value of the document's `data-theme`, and of the link's `theme`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    /// The inverse of [`Theme::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Light, Self::Dark].into_iter().find(|t| t.name() == name)
    }

    /// What the button changes to: auto, light, dark, auto …
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::Auto => Self::Light,
            Self::Light => Self::Dark,
            Self::Dark => Self::Auto,
        }
    }
}

/// A number of the page's own, declared once for its slider and for links.
#[derive(Debug)]
pub struct PageSetting {
    /// Name in a link, and the end of the slider's test id.
    pub url: &'static str,
    /// Name for a label.
    pub label: &'static str,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Step of the slider.
    pub step: f64,
    /// The value in force.
    pub read: fn(&Settings) -> f64,
    /// Sets it.
    pub write: fn(&mut Settings, f64),
}

/// α and p of the decider that a person is, as shares of the whole.
pub static MANUAL: [PageSetting; 2] = [
    PageSetting {
        url: "alpha",
        label: "α, share for the server",
        min: 0.0,
        max: 1.0,
        step: 0.01,
        read: |s| s.world.manual_alpha,
        write: |s, value| s.world.manual_alpha = value,
    },
    PageSetting {
        url: "power",
        label: "p, share of the highest power",
        min: 0.0,
        max: 1.0,
        step: 0.01,
        read: |s| s.world.manual_power,
        write: |s, value| s.world.manual_power = value,
    },
];

/// What of the page is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Questions, answers, the simulated cell.
    #[default]
    Playground,
    /// A conversation in place of single questions.
    Chat,
    /// Compact models and what they are worth.
    Compact,
    /// Training policies on the server.
    Train,
}

/// The page's settings; what a link holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The simulated cell.
    pub world: WorldSettings,
    /// How questions are answered.
    pub options: AskOptions,
    /// Which engine.
    pub tier: TierChoice,
    /// The model of this tab, as [`crate::source::link`] writes it; empty for the one that this page begins with.
    pub model: String,
    /// Text of the prompt box.
    pub prompt: String,
    /// Colours.
    pub theme: Theme,
    /// Only prompt, answers and map.
    pub hide_controls: bool,
    /// What is shown.
    pub view: View,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // K = 2 is the paper's. α and p of the manual decider start in the middle.
            world: WorldSettings {
                users: 2,
                seed: 1,
                manual_alpha: 0.5,
                manual_power: 0.5,
                ..WorldSettings::default()
            },
            options: AskOptions::default(),
            tier: TierChoice::default(),
            model: String::new(),
            prompt: String::new(),
            theme: Theme::default(),
            hide_controls: false,
            view: View::default(),
        }
    }
}
