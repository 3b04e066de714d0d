//! The radio channel: distance, path loss and fading, (16)–(18).

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use super::params::Physics;

/// The scattered part h̄ of the fading, a circularly symmetric complex Gaussian of unit power.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scatter {
    /// Real part, variance 1/2.
    pub re: f64,
    /// Imaginary part, variance 1/2.
    pub im: f64,
}

impl Scatter {
    /// A draw from CN(0, 1).
    pub fn draw(rng: &mut impl Rng) -> Self {
        let re: f64 = StandardNormal.sample(rng);
        let im: f64 = StandardNormal.sample(rng);
        Self { re: re * std::f64::consts::FRAC_1_SQRT_2, im: im * std::f64::consts::FRAC_1_SQRT_2 }
    }

    /// One step of the Gauss-Markov process `h̄' = ρh̄ + √(1−ρ²)·w`, which keeps the power at 1. With ρ = J0(2π·f_d·τ) it
    /// has Jakes' correlation from one slot to the next.
    pub fn next(self, rho: f64, innovation: Self) -> Self {
        let fresh = (1.0 - rho * rho).max(0.0).sqrt();
        Self { re: rho * self.re + fresh * innovation.re, im: rho * self.im + fresh * innovation.im }
    }
}

/// A position on the plane with the server's antenna above the origin, in metres.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    /// East of the server.
    pub x_m: f64,
    /// North of the server.
    pub y_m: f64,
}

impl Position {
    /// A draw, uniform over the disc of the given radius.
    pub fn draw(radius_m: f64, rng: &mut impl Rng) -> Self {
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        let reach = radius_m * rng.random::<f64>().sqrt();
        Self { x_m: reach * angle.cos(), y_m: reach * angle.sin() }
    }

    /// At most `step_m` towards `goal`.
    pub fn towards(self, goal: Self, step_m: f64) -> Self {
        let (dx, dy) = (goal.x_m - self.x_m, goal.y_m - self.y_m);
        let left = dx.hypot(dy);
        if left <= step_m {
            return goal;
        }
        Self { x_m: self.x_m + dx * step_m / left, y_m: self.y_m + dy * step_m / left }
    }
}

/// (16): the distance to the antenna.
pub fn distance_m(physics: &Physics, at: Position) -> f64 {
    let height = physics.params.antenna_height_m;
    (at.x_m * at.x_m + at.y_m * at.y_m + height * height).sqrt().max(physics.params.min_distance_m)
}

/// The large-scale part g_k = g_0/d² of (17).
pub fn path_gain(physics: &Physics, distance_m: f64) -> f64 {
    physics.g0 / (distance_m * distance_m)
}

/// (18): the Rician power gain of a scattered part.
pub fn rician_gain(physics: &Physics, scatter: Scatter) -> f64 {
    let re = physics.line_of_sight + physics.scattered * scatter.re;
    let im = physics.scattered * scatter.im;
    re * re + im * im
}

/// (17): the channel gain h_k.
pub fn gain(physics: &Physics, at: Position, scatter: Scatter) -> f64 {
    path_gain(physics, distance_m(physics, at)) * rician_gain(physics, scatter)
}
