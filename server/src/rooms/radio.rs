//! A member's channel, task and difficulty, drawn from (seed, number of the member, slot).
//!
//! The processes are those of [`mec::world`]. There one generator serves a whole cell; here every member and slot has its own,
//! so that who else comes and goes never changes what a member meets.

use mec::channel::{self, Position, Scatter};
use mec::params::{MecParams, Physics};
use mec::world::nth_seed;
use mec::{Quality, UserSlot, qos, task};
use rand::SeedableRng as _;
use rand_distr::{Distribution as _, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

/// A number as its bits: text would bring back a neighbour of some, and a room would go on otherwise after a restart.
pub mod bits {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Writes the bits.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        value.to_bits().serialize(to)
    }

    /// Reads the bits.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// What a member brings into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Radio {
    /// The slot that this is the state of.
    pub slot: u64,
    /// East of the server, metres.
    #[serde(with = "bits")]
    pub x_m: f64,
    /// North of the server, metres.
    #[serde(with = "bits")]
    pub y_m: f64,
    #[serde(with = "bits")]
    re: f64,
    #[serde(with = "bits")]
    im: f64,
    level: usize,
    #[serde(with = "bits")]
    difficulty: f64,
}

/// What a generator is for; each use has its own stream.
#[derive(Clone, Copy)]
enum Use {
    First,
    Next,
}

fn generator(seed: u64, mlu: u32, slot: u64, what: Use) -> Xoshiro256PlusPlus {
    let own = nth_seed(seed, u64::from(mlu));
    let index = slot.wrapping_mul(2) + u64::from(matches!(what, Use::Next));
    Xoshiro256PlusPlus::seed_from_u64(nth_seed(own, index))
}

impl Radio {
    /// The state in which a member first meets a slot.
    #[must_use]
    pub fn draw(params: &MecParams, seed: u64, mlu: u32, slot: u64) -> Self {
        let mut rng = generator(seed, mlu, slot, Use::First);
        let Position { x_m, y_m } = Position::draw(params.radius_m, &mut rng);
        let Scatter { re, im } = Scatter::draw(&mut rng);
        let level = task::draw_level(params, &mut rng);
        let difficulty = qos::draw_difficulty(params, &mut rng);
        Self { slot, x_m, y_m, re, im, level, difficulty }
    }

    /// Drawn anew for a slot; the place stays.
    #[must_use]
    pub fn redrawn(&self, params: &MecParams, seed: u64, mlu: u32, slot: u64) -> Self {
        Self { x_m: self.x_m, y_m: self.y_m, ..Self::draw(params, seed, mlu, slot) }
    }

    /// Goes on to the next slot; the place stays.
    pub fn advance(&mut self, params: &MecParams, seed: u64, mlu: u32) {
        self.slot += 1;
        let mut rng = generator(seed, mlu, self.slot, Use::Next);
        let scatter = Scatter { re: self.re, im: self.im }.next(params.fading_rho, Scatter::draw(&mut rng));
        (self.re, self.im) = (scatter.re, scatter.im);
        self.level = task::next_level(params, self.level, &mut rng);
        self.difficulty = qos::next_difficulty(params, self.difficulty, StandardNormal.sample(&mut rng));
    }

    /// Moves to a place, drawn into the cell. A place that is no number changes nothing.
    pub fn place(&mut self, x_m: f64, y_m: f64, radius_m: f64) {
        if x_m.is_finite() && y_m.is_finite() {
            // Whatever is told: the square of a length has to be a number.
            let [x_m, y_m] = [x_m, y_m].map(|at| at.clamp(-1e9, 1e9));
            let shrink = (radius_m / x_m.hypot(y_m)).min(1.0);
            (self.x_m, self.y_m) = (x_m * shrink, y_m * shrink);
        }
    }

    fn position(&self) -> Position {
        Position { x_m: self.x_m, y_m: self.y_m }
    }

    fn scatter(&self) -> Scatter {
        Scatter { re: self.re, im: self.im }
    }

    /// Gain, size and quality in this slot.
    #[must_use]
    pub fn user(&self, physics: &Physics) -> UserSlot {
        UserSlot {
            gain: channel::gain(physics, self.position(), self.scatter()),
            size_bits: task::size_bits(&physics.params, self.level),
            quality: Quality::at_difficulty(&physics.params, self.difficulty),
        }
    }

    /// Distance to the antenna, metres, (16).
    #[must_use]
    pub fn distance_m(&self, physics: &Physics) -> f64 {
        channel::distance_m(physics, self.position())
    }

    /// Fading gain, (18).
    #[must_use]
    pub fn fading(&self, physics: &Physics) -> f64 {
        channel::rician_gain(physics, self.scatter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_channels_and_others_do_not() {
        let params = MecParams::DEFAULT;
        let run = |seed, mlu, from| {
            let mut radio = Radio::draw(&params, seed, mlu, from);
            for _ in 0..20 {
                radio.advance(&params, seed, mlu);
            }
            radio
        };
        assert_eq!(run(7, 3, 0), run(7, 3, 0));
        for other in [run(8, 3, 0), run(7, 4, 0)] {
            assert_ne!(run(7, 3, 0).user(&params.physics()), other.user(&params.physics()));
        }
    }

    #[test]
    fn it_is_written_to_the_last_bit() {
        let params = MecParams::DEFAULT;
        let mut radio = Radio::draw(&params, 1, 2, 3);
        for _ in 0..50 {
            let text = serde_json::to_string(&radio).unwrap();
            assert_eq!(serde_json::from_str::<Radio>(&text).unwrap(), radio, "{text}");
            radio.advance(&params, 1, 2);
        }
    }

    #[test]
    fn fading_has_the_power_and_the_memory_of_the_simulators() {
        let params = MecParams::DEFAULT;
        let count = 20_000;
        let (mut power, mut memory) = (0.0, 0.0);
        for mlu in 0..count {
            let mut radio = Radio::draw(&params, 5, mlu, 0);
            let before = radio.scatter();
            power += before.re * before.re + before.im * before.im;
            radio.advance(&params, 5, mlu);
            let after = radio.scatter();
            memory += before.re * after.re + before.im * after.im;
        }
        let (power, memory) = (power / f64::from(count), memory / f64::from(count));
        assert!((power - 1.0).abs() < 0.03 && (memory - params.fading_rho).abs() < 0.03, "{power} {memory}");
    }

    #[test]
    fn places_stay_in_the_cell() {
        let mut radio = Radio::draw(&MecParams::DEFAULT, 1, 1, 0);
        radio.place(300.0, 400.0, 20.0);
        assert!((radio.x_m - 12.0).abs() < 1e-9 && (radio.y_m - 16.0).abs() < 1e-9);
        radio.place(f64::NAN, 1.0, 20.0);
        assert!((radio.x_m - 12.0).abs() < 1e-9);
        radio.place(1.7e308, 1.7e308, 20.0);
        assert!((radio.x_m.hypot(radio.y_m) - 20.0).abs() < 1e-9, "at the edge");
        radio.place(0.0, 0.0, 20.0);
        assert_eq!((radio.x_m, radio.y_m), (0.0, 0.0));
    }
}
