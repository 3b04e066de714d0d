//! Hyper-parameters as they are declared: what flags, requests and the page's form are made of, and what values are held
//! against. The declarations themselves stand with the algorithms.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A hyper-parameter; its default is what [`AlgoView::hyper`](super::runs::AlgoView::hyper) holds under its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HyperParameter {
    /// Its name in requests; `model.hidden` for one of a part.
    pub key: String,
    /// What it does, in a sentence or two.
    pub help: String,
    /// Unit, empty for a plain number.
    pub unit: String,
    /// What it may be.
    pub kind: HyperKind,
}

/// What a hyper-parameter may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum HyperKind {
    /// A whole number.
    Whole {
        /// Least allowed value.
        least: u64,
        /// Greatest allowed value.
        most: u64,
    },
    /// A number.
    Number {
        /// Least value.
        least: f64,
        /// Greatest value.
        most: f64,
        /// Whether these two are allowed themselves.
        ends: [bool; 2],
        /// Whether it is chosen by orders of magnitude (a logarithmic slider).
        by_magnitude: bool,
    },
    /// Yes or no.
    Switch,
    /// One of several names.
    Choice {
        /// The names.
        names: Vec<String>,
    },
    /// Units of the layers of a network.
    Layers {
        /// Fewest layers.
        fewest: usize,
        /// Most layers.
        most: usize,
        /// Most units of a layer.
        units: u64,
    },
}

/// Why a value is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A text where a number is wanted, and the like.
    Type,
    /// Of the right kind, but out of its range.
    Range,
    /// None of the names that are known.
    Name,
}

impl HyperKind {
    /// What is wanted, to go behind "must be".
    #[must_use]
    pub fn wanted(&self) -> String {
        match self {
            Self::Whole { least, most } => format!("a whole number between {least} and {most}"),
            Self::Number { least, most, ends, .. } => {
                let least = if ends[0] { format!("at least {least}") } else { format!("over {least}") };
                let most = if ends[1] { format!("at most {most}") } else { format!("below {most}") };
                format!("a number of {least} and {most}")
            }
            Self::Switch => "true or false".to_owned(),
            Self::Choice { names } => format!("one of {}", names.join(", ")),
            Self::Layers { fewest, most, units } => {
                format!("a list of {fewest} to {most} whole numbers between 1 and {units}")
            }
        }
    }

    /// Whether a value, as JSON has it, is one of these.
    ///
    /// # Errors
    /// In what it is not.
    pub fn check(&self, value: &Value) -> Result<(), Refusal> {
        let within = |fits: bool| if fits { Ok(()) } else { Err(Refusal::Range) };
        match self {
            Self::Whole { least, most } => {
                let given = value.as_u64().ok_or(if value.is_i64() { Refusal::Range } else { Refusal::Type })?;
                within((*least..=*most).contains(&given))
            }
            Self::Number { least, most, ends, .. } => {
                let given = value.as_f64().ok_or(Refusal::Type)?;
                // In single precision, as most are stored: 0.1 there is a little more than 0.1.
                let (given, least, most) = (given as f32, *least as f32, *most as f32);
                let over = given > least || (ends[0] && given >= least);
                within(over && (given < most || (ends[1] && given <= most)))
            }
            Self::Switch => value.as_bool().map(drop).ok_or(Refusal::Type),
            Self::Choice { names } => {
                let given = value.as_str().ok_or(Refusal::Type)?;
                if names.iter().any(|name| name == given) { Ok(()) } else { Err(Refusal::Name) }
            }
            Self::Layers { fewest, most, units } => {
                let given = value.as_array().ok_or(Refusal::Type)?;
                within((*fewest..=*most).contains(&given.len()))?;
                given.iter().try_for_each(|layer| {
                    let layer = layer.as_u64().ok_or(Refusal::Type)?;
                    within((1..=*units).contains(&layer))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_checked_as_json_has_them() {
        use Refusal::{Name, Range, Type};
        let whole = HyperKind::Whole { least: 1, most: 4 };
        let number = |least, most, ends| HyperKind::Number { least, most, ends, by_magnitude: false };
        let choice = HyperKind::Choice { names: vec!["tanh".to_owned(), "relu".to_owned()] };
        let layers = |fewest| HyperKind::Layers { fewest, most: 4, units: 1024 };
        for (kind, value, refusal) in [
            (whole.clone(), json!(4), None),
            (whole.clone(), json!(5), Some(Range)),
            (whole.clone(), json!(-1), Some(Range)),
            (whole.clone(), json!(1.5), Some(Type)),
            (whole.clone(), json!("1"), Some(Type)),
            (number(0.0, 0.1, [true, true]), json!(f64::from(0.1f32)), None),
            (number(0.0, 1.0, [true, true]), json!(1.01), Some(Range)),
            (number(0.0, 1.0, [true, true]), json!(null), Some(Type)),
            (number(0.0, 1.0, [true, false]), json!(0), None),
            (number(0.0, 1.0, [true, false]), json!(1), Some(Range)),
            (number(0.0, 1.0, [false, true]), json!(0), Some(Range)),
            (number(0.0, 1.0, [false, true]), json!(1e-30), None),
            (HyperKind::Switch, json!(true), None),
            (HyperKind::Switch, json!(1), Some(Type)),
            (choice.clone(), json!("tanh"), None),
            (choice.clone(), json!("sigmoid"), Some(Name)),
            (layers(1), json!([]), Some(Range)),
            (layers(1), json!([8, "8"]), Some(Type)),
            (layers(1), json!([1025]), Some(Range)),
            (layers(0), json!([]), None),
        ] {
            assert_eq!(kind.check(&value).err(), refusal, "{value} for {}", kind.wanted());
        }
    }
}
