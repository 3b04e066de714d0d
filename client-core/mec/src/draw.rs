//! Worlds at random: settings anywhere in their ranges, for whatever has to hold in all of them.

use rand::{Rng, RngExt};

use super::params::{MecParams, ServerShare};
use super::settings::{SETTINGS, Scale, Setting};

/// Settings that say how long an episode is or how many users there are; they are the caller's.
const GIVEN: [&str; 2] = ["users", "horizon"];

/// A world with so many users whose other settings are drawn from their whole ranges (evenly in the logarithm where a range
/// spans two decades), each with the chance `spread` and else left at its default. How the server is shared is drawn
/// too, with the same chance.
pub fn draw_params(users: usize, spread: f64, rng: &mut impl Rng) -> MecParams {
    let mut params = MecParams::with_users(users);
    let mut sizes = [params.size_min_mbit, params.size_max_mbit];
    for setting in SETTINGS.iter().filter(|setting| !GIVEN.contains(&setting.key)) {
        if !rng.random_bool(spread) {
            continue;
        }
        let value = draw_value(setting, rng);
        match setting.key {
            "size_min_mbit" => sizes[0] = value,
            "size_max_mbit" => sizes[1] = value,
            key => params.set(key, value).expect("a value from the setting's range"),
        }
    }
    // The two sizes move each other along; drawn apart, the smaller one is the smallest.
    params.size_min_mbit = sizes[0].min(sizes[1]);
    params.size_max_mbit = sizes[0].max(sizes[1]);
    if rng.random_bool(spread) {
        params.server_share = ServerShare::ALL[rng.random_range(0..ServerShare::ALL.len())];
    }
    params
}

fn draw_value(setting: &Setting, rng: &mut impl Rng) -> f64 {
    let (min, max) = (setting.min, setting.max);
    if setting.is_integer() {
        return rng.random_range(min as u32..=max as u32).into();
    }
    let place: f64 = rng.random();
    if setting.scale == Scale::Log || (min > 0.0 && max >= 100.0 * min) {
        (min * (max / min).powf(place)).clamp(min, max)
    } else {
        min + place * (max - min)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    #[test]
    fn drawn_worlds_are_allowed_and_move_as_much_as_asked() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for _ in 0..200 {
            let params = draw_params(3, 1.0, &mut rng);
            params.validate().expect("allowed");
            let moved = SETTINGS.iter().filter(|s| params.get(s.key) != Ok(s.default)).count();
            // A whole number may be drawn as it was.
            assert!(moved + 4 >= SETTINGS.len(), "{moved} of {}", SETTINGS.len());
        }
        assert_eq!(draw_params(3, 0.0, &mut rng), MecParams::with_users(3));
    }
}
