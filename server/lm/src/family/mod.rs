//! A family of compact models of one teacher, and what each is worth: quantised only, pruned only, pruned and distilled, all
//! three, with the controls that tell what each step is worth (the paper's Table I, held against what is hard to beat).
//!
//! | file | holds |
//! | --- | --- |
//! | `recipe.rs` | which variants there are, and of what each is made |
//! | `kin.rs` | what all variants have in common |
//! | `sources.rs` | weights from recipes: the teacher cut, what was trained |
//! | `make.rs` | files from recipes: what is there already is not made again |
//! | `anatomy.rs` | what is left of the teacher in a file, and what scored how: for pictures |
//! | `routing.rs` | device and server together: who answers what, by known hops and by a predictor |
//! | `judge.rs` | one file judged: answers, sentences, tokens, energy |
//! | `logistic.rs` | logistic regression on a few features |
//! | `bootstrap.rs` | intervals by resampling facts and articles |
//!
//! Deliberately absent: how the results are told (the command's), and any judgement of the paper's claims.

mod anatomy;
mod bootstrap;
mod judge;
mod kin;
mod logistic;
mod make;
mod recipe;
mod routing;
mod sources;

pub use anatomy::{Importance, Kept};
pub use bootstrap::{DRAWS, Interval, Unit, difference, rate};
pub use judge::{Judged, Metric, judge};
pub use kin::{Family, Settings, Watch};
pub use make::Made;
pub use recipe::{Controls, Group, Recipe, Source, Stored, Student, recipes};
pub use routing::{Predictor, Route, Routing};
pub use sources::{Ranked, Training};
