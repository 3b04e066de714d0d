//! Hyper-parameters, each declared once: [`hyper_parameters!`] makes of one declaration the struct with its documentation, its
//! default, its range check, and its row in the list that command-line flags, `/api/runs` and the page's form are made of.
//!
//! Deliberately absent: the hyper-parameters themselves, which stand at the top of their algorithm's file, and presets
//! ([`config`](super::config)).

pub use client::protocol::hyper::{HyperKind, HyperParameter, Refusal};
use serde::Serialize;
use serde_json::Value;

/// What a declaration says of a field.
#[derive(Clone, Debug)]
pub enum Declared {
    /// What the hyper-parameter may be.
    Kind(HyperKind),
    /// A table of hyper-parameters of its own.
    Part(fn() -> Vec<HyperParameter>),
}

/// A whole number within a range, ends included.
pub const fn whole(least: u64, most: u64) -> Declared {
    Declared::Kind(HyperKind::Whole { least, most })
}

/// A number within a range, ends included.
pub const fn within(least: f64, most: f64) -> Declared {
    Declared::Kind(HyperKind::Number { least, most, ends: [true, true], by_magnitude: false })
}

/// A number from a least one to just below another, which is not allowed.
pub const fn below(least: f64, most: f64) -> Declared {
    Declared::Kind(HyperKind::Number { least, most, ends: [true, false], by_magnitude: false })
}

/// A number over 0.
pub const fn over_zero(most: f64) -> Declared {
    Declared::Kind(HyperKind::Number { least: 0.0, most, ends: [false, true], by_magnitude: false })
}

/// A learning rate: over 0, at most 1, chosen by orders of magnitude.
pub const fn learning_rate() -> Declared {
    Declared::Kind(HyperKind::Number { least: 0.0, most: 1.0, ends: [false, true], by_magnitude: true })
}

/// The hidden layers of a network: one at least.
pub const fn layers() -> Declared {
    Declared::Kind(HyperKind::Layers { fewest: 1, most: 4, units: 1024 })
}

/// Layers that may be left out: a network without them is linear.
pub const fn optional_layers() -> Declared {
    Declared::Kind(HyperKind::Layers { fewest: 0, most: 4, units: 1024 })
}

/// A nonlinearity of a network, [`policy::Activation`].
pub fn activation() -> Declared {
    choice(&["tanh", "relu"])
}

/// Yes or no.
pub const fn switch() -> Declared {
    Declared::Kind(HyperKind::Switch)
}

/// One of these names.
pub fn choice(names: &[&str]) -> Declared {
    Declared::Kind(HyperKind::Choice { names: names.iter().map(|name| (*name).to_owned()).collect() })
}

/// Hyper-parameters of another declaration, as a table within this one.
pub const fn part<T: HyperParameters>() -> Declared {
    Declared::Part(T::list)
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

/// A row of a declaration → rows of the list: a part is laid out flat.
#[doc(hidden)]
pub fn rows(key: &str, help: &str, unit: &str, declared: Declared) -> Vec<HyperParameter> {
    match declared {
        Declared::Part(list) => {
            list().into_iter().map(|inner| HyperParameter { key: format!("{key}.{}", inner.key), ..inner }).collect()
        }
        Declared::Kind(kind) => {
            vec![HyperParameter { key: key.to_owned(), help: help.to_owned(), unit: unit.to_owned(), kind }]
        }
    }
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
                let rows = [ $( $crate::hyper::rows(
                    stringify!($field),
                    concat!($($help),+).trim_ascii(),
                    concat!($($unit)?),
                    $kind,
                ), )* ];
                rows.concat()
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
        let list: Vec<_> = Outer::list().into_iter().map(|p| [p.key, p.help, p.unit]).collect();
        let want = [
            ("share", "How much, in two lines.", ""),
            ("hidden", "Layers.", "units"),
            ("inner.batch", "Rows.", "rows"),
        ];
        assert_eq!(list, want.map(|(key, help, unit)| [key, help, unit].map(str::to_owned)));
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
}
