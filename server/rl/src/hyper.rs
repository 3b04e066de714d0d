//! Hyper-parameters, each declared once: [`hyper_parameters!`] makes of one declaration the struct with its documentation, its
//! default, its range check, and its row in the list that command-line flags, `/api/runs` and the page's form are made of.
//!
//! Deliberately absent: the hyper-parameters themselves, which stand at the top of their algorithm's file, and presets
//! ([`config`](super::config)).

use serde::Serialize;
use serde_json::Value;

/// What a hyper-parameter may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number.
    Whole {
        /// Least allowed value.
        least: u64,
        /// Greatest allowed value.
        most: u64,
    },
    /// A number.
    Number {
        /// Least allowed value.
        least: f64,
        /// Greatest allowed value.
        most: f64,
        /// Whether the ends themselves are allowed.
        ends: [bool; 2],
        /// Whether it is chosen by orders of magnitude (a logarithmic slider).
        by_magnitude: bool,
    },
    /// Yes or no.
    Switch,
    /// One of several names.
    Choice(&'static [&'static str]),
    /// Units of the layers of a network.
    Layers {
        /// Fewest layers.
        fewest: usize,
        /// Most layers.
        most: usize,
        /// Most units of a layer.
        units: u64,
    },
    /// A table of hyper-parameters of its own.
    Part(fn() -> Vec<HyperParameter>),
}

/// A whole number within a range, ends included.
pub const fn whole(least: u64, most: u64) -> Kind {
    Kind::Whole { least, most }
}

/// A number within a range, ends included.
pub const fn within(least: f64, most: f64) -> Kind {
    Kind::Number { least, most, ends: [true, true], by_magnitude: false }
}

/// A number from a least one to just below another, which is not allowed.
pub const fn below(least: f64, most: f64) -> Kind {
    Kind::Number { least, most, ends: [true, false], by_magnitude: false }
}

/// A number over 0.
pub const fn over_zero(most: f64) -> Kind {
    Kind::Number { least: 0.0, most, ends: [false, true], by_magnitude: false }
}

/// A learning rate: over 0, at most 1, chosen by orders of magnitude.
pub const fn learning_rate() -> Kind {
    Kind::Number { least: 0.0, most: 1.0, ends: [false, true], by_magnitude: true }
}

/// The hidden layers of a network: one at least.
pub const fn layers() -> Kind {
    Kind::Layers { fewest: 1, most: 4, units: 1024 }
}

/// Layers that may be left out: a network without them is linear.
pub const fn optional_layers() -> Kind {
    Kind::Layers { fewest: 0, most: 4, units: 1024 }
}

/// A nonlinearity of a network, [`policy::Activation`].
pub const fn activation() -> Kind {
    Kind::Choice(&["tanh", "relu"])
}

/// Hyper-parameters of another declaration, as a table within this one.
pub const fn part<T: HyperParameters>() -> Kind {
    Kind::Part(T::list)
}

/// One hyper-parameter.
#[derive(Clone, Debug)]
pub struct HyperParameter {
    /// Its field, and the key in files, flags and requests; `replay.batch` for one of a part.
    pub key: String,
    /// What it does.
    pub help: &'static str,
    /// Unit, empty for a plain number.
    pub unit: &'static str,
    /// What it may be; never a part.
    pub kind: Kind,
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

impl Kind {
    /// What is wanted, to go behind "must be".
    pub fn wanted(&self) -> String {
        match self {
            Self::Whole { least, most } => format!("a whole number between {least} and {most}"),
            Self::Number { least, most, ends, .. } => {
                let least = if ends[0] { format!("at least {least}") } else { format!("over {least}") };
                let most = if ends[1] { format!("at most {most}") } else { format!("below {most}") };
                format!("a number of {least} and {most}")
            }
            Self::Switch => "true or false".to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::Layers { fewest, most, units } => {
                format!("a list of {fewest} to {most} whole numbers between 1 and {units}")
            }
            Self::Part(_) => "a table".to_owned(),
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
            Self::Choice(names) => {
                let given = value.as_str().ok_or(Refusal::Type)?;
                if names.contains(&given) { Ok(()) } else { Err(Refusal::Name) }
            }
            Self::Layers { fewest, most, units } => {
                let given = value.as_array().ok_or(Refusal::Type)?;
                within((*fewest..=*most).contains(&given.len()))?;
                given.iter().try_for_each(|layer| {
                    let layer = layer.as_u64().ok_or(Refusal::Type)?;
                    within((1..=*units).contains(&layer))
                })
            }
            Self::Part(_) => value.as_object().map(drop).ok_or(Refusal::Type),
        }
    }
}

/// A struct of hyper-parameters, made by [`hyper_parameters!`].
pub trait HyperParameters: Serialize {
    /// Its hyper-parameters in the order of their declaration, those of parts under `PART.KEY`.
    fn list() -> Vec<HyperParameter>;

    /// What ranges cannot say: what must fit together.
    ///
    /// # Errors
    /// In words.
    fn fits_together(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks every hyper-parameter.
    ///
    /// # Errors
    /// The first one that is out of its range, in words.
    fn validate(&self) -> Result<(), String> {
        let values = serde_json::to_value(self).map_err(|e| e.to_string())?;
        for HyperParameter { key, kind, .. } in Self::list() {
            // NaN and infinity become null.
            let value = key.split('.').try_fold(&values, |at, name| at.get(name)).unwrap_or(&Value::Null);
            if kind.check(value).is_err() {
                let value = if value.is_null() { "NaN or infinite".to_owned() } else { value.to_string() };
                return Err(format!("{key} must be {}, but is {value}", kind.wanted()));
            }
        }
        self.fits_together()
    }
}

/// Rows of a declaration → rows of the list: parts are laid out flat.
#[doc(hidden)]
pub fn flatten(declared: Vec<HyperParameter>) -> Vec<HyperParameter> {
    let each = |HyperParameter { key, help, unit, kind }: HyperParameter| match kind {
        Kind::Part(list) => {
            list().into_iter().map(|inner| HyperParameter { key: format!("{key}.{}", inner.key), ..inner }).collect()
        }
        kind => vec![HyperParameter { key, help, unit, kind }],
    };
    declared.into_iter().flat_map(each).collect()
}

/// Declares a struct of hyper-parameters: `/// help`, `name: Type = default => kind, "unit";` for each. `fits Self::METHOD`
/// names a check of what must fit together.
macro_rules! hyper_parameters {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident $(, fits $fits:expr)? => {
            $( $(#[doc = $help:literal])+ $field:ident: $type:ty = $default:expr => $kind:expr $(, $unit:literal)?; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $help])+ pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::hyper::HyperParameters for $name {
            fn list() -> Vec<$crate::hyper::HyperParameter> {
                $crate::hyper::flatten(vec![ $( $crate::hyper::HyperParameter {
                    key: stringify!($field).to_owned(),
                    help: concat!($($help),+).trim_ascii(),
                    unit: concat!($($unit)?),
                    kind: $kind,
                }, )* ])
            }

            $( fn fits_together(&self) -> Result<(), String> {
                $fits(self)
            } )?
        }
    };
}
pub(crate) use hyper_parameters;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    hyper_parameters! {
        /// A part.
        pub struct Inner => {
            /// Rows.
            batch: usize = 4 => whole(1, 8), "rows";
        }
    }
    hyper_parameters! {
        /// A whole.
        pub struct Outer, fits Outer::together => {
            /// How much,
            /// in two lines.
            share: f32 = 0.5 => within(0.0, 1.0);
            /// Layers.
            hidden: Vec<usize> = vec![8] => layers(), "units";
            /// Another table.
            inner: Inner = Inner::default() => part::<Inner>();
        }
    }

    impl Outer {
        fn together(&self) -> Result<(), String> {
            if self.inner.batch <= self.hidden.len() * 8 { Ok(()) } else { Err("too many rows".to_owned()) }
        }
    }

    #[test]
    fn one_declaration_is_a_struct_a_list_and_a_check() {
        let list: Vec<_> = Outer::list().into_iter().map(|p| (p.key, p.help, p.unit)).collect();
        let want = [
            ("share", "How much, in two lines.", ""),
            ("hidden", "Layers.", "units"),
            ("inner.batch", "Rows.", "rows"),
        ];
        assert_eq!(list, want.map(|(key, help, unit)| (key.to_owned(), help, unit)));
        let fine = Outer::default();
        assert_eq!((fine.share, fine.hidden.as_slice(), fine.inner.batch), (0.5, &[8][..], 4));
        fine.validate().expect("defaults are in range");
        for (broken, said) in [
            (Outer { share: f32::NAN, ..fine.clone() }, "share must be a number of at least 0 and at most 1"),
            (Outer { share: 1.1, ..fine.clone() }, "but is 1.1"),
            (Outer { hidden: vec![8, 0], ..fine.clone() }, "hidden must be a list of 1 to 4"),
            (Outer { inner: Inner { batch: 9 }, ..fine.clone() }, "inner.batch must be a whole number between 1 and 8"),
        ] {
            let error = broken.validate().expect_err("refused");
            assert!(error.contains(said), "{error}");
        }
        let together = Outer { inner: Inner { batch: 8 }, hidden: vec![1], ..fine };
        assert!(together.validate().is_ok());
    }

    #[test]
    fn values_are_checked_as_json_has_them() {
        use Refusal::{Name, Range, Type};
        for (kind, value, refusal) in [
            (whole(1, 4), json!(4), None),
            (whole(1, 4), json!(5), Some(Range)),
            (whole(1, 4), json!(-1), Some(Range)),
            (whole(1, 4), json!(1.5), Some(Type)),
            (whole(1, 4), json!("1"), Some(Type)),
            (within(0.0, 0.1), json!(f64::from(0.1f32)), None),
            (within(0.0, 1.0), json!(1.01), Some(Range)),
            (within(0.0, 1.0), json!(null), Some(Type)),
            (below(0.0, 1.0), json!(0), None),
            (below(0.0, 1.0), json!(1), Some(Range)),
            (over_zero(1.0), json!(0), Some(Range)),
            (learning_rate(), json!(1e-30), None),
            (Kind::Switch, json!(true), None),
            (Kind::Switch, json!(1), Some(Type)),
            (activation(), json!("tanh"), None),
            (activation(), json!("sigmoid"), Some(Name)),
            (layers(), json!([]), Some(Range)),
            (layers(), json!([8, "8"]), Some(Type)),
            (layers(), json!([1025]), Some(Range)),
            (optional_layers(), json!([]), None),
        ] {
            assert_eq!(kind.check(&value).err(), refusal, "{value} for {}", kind.wanted());
        }
    }
}
