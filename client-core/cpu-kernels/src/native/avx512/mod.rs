//! x86-64 with AVX-512 F, BW, VL and VNNI: products only. All else is the AVX2 tiles', whose instructions such a machine has.
//!
//! | module | holds |
//! | --- | --- |
//! | [`dot`] | packed matrices times activations |
//!
//! Every function here has `#[target_feature]` and is called behind [`isa`](super::isa) only; whoever calls one says so.

#![allow(clippy::needless_range_loop, reason = "loops over constant ranges index several arrays and are unrolled")]
#![allow(clippy::missing_safety_doc, reason = "said once above: the processor has to have the features, nothing else")]

pub mod dot;
