//! Charts as SVG: lines with 95 % intervals and groups of bars as files of their own, and the learning curves of a page in
//! the page's colours. It draws on wasm32 as well as natively.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`line`](mod@line) | lines over a numeric axis |
//! | [`bar`] | groups of bars |
//! | [`plot`] | lines in colours of the caller's, on linear or logarithmic axes |
//! | `frame` | what files share: title, grid, legend, colours |
//! | `axis` | what all share: axes with round ticks, labels, paths, text that is safe |
//!
//! A chart is plain data; that of a file serialises, so a picture and the numbers behind it come from one value. Its colours are told
//! apart with any kind of colour vision and come in a light and a dark set, chosen by the reader's colour scheme; lines
//! differ by marker and dash too.
//!
//! Deliberately absent: anything interactive, and where the numbers come from.

use serde::Serialize;

mod axis;
pub mod bar;
mod frame;
pub mod line;
pub mod plot;

pub use bar::{BarChart, Bars};
pub use line::{Line, LineChart, Point};

/// A value to compare with, drawn across the whole chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Name in the legend.
    pub name: String,
    /// Where it lies on the y axis.
    pub value: f64,
}

/// A value with the half width of its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Half of the interval's width; 0 draws none.
    pub half_width: f64,
}
