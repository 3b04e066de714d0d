//! Charts as SVG files: lines with 95 % intervals, and groups of bars.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`line`](mod@line) | lines over a numeric axis |
//! | [`bar`] | groups of bars |
//! | [`frame`] | what both share: axes, grid, legend, colours |
//!
//! A chart is plain data that serialises, so a picture and the numbers behind it come from one value. Colours are told
//! apart with any kind of colour vision and come in a light and a dark set, chosen by the reader's colour scheme; lines
//! differ by marker and dash too.
//!
//! Deliberately absent: anything interactive, and where the numbers come from.

use serde::Serialize;

pub mod bar;
mod frame;
pub mod line;

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
