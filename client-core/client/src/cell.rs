//! The cell as the page sees it: [`WorldSettings`] in, [`WorldView`] out, the simulator between them.
//!
//! A [`Cell`] is the world, the settings that made it, and every way to decide about its present slot, side by side. The
//! policy's decision comes from outside: it may be computed on the CPU or on a GPU, and takes an await.
//!
//! Deliberately absent: physics (that is [`mec`]), messages and time.

use std::cell::RefCell;

use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::offload::run::SlotModel;
use crate::protocol::manifest::ModelManifest;
use crate::protocol::world::{
    Comparison, Decider, DecisionView, DeviceOutcome, DeviceView, QosSource, WorldSettings, WorldView,
};
use mec::world::nth_seed;
use mec::{MecParams, Optimum, OracleEffort, QosKnowledge, SlotTotals, StaticPolicy, UserDecision, UserOutcome, World};

/// The most devices that a page can put into the cell; there is a shipped policy for each number up to here.
pub const MAX_DEVICES: usize = 10;

/// What the policy decided about the present slot.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyDecision {
    /// One decision a device.
    pub decisions: Vec<UserDecision>,
    /// The small print.
    pub view: DecisionView,
}

/// Quality of the models that ship, as measured by `tandem eval`; each in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredQuality {
    /// Accuracy and hallucination rate of the compact model.
    pub device: (f64, f64),
    /// Accuracy and hallucination rate of the full model.
    pub server: (f64, f64),
}

impl MeasuredQuality {
    /// From the manifest's models `compact` and `full`: the mean over single-hop and two-hop questions.
    #[must_use]
    pub fn from_manifest(manifest: &ModelManifest) -> Option<Self> {
        let of = |id: &str| {
            let model = manifest.models.iter().find(|model| model.id == id)?;
            Some(((model.accuracy.single_hop + model.accuracy.two_hop) / 2.0, model.hallucination))
        };
        Some(Self { device: of("compact")?, server: of("full")? })
    }
}

/// The cell.
#[derive(Clone, Debug)]
pub struct Cell {
    settings: WorldSettings,
    measured: Option<MeasuredQuality>,
    world: World,
    /// Where the seed had put the devices, for when a dragged one is let go.
    drawn_positions: Vec<[f64; 2]>,
    /// Settings that could not be used, in words.
    refused: Vec<String>,
    optimum: RefCell<Option<Optimum>>,
}

impl Cell {
    /// A cell at slot 0. Settings that make no sense are left at their defaults and listed by [`Cell::refused`].
    #[must_use]
    pub fn open(settings: WorldSettings, measured: Option<MeasuredQuality>) -> Self {
        let (params, refused) = params_of(&settings, measured);
        let world = World::new(params, settings.seed);
        let drawn_positions = world.users().map(|user| [user.x_m, user.y_m]).collect();
        let mut cell = Self { settings, measured, world, drawn_positions, refused, optimum: RefCell::default() };
        cell.place();
        cell
    }

    /// New settings on the present slot. Another seed or number of devices is another world and starts at slot 0, so
    /// that equal settings always give equal worlds.
    pub fn set(&mut self, settings: WorldSettings) {
        let users = params_of(&settings, self.measured).0.users;
        if settings.seed != self.settings.seed || users != self.world.params().users {
            *self = Self::open(settings, self.measured);
            return;
        }
        self.settings = settings;
        self.refresh();
    }

    /// The models' measured quality became known.
    pub fn set_measured(&mut self, measured: Option<MeasuredQuality>) {
        self.measured = measured;
        self.refresh();
    }

    /// Back to slot 0 of the same seed.
    pub fn reset(&mut self) {
        *self = Self::open(self.settings.clone(), self.measured);
    }

    /// Carries out a decision and goes on to the next slot.
    pub fn step(&mut self, decisions: &[UserDecision]) {
        self.world.step(decisions);
        self.optimum.take();
    }

    fn refresh(&mut self) {
        let (params, refused) = params_of(&self.settings, self.measured);
        self.world.set_params(params);
        self.refused = refused;
        self.place();
    }

    /// Puts devices and task sizes where the settings have them.
    fn place(&mut self) {
        self.optimum.take();
        let radius_m = self.world.params().radius_m;
        let size_bits = self.settings.size_mbit.map(bits);
        for (user, &drawn) in self.drawn_positions.iter().enumerate() {
            match self.settings.positions.get(&user) {
                Some(&[x_m, y_m]) if x_m.is_finite() && y_m.is_finite() => {
                    let shrink = (radius_m / x_m.hypot(y_m)).min(1.0);
                    self.world.set_position(user, x_m * shrink, y_m * shrink);
                }
                _ => {
                    self.world.set_position(user, drawn[0], drawn[1]);
                    self.world.release_position(user);
                }
            }
            self.world.pin_size(user, size_bits);
        }
    }

    /// Makes this device's task as large as an ask with so many tokens of answers is in a calibrated world; in another,
    /// nothing changes.
    pub fn expect_tokens(&mut self, tokens: f64) {
        if let (Some(mbit), Some(task)) = (self.settings.size_mbit, self.settings.calibrated) {
            self.optimum.take();
            self.world.pin_size(0, Some(bits(mbit * task.whole(tokens) / task.whole(task.tokens).max(1.0))));
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &WorldSettings {
        &self.settings
    }

    /// Settings that could not be used, in words.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// The simulator, for what a policy has to see.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Whether the optimum of the present slot is known already, so that showing it costs nothing.
    #[must_use]
    pub fn knows_optimum(&self) -> bool {
        self.optimum.borrow().is_some()
    }

    /// What the chosen decider says about the present slot, and who really decided: without a policy for this number of
    /// devices the closed form stands in.
    #[must_use]
    pub fn decide(&self, policy: Option<&PolicyDecision>) -> (Decider, Vec<UserDecision>) {
        let decider = match self.settings.decider {
            Decider::Policy if policy.is_none() => Decider::ClosedForm,
            decider => decider,
        };
        (decider, self.decisions_of(decider, policy))
    }

    fn decisions_of(&self, decider: Decider, policy: Option<&PolicyDecision>) -> Vec<UserDecision> {
        let static_policy = match decider {
            Decider::Policy => return policy.map(|policy| policy.decisions.clone()).unwrap_or_default(),
            Decider::Oracle => return self.optimum().decisions,
            Decider::Manual => {
                let power_w = self.settings.manual_power * self.world.physics().p_max_w;
                let decision = UserDecision { alpha: self.settings.manual_alpha, power_w };
                return vec![decision.clamped(self.world.physics().p_max_w); self.world.slots().len()];
            }
            Decider::ClosedForm => StaticPolicy::ClosedForm(QosKnowledge::Mean),
            Decider::AlwaysLocal => StaticPolicy::AlwaysLocal,
            Decider::AlwaysOffload => StaticPolicy::AlwaysOffload,
            Decider::Random => StaticPolicy::Random,
        };
        // A seed of the slot's own: dragging a slider must not roll the dice again.
        let slot_seed = nth_seed(self.settings.seed, self.world.slot_index() as u64);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(slot_seed);
        let mut decisions = vec![UserDecision::default(); self.world.slots().len()];
        static_policy.decide(self.world.physics(), self.world.slots(), &mut rng, &mut decisions);
        decisions
    }

    fn optimum(&self) -> Optimum {
        self.optimum.borrow_mut().get_or_insert_with(|| self.world.optimum(OracleEffort::Usual)).clone()
    }

    /// The slot for an ask of this page (device 0), with its own ratio overruled by `alpha`; and the decisions that
    /// [`Cell::step`] carries out afterwards.
    #[must_use]
    pub fn slot(&self, mut decisions: Vec<UserDecision>, alpha: f64) -> (SlotModel, Vec<UserDecision>) {
        if let Some(own) = decisions.first_mut() {
            own.alpha = alpha;
        }
        let (_, outcomes) = self.world.evaluate(&decisions);
        let outcome = match (decisions.first(), outcomes.first()) {
            (Some(decision), Some(outcome)) => device_outcome(decision, outcome),
            _ => DeviceOutcome { alpha, ..DeviceOutcome::default() },
        };
        let size_bits = self.world.slots().first().map_or(0.0, |slot| slot.size_bits);
        (SlotModel { slot: self.world.slot_index() as u64, size_bits, outcome }, decisions)
    }

    /// The present slot, whole. The optimum is compared only `with_optimum`, or when it decides or is known anyway.
    #[must_use]
    pub fn view(&self, policy: Option<&PolicyDecision>, with_optimum: bool) -> WorldView {
        let (decider, decisions) = self.decide(policy);
        let (_, outcomes) = self.world.evaluate(&decisions);
        let params = self.world.params();
        let devices = self.world.users().zip(&decisions).zip(&outcomes).map(|((user, decision), outcome)| DeviceView {
            x_m: user.x_m,
            y_m: user.y_m,
            distance_m: user.distance_m,
            gain_db: decibels(user.gain),
            fading_db: decibels(user.fading),
            size_bits: user.size_bits,
            outcome: device_outcome(decision, outcome),
        });
        let shown = [
            (Decider::Policy, policy.is_some()),
            (Decider::Oracle, with_optimum || self.knows_optimum()),
            (Decider::ClosedForm, true),
            (Decider::AlwaysLocal, true),
            (Decider::AlwaysOffload, true),
            (Decider::Random, true),
            (Decider::Manual, decider == Decider::Manual),
        ];
        let comparisons = shown.iter().filter(|entry| entry.1).map(|&(decider, _)| {
            let decisions = self.decisions_of(decider, policy);
            let (totals, outcomes) = self.world.evaluate(&decisions);
            comparison(decider, &decisions, &totals, &outcomes)
        });
        WorldView {
            slot: self.world.slot_index() as u64,
            seed: self.settings.seed,
            devices: devices.collect(),
            decider,
            decision: policy.filter(|_| decider == Decider::Policy).map(|policy| policy.view.clone()),
            comparisons: comparisons.collect(),
            accuracy_min: params.a_min,
            hallucination_max: params.h_max,
            energy_max_j: params.e_max_j,
            power_max_w: self.world.physics().p_max_w,
        }
    }
}

/// The simulator's parameters for these settings, and what of them could not be used.
fn params_of(settings: &WorldSettings, measured: Option<MeasuredQuality>) -> (MecParams, Vec<String>) {
    let mut refused = Vec::new();
    // 0 is what an empty message says; the paper's cell has two.
    let users = if settings.users == 0 { 2 } else { settings.users.min(MAX_DEVICES) };
    let mut params = MecParams { users, ..MecParams::DEFAULT };
    match (settings.qos, measured) {
        (QosSource::Shipped, Some(measured)) => {
            (params.accuracy_local, params.hallucination_local) = measured.device;
            (params.accuracy_server, params.hallucination_server) = measured.server;
        }
        (QosSource::Shipped, None) => {
            refused.push("The models' measured quality is not known; the paper's Table I is used instead.".to_owned());
        }
        (QosSource::Paper, _) => {}
    }
    for (key, &value) in settings.values.iter().filter(|entry| entry.0 != "users") {
        if let Err(error) = params.set(key, value) {
            refused.push(error.to_string());
        }
    }
    (params, refused)
}

/// Bits of a task of so many Mbit, within what the simulator takes.
fn bits(mbit: f64) -> f64 {
    mbit.clamp(0.01, 20.0) * 1e6
}

fn decibels(ratio: f64) -> f64 {
    // A channel in total outage has no finite level; -200 dB is below everything that can be shown.
    if ratio > 0.0 { 10.0 * ratio.log10() } else { -200.0 }
}

fn device_outcome(decision: &UserDecision, outcome: &UserOutcome) -> DeviceOutcome {
    DeviceOutcome {
        alpha: decision.alpha,
        power_w: decision.power_w,
        rate_bps: outcome.rate_bps,
        local_s: outcome.local_s,
        uplink_s: outcome.uplink_s,
        server_s: outcome.server_s,
        latency_s: outcome.latency_s,
        local_j: outcome.local_j,
        uplink_j: outcome.uplink_j,
        accuracy: outcome.accuracy,
        hallucination: outcome.hallucination,
    }
}

fn comparison(
    decider: Decider,
    decisions: &[UserDecision],
    totals: &SlotTotals,
    outcomes: &[UserOutcome],
) -> Comparison {
    let own = decisions.first().zip(outcomes.first()).map(|(decision, outcome)| device_outcome(decision, outcome));
    Comparison {
        decider,
        own: own.unwrap_or_default(),
        mean_latency_s: totals.latency_sum_s / outcomes.len().max(1) as f64,
        energy_j: totals.energy_sum_j,
        penalty: totals.penalty,
        reward: totals.reward,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::{Accuracy, ModelEntry};
    use crate::protocol::world::PolicyBackend;

    fn settings() -> WorldSettings {
        WorldSettings { users: 3, seed: 7, decider: Decider::ClosedForm, ..WorldSettings::default() }
    }

    fn view(cell: &Cell) -> WorldView {
        cell.view(None, true)
    }

    fn of(view: &WorldView, decider: Decider) -> Comparison {
        view.comparisons.iter().find(|entry| entry.decider == decider).expect("compared").clone()
    }

    #[test]
    fn equal_settings_give_equal_views_however_they_came_about() {
        let fresh = view(&Cell::open(settings(), None));
        let mut cell = Cell::open(WorldSettings { users: 2, seed: 1, ..settings() }, None);
        cell.set(WorldSettings { size_mbit: Some(2.0), ..settings() });
        cell.set(WorldSettings { positions: [(1, [5.0, 5.0])].into(), ..settings() });
        assert_ne!(view(&cell), fresh);
        cell.set(settings());
        assert_eq!(view(&cell), fresh);
        let (_, decisions) = cell.decide(None);
        cell.step(&decisions);
        assert_eq!(view(&cell).slot, 1);
        cell.reset();
        assert_eq!(view(&cell), fresh);
    }

    #[test]
    fn comparisons_are_ordered_as_theory_has_them() {
        let mut cell = Cell::open(settings(), None);
        for _ in 0..20 {
            let seen = view(&cell);
            let best = of(&seen, Decider::Oracle).reward;
            for entry in &seen.comparisons {
                assert!(entry.reward <= best + 1e-9, "{entry:?} beats the optimum {best}");
            }
            assert_eq!(of(&seen, Decider::AlwaysLocal).own.alpha, 0.0);
            assert_eq!(of(&seen, Decider::AlwaysOffload).own.power_w, seen.power_max_w);
            assert_eq!(of(&seen, Decider::ClosedForm).own, seen.devices[0].outcome);
            let (_, decisions) = cell.decide(None);
            cell.step(&decisions);
        }
    }

    #[test]
    fn a_policy_decides_when_there_is_one() {
        let mut cell = Cell::open(WorldSettings { decider: Decider::Policy, ..settings() }, None);
        assert_eq!(view(&cell).decider, Decider::ClosedForm, "nobody else is there");
        let decisions = vec![UserDecision { alpha: 0.25, power_w: 1.0 }; 3];
        let small_print = DecisionView { backend: PolicyBackend::Flex, millis: 0.1, policy: "set".to_owned() };
        let policy = PolicyDecision { decisions, view: small_print.clone() };
        let seen = cell.view(Some(&policy), false);
        assert_eq!((seen.decider, seen.decision), (Decider::Policy, Some(small_print)));
        assert!(seen.devices.iter().all(|device| device.outcome.alpha == 0.25 && device.outcome.power_w == 1.0));
        cell.set(WorldSettings { decider: Decider::Manual, manual_alpha: 0.5, manual_power: 0.25, ..settings() });
        let seen = cell.view(Some(&policy), false);
        assert_eq!((seen.decider, seen.decision), (Decider::Manual, None));
        assert!((seen.devices[2].outcome.power_w - 0.25 * seen.power_max_w).abs() < 1e-12);
        assert_eq!(seen.comparisons.len(), 6, "all but the oracle");
    }

    #[test]
    fn sliders_do_not_roll_the_dice_again() {
        let mut cell = Cell::open(settings(), None);
        let before = of(&view(&cell), Decider::Random).own.alpha;
        cell.set(WorldSettings { values: [("bandwidth_hz".to_owned(), 5e6)].into(), ..settings() });
        assert_eq!(of(&view(&cell), Decider::Random).own.alpha, before);
        cell.step(&[UserDecision::default(); 3]);
        assert_ne!(of(&view(&cell), Decider::Random).own.alpha, before);
    }

    #[test]
    fn dragging_stays_in_the_cell_and_nonsense_is_refused() {
        let positions = [(0, [300.0, 400.0]), (1, [f64::NAN, 0.0]), (9, [1.0, 1.0])].into();
        let values = [("nonsense".to_owned(), 1.0), ("omega".to_owned(), f64::NAN), ("users".to_owned(), 9.0)].into();
        let cell = Cell::open(WorldSettings { positions, values, users: 70, ..settings() }, None);
        let seen = view(&cell);
        assert_eq!(seen.devices.len(), MAX_DEVICES);
        assert!((seen.devices[0].x_m - 12.0).abs() < 1e-9 && (seen.devices[0].y_m - 16.0).abs() < 1e-9);
        assert!(seen.devices[1].x_m.is_finite());
        assert_eq!(cell.refused().len(), 2, "{:?}", cell.refused());
    }

    #[test]
    fn shipped_models_bring_their_own_quality() {
        let model = |id: &str, single_hop, two_hop, hallucination| ModelEntry {
            id: id.to_owned(),
            name: String::new(),
            file: String::new(),
            bytes: 0,
            sha256: String::new(),
            parameters: 0,
            quantisation: String::new(),
            context_length: 0,
            cache_width: 0,
            accuracy: Accuracy { single_hop, two_hop },
            hallucination,
            licence: String::new(),
            corpus_seed: 0,
            preferred: false,
        };
        let models = vec![model("full", 1.0, 0.8, 0.1), model("compact", 0.6, 0.4, 0.4)];
        let measured = MeasuredQuality::from_manifest(&ModelManifest { version: 1, models });
        assert_eq!(measured, Some(MeasuredQuality { device: (0.5, 0.4), server: (0.9, 0.1) }));
        let flat = [("accuracy_local_slope", 0.0), ("accuracy_server_slope", 0.0)];
        let values = flat.map(|(key, value)| (key.to_owned(), value)).into();
        let wanted = WorldSettings { qos: QosSource::Shipped, values, ..settings() };
        let mut cell = Cell::open(wanted, None);
        assert_eq!(cell.refused().len(), 1);
        cell.set_measured(measured);
        assert!(cell.refused().is_empty());
        let seen = view(&cell);
        assert!((of(&seen, Decider::AlwaysLocal).own.accuracy - 0.5).abs() < 1e-12);
        assert!((of(&seen, Decider::AlwaysOffload).own.accuracy - 0.9).abs() < 1e-12);
    }

    #[test]
    fn an_ask_can_overrule_the_ratio() {
        let cell = Cell::open(settings(), None);
        let (_, decisions) = cell.decide(None);
        let (slot, decisions) = cell.slot(decisions, 0.0);
        assert_eq!((slot.outcome.alpha, slot.outcome.uplink_s, decisions[0].alpha), (0.0, 0.0, 0.0));
        assert!(decisions[1].alpha > 0.0);
        assert_eq!(slot.outcome.latency_s, slot.outcome.local_s);
    }
}
