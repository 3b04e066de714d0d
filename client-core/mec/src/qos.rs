//! Accuracy and hallucination rate of a slot.
//!
//! The paper defines both per slot against the server's own answer, (26)–(27). Taken literally the server then has
//! accuracy 1 and hallucination 0, because it is compared with itself; the page shows those numbers for real answers. The
//! simulator instead takes the two models' offline measures (Table I, means over the three backbones) as two straight
//! lines in a difficulty `u` that wanders from slot to slot: at the defaults always-local breaks both limits and
//! always-offload neither, as in Fig. 10. The lines are settings, so measured values of real models can be put in.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use super::params::MecParams;

/// Quality of both models in one slot, each in [0, 1].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Accuracy A_k of the device's compact model.
    pub accuracy_local: f64,
    /// Hallucination rate H_k of the device's compact model.
    pub hallucination_local: f64,
    /// Accuracy A_k^MEC of the server's full model.
    pub accuracy_server: f64,
    /// Hallucination rate H_k^MEC of the server's full model.
    pub hallucination_server: f64,
}

impl Quality {
    /// The lines of `params` at a difficulty, clipped to [0, 1].
    pub fn at_difficulty(params: &MecParams, difficulty: f64) -> Self {
        let line = |base: f64, slope: f64| (base + slope * difficulty).clamp(0.0, 1.0);
        Self {
            accuracy_local: line(params.accuracy_local, params.accuracy_local_slope),
            hallucination_local: line(params.hallucination_local, params.hallucination_local_slope),
            accuracy_server: line(params.accuracy_server, params.accuracy_server_slope),
            hallucination_server: line(params.hallucination_server, params.hallucination_server_slope),
        }
    }

    /// (28), first line: the accuracy of a task of which α was answered by the server.
    pub fn accuracy(&self, alpha: f64) -> f64 {
        mixed(alpha, self.accuracy_local, self.accuracy_server)
    }

    /// (28), second line: the same for the hallucination rate.
    pub fn hallucination(&self, alpha: f64) -> f64 {
        mixed(alpha, self.hallucination_local, self.hallucination_server)
    }
}

/// (28): the quality of a task of which α was answered by the server.
pub fn mixed(alpha: f64, local: f64, server: f64) -> f64 {
    alpha * server + (1.0 - alpha) * local
}

/// A first difficulty: standard normal, clipped.
pub fn draw_difficulty(params: &MecParams, rng: &mut impl Rng) -> f64 {
    let draw: f64 = StandardNormal.sample(rng);
    draw.clamp(-params.difficulty_clip, params.difficulty_clip)
}

/// One step of the AR(1) process of unit variance, `u' = ρu + √(1−ρ²)·e`, clipped.
pub fn next_difficulty(params: &MecParams, difficulty: f64, innovation: f64) -> f64 {
    let rho = params.difficulty_rho;
    let fresh = (1.0 - rho * rho).max(0.0).sqrt();
    (rho * difficulty + fresh * innovation).clamp(-params.difficulty_clip, params.difficulty_clip)
}
