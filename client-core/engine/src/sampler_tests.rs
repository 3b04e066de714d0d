//! Choices from logits whose probabilities are known.
// Clippy's leave for tests does not reach the helpers of a test module in a file of its own.
#![allow(clippy::unwrap_used)]

use super::*;

fn params(temperature: f32, top_k: usize, top_p: f32) -> SamplerParams {
    SamplerParams { temperature, top_k, top_p, repetition_penalty: 1.0, seed: 7 }
}

#[test]
fn greedy_takes_the_first_largest() {
    assert_eq!(Sampler::new(params(0.0, 0, 1.0)).choose(&[1.0, 3.0, 3.0, f32::NAN]), 1);
    assert_eq!(Sampler::new(params(f32::NAN, 0, 1.0)).choose(&[1.0, 0.0]), 0);
    assert_eq!(Sampler::new(params(1.0, 0, 1.0)).choose(&[]), 0);
}

/// Drawn frequencies against the probabilities computed by hand, at five standard deviations.
#[test]
fn frequencies_follow_the_distribution() {
    let logits = [2.0f32, 1.0, 0.0, -1.0];
    for (p, allowed) in [
        (params(1.0, 0, 1.0), 4),
        (params(0.5, 0, 1.0), 4),
        (params(1.0, 2, 1.0), 2),
        // softmax is 0.644, 0.237, 0.087, 0.032: two tokens reach 0.8.
        (params(1.0, 0, 0.8), 2),
        (params(2.0, 3, 0.9), 3),
    ] {
        let weights: Vec<f64> = logits[..allowed].iter().map(|l| f64::from(l / p.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sampler = Sampler::new(p);
        let draws = 40_000;
        let mut counts = [0u32; 4];
        for _ in 0..draws {
            counts[sampler.choose(&logits) as usize] += 1;
        }
        for (id, &count) in counts.iter().enumerate() {
            let expect = weights.get(id).map_or(0.0, |w| w / total);
            let deviation = (expect * (1.0 - expect) / f64::from(draws)).sqrt();
            let got = f64::from(count) / f64::from(draws);
            assert!((got - expect).abs() <= 5.0 * deviation, "{p:?}: token {id} {got} instead of {expect}");
        }
    }
}

#[test]
fn the_seed_decides() {
    let draw = |seed| {
        let mut sampler = Sampler::new(SamplerParams { seed, ..params(1.0, 0, 1.0) });
        (0..32).map(|_| sampler.choose(&[0.0; 16])).collect::<Vec<_>>()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// Positive logits shrink, negative ones grow, also of tokens that the sampler chose itself.
#[test]
fn repetition_is_penalised() {
    let penalty = |repetition_penalty| SamplerParams { repetition_penalty, ..params(0.0, 0, 1.0) };
    let mut sampler = Sampler::new(penalty(2.0));
    sampler.note(&[0]);
    let logits = [3.0, 2.0, 1.6, -1.0];
    assert_eq!([(); 3].map(|()| sampler.choose(&logits)), [1, 2, 0]);
    let mut sampler = Sampler::new(penalty(2.0));
    sampler.note(&[0]);
    assert_eq!(sampler.choose(&[-1.0, -1.5]), 1);
    for odd in [1.0, 0.0, -3.0, f32::NAN] {
        let mut sampler = Sampler::new(penalty(odd));
        sampler.note(&[0]);
        assert_eq!(sampler.choose(&logits), 0, "{odd}");
    }
}

#[test]
fn entropy_of_known_distributions() {
    assert!((entropy(&[0.5; 8]) - 8f32.ln()).abs() < 1e-6);
    assert!(entropy(&[100.0, 0.0, 0.0]) < 1e-6);
    // p = (3/4, 1/4).
    let expect = 0.75 * (4f32 / 3.0).ln() + 0.25 * 4f32.ln();
    assert!((entropy(&[3f32.ln(), 0.0]) - expect).abs() < 1e-6);
}

fn shaped(params: SamplerParams, shaping: Shaping) -> Sampler {
    Sampler::shaped(params, shaping)
}

/// What twelve greedy choices from the same logits are.
#[test]
fn presence_frequency_and_bias() {
    let logits = [2.0f32, 1.5, 1.1, 0.0];
    let none = Shaping::default;
    for (shaping, expect) in [
        (none(), [0, 0, 0, 0, 0, 0]),
        // 2 → 1, then 1.5 → 0.5, then 1.1 → 0.1: a token pays once.
        (Shaping { presence_penalty: 1.0, ..none() }, [0, 1, 2, 0, 0, 0]),
        // A token pays each time: 2, 1.5, 1.4 (0 once), 1.1, 0.9 (1 once), 0.8 (0 twice).
        (Shaping { frequency_penalty: 0.6, ..none() }, [0, 1, 0, 2, 1, 0]),
        (Shaping { presence_penalty: -1.0, ..none() }, [0, 0, 0, 0, 0, 0]),
        (Shaping { logit_bias: vec![(3, 2.5)], ..none() }, [3, 3, 3, 3, 3, 3]),
        (Shaping { logit_bias: vec![(0, -100.0), (1, f32::NEG_INFINITY)], ..none() }, [2, 2, 2, 2, 2, 2]),
        // Twice the same adds up; ids outside the vocabulary and NaN change nothing.
        (Shaping { logit_bias: vec![(1, 0.3), (1, 0.3), (9, 50.0), (2, f32::NAN)], ..none() }, [1, 1, 1, 1, 1, 1]),
        (Shaping { presence_penalty: f32::NAN, frequency_penalty: f32::INFINITY, ..none() }, [0, 0, 0, 0, 0, 0]),
    ] {
        let mut sampler = shaped(params(0.0, 0, 1.0), shaping.clone());
        let found = [(); 6].map(|()| sampler.choose_sound(&logits).unwrap().0);
        assert_eq!(found, expect, "{shaping:?}");
    }
    // The prompt counts for repetition alone.
    let presence = Shaping { presence_penalty: 5.0, ..none() };
    let mut sampler = shaped(params(0.0, 0, 1.0), presence.clone());
    sampler.note(&[0]);
    assert_eq!(sampler.choose(&logits), 0);
    let mut sampler = shaped(SamplerParams { repetition_penalty: 4.0, ..params(0.0, 0, 1.0) }, presence);
    sampler.note(&[0]);
    assert_eq!(sampler.choose(&logits), 1);
}

/// Which tokens are ever drawn. softmax of these is 0.644, 0.237, 0.087, 0.032.
#[test]
fn min_p_keeps_what_is_likely_enough() {
    let logits = [2.0f32, 1.0, 0.0, -1.0];
    for (temperature, min_p, top_k, allowed) in [
        (1.0, 0.0, 0, 4),
        (1.0, 0.04, 0, 4),
        (1.0, 0.06, 0, 3),
        (1.0, 0.2, 0, 2),
        (1.0, 0.4, 0, 1),
        (1.0, 1.0, 0, 1),
        (1.0, 7.0, 0, 1),
        // After the temperature: e^(-1/2) = 0.61, e^(-1) = 0.37, e^(-3/2) = 0.22.
        (2.0, 0.4, 0, 2),
        (2.0, 0.3, 0, 3),
        (2.0, 0.3, 1, 1),
        (1.0, f32::NAN, 0, 4),
    ] {
        let mut sampler = shaped(params(temperature, top_k, 1.0), Shaping { min_p, ..Shaping::default() });
        let drawn: HashSet<u32> = (0..3000).map(|_| sampler.choose(&logits)).collect();
        assert_eq!(drawn, (0..allowed).collect(), "{temperature} {min_p} {top_k}");
    }
}

#[test]
fn log_probabilities_are_the_models_own() {
    let logits = [0.0f32, 3f32.ln(), f32::NEG_INFINITY, 3f32.ln()];
    // p = (1, 3, 0, 3) / 7.
    let shaping = Shaping { top_logprobs: Some(3), logit_bias: vec![(0, 100.0)], ..Shaping::default() };
    let (id, told) = shaped(params(0.0, 0, 1.0), shaping).choose_sound(&logits).unwrap();
    let told = told.unwrap();
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    assert!(id == 0 && near(told.logprob, (1f32 / 7.0).ln()), "{told:?}");
    assert_eq!(told.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3, 0]);
    assert!(near(told.top[0].1, (3f32 / 7.0).ln()) && near(told.top[2].1, (1f32 / 7.0).ln()), "{told:?}");
    for (count, expect) in [(Some(0), Some(0)), (Some(99), Some(4)), (None, None)] {
        let shaping = Shaping { top_logprobs: count, ..Shaping::default() };
        let told = shaped(params(0.0, 0, 1.0), shaping).choose_sound(&logits).unwrap().1;
        assert_eq!(told.map(|told| told.top.len()), expect);
    }
    assert_eq!(TokenLogprobs::of(&logits, 77, 0).logprob, f32::NEG_INFINITY);
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let bias = |bias: Vec<(u32, f32)>| Shaping { logit_bias: bias, ..Shaping::default() };
    for (logits, shaping, expect) in [
        (vec![1.0, f32::NAN], Shaping::default(), "not a finite number"),
        (vec![f32::NAN; 4], Shaping::default(), "not a finite number"),
        (vec![1.0, f32::INFINITY], Shaping::default(), "not a finite number"),
        (vec![f32::NEG_INFINITY; 3], Shaping::default(), "no logit is a finite number"),
        (vec![], Shaping::default(), "no logit is a finite number"),
        (vec![1.0, 2.0], bias(vec![(0, f32::NEG_INFINITY), (1, f32::NEG_INFINITY)]), "rules out every token"),
    ] {
        for temperature in [0.0, 1.0] {
            let error = shaped(params(temperature, 0, 1.0), shaping.clone()).choose_sound(&logits).unwrap_err();
            assert!(error.to_string().contains(expect), "{logits:?}: {error}");
        }
    }
    assert_eq!(Sampler::new(params(1.0, 0, 1.0)).choose_sound(&[f32::NEG_INFINITY, 0.5]).unwrap().0, 1);
}
