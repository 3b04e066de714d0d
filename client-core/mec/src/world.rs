//! K users through time: what the page drives by hand and a learner drives in bulk.
//!
//! A slot is decided on [`World::observation`] (eq. 46 with the exogenous size and gain), carried out by [`World::step`],
//! and what it gave is in [`World::last_outcomes`]. The world's random numbers never depend on decisions, so two policies
//! that start from the same seed meet the same channel, sizes and difficulty.

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::channel::{self, Position, Scatter};
use super::heuristics::{StaticPolicy, closed_form};
use super::oracle::{self, Optimum, OracleEffort};
use super::params::{MAX_USERS, MecParams, Physics, Variant};
use super::qos::{self, Quality};
use super::slot::{SlotTotals, UserDecision, UserOutcome, UserSlot, evaluate};
use super::{QosKnowledge, task};

/// What a policy may see of a user: eq. (46), all of it from the slot before, and this slot's size and gain.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct UserObservation {
    /// α of the last slot.
    pub alpha: f64,
    /// p of the last slot.
    pub power_w: f64,
    /// Effective accuracy of the last slot, (28).
    pub accuracy: f64,
    /// Effective hallucination rate of the last slot, (28).
    pub hallucination: f64,
    /// Latency of the last slot, (29).
    pub latency_s: f64,
    /// Size of this slot's task (of the last slot's in [`Variant::Delayed`]).
    pub size_bits: f64,
    /// Channel gain of this slot (of the last slot in [`Variant::Delayed`]).
    pub gain: f64,
}

/// A user as the page shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UserView {
    /// East of the server.
    pub x_m: f64,
    /// North of the server.
    pub y_m: f64,
    /// Distance to the antenna, (16).
    pub distance_m: f64,
    /// Fading gain, (18).
    pub fading: f64,
    /// Channel gain, (17).
    pub gain: f64,
    /// Task size of this slot.
    pub size_bits: f64,
    /// Difficulty of this slot (hidden from policies).
    pub difficulty: f64,
    /// Quality of both models in this slot (hidden from policies).
    pub quality: Quality,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct UserState {
    pub(super) position: Position,
    /// Where a walker is heading, in [`Variant::Mobile`].
    pub(super) goal: Position,
    /// Put there by hand: neither walks nor is redrawn.
    pub(super) held: bool,
    pub(super) scatter: Scatter,
    pub(super) level: usize,
    pub(super) pinned_size_bits: Option<f64>,
    pub(super) difficulty: f64,
}

/// The cell: parameters, users and the present slot.
#[derive(Clone, Debug)]
pub struct World {
    physics: Physics,
    rng: Xoshiro256PlusPlus,
    policy_rng: Xoshiro256PlusPlus,
    states: Vec<UserState>,
    slots: Vec<UserSlot>,
    seen: Vec<(f64, f64)>,
    decisions: Vec<UserDecision>,
    outcomes: Vec<UserOutcome>,
    totals: SlotTotals,
    backlog_s: f64,
    slot_index: usize,
}

/// All that a [`World`] remembers, for a checkpoint: [`World::restore`] goes on exactly as the original would have. The
/// parameters are not in it, they are written once beside many of these.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct WorldSnapshot {
    pub(super) rng: Xoshiro256PlusPlus,
    pub(super) policy_rng: Xoshiro256PlusPlus,
    pub(super) states: Vec<UserState>,
    pub(super) seen: Vec<(f64, f64)>,
    pub(super) decisions: Vec<UserDecision>,
    pub(super) outcomes: Vec<UserOutcome>,
    pub(super) totals: SlotTotals,
    pub(super) backlog_s: f64,
    pub(super) slot_index: usize,
}

/// A [`WorldSnapshot`] that does not belong to the parameters it should go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is not of a cell with {wanted} users, but of one with {found}")]
pub struct SnapshotError {
    /// Users of the parameters.
    pub wanted: usize,
    /// Users of the snapshot.
    pub found: usize,
}

impl WorldSnapshot {
    /// # Errors
    /// When it is of a cell with another number of users than the parameters.
    pub(super) fn check(&self, params: &MecParams) -> Result<(), SnapshotError> {
        let wanted = params.users.min(MAX_USERS);
        let kept = [self.states.len(), self.seen.len(), self.decisions.len(), self.outcomes.len()];
        match [params.users].into_iter().chain(kept).find(|found| *found != wanted) {
            Some(found) => Err(SnapshotError { wanted, found }),
            None => Ok(()),
        }
    }
}

impl World {
    /// A world at the start of an episode. Equal parameters and seeds give equal worlds.
    ///
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub fn new(params: MecParams, seed: u64) -> Self {
        assert!(params.users <= MAX_USERS, "at most {MAX_USERS} users");
        let mut world = Self {
            physics: params.physics(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            policy_rng: Xoshiro256PlusPlus::seed_from_u64(seed ^ 0x5EED_0FA9_0C1A_17E5),
            states: Vec::new(),
            slots: Vec::new(),
            seen: Vec::new(),
            decisions: Vec::new(),
            outcomes: Vec::new(),
            totals: SlotTotals::default(),
            backlog_s: 0.0,
            slot_index: 0,
        };
        world.reset();
        world
    }

    /// What [`World::restore`] needs to go on from here, random generators included.
    pub fn snapshot(&self) -> WorldSnapshot {
        WorldSnapshot {
            rng: self.rng.clone(),
            policy_rng: self.policy_rng.clone(),
            states: self.states.clone(),
            seen: self.seen.clone(),
            decisions: self.decisions.clone(),
            outcomes: self.outcomes.clone(),
            totals: self.totals,
            backlog_s: self.backlog_s,
            slot_index: self.slot_index,
        }
    }

    /// The world that a snapshot was taken of; `params` are the ones that it had then.
    ///
    /// # Errors
    /// When the snapshot has another number of users than the parameters.
    pub fn restore(params: MecParams, snapshot: WorldSnapshot) -> Result<Self, SnapshotError> {
        snapshot.check(&params)?;
        let WorldSnapshot { rng, policy_rng, states, seen, decisions, outcomes, totals, backlog_s, slot_index } =
            snapshot;
        let mut world = Self {
            physics: params.physics(),
            rng,
            policy_rng,
            states,
            slots: Vec::new(),
            seen,
            decisions,
            outcomes,
            totals,
            backlog_s,
            slot_index,
        };
        world.refresh();
        Ok(world)
    }

    /// Starts the next episode: everything is drawn anew, except what was set by hand. Before its first slot one slot is
    /// spent at half offloading, so that the first observation has a last slot to tell of.
    pub fn reset(&mut self) {
        let held = std::mem::take(&mut self.states);
        for k in 0..self.physics.params.users {
            let mut state = self.draw_user();
            if let Some(old) = held.get(k) {
                state.pinned_size_bits = old.pinned_size_bits;
                if old.held {
                    (state.position, state.held) = (old.position, true);
                }
            }
            self.states.push(state);
        }
        self.backlog_s = 0.0;
        self.refresh();
        self.remember_seen();
        self.warm_up();
        self.slot_index = 0;
    }

    fn warm_up(&mut self) {
        let mut decisions = [UserDecision::default(); MAX_USERS];
        let decisions = &mut decisions[..self.states.len()];
        closed_form(&self.physics, &self.slots, QosKnowledge::Mean, decisions);
        for decision in decisions.iter_mut() {
            decision.alpha = 0.5;
        }
        self.step(decisions);
    }

    fn draw_user(&mut self) -> UserState {
        let params = self.physics.params;
        let rng = &mut self.rng;
        UserState {
            position: Position::draw(params.radius_m, rng),
            goal: Position::draw(params.radius_m, rng),
            held: false,
            scatter: Scatter::draw(rng),
            level: task::draw_level(&params, rng),
            pinned_size_bits: None,
            difficulty: qos::draw_difficulty(&params, rng),
        }
    }

    /// Recomputes what follows from the users' states.
    fn refresh(&mut self) {
        let params = &self.physics.params;
        self.slots.clear();
        for state in &self.states {
            self.slots.push(UserSlot {
                gain: channel::gain(&self.physics, state.position, state.scatter),
                size_bits: state.pinned_size_bits.unwrap_or_else(|| task::size_bits(params, state.level)),
                quality: Quality::at_difficulty(params, state.difficulty),
            });
        }
        let count = self.states.len();
        self.decisions.resize(count, UserDecision::default());
        self.outcomes.resize(count, UserOutcome::default());
    }

    fn remember_seen(&mut self) {
        self.seen.clear();
        self.seen.extend(self.slots.iter().map(|slot| (slot.size_bits, slot.gain)));
    }

    /// The parameters.
    pub fn params(&self) -> &MecParams {
        &self.physics.params
    }

    /// The parameters in linear units.
    pub fn physics(&self) -> &Physics {
        &self.physics
    }

    /// Slots carried out since the episode began.
    pub fn slot_index(&self) -> usize {
        self.slot_index
    }

    /// Whether the episode's last slot was carried out: a time limit, not an end (learners bootstrap here).
    pub fn is_truncated(&self) -> bool {
        self.slot_index >= self.physics.params.horizon
    }

    /// Time that the server still needs for earlier slots; 0 except in [`Variant::Backlog`].
    pub fn backlog_s(&self) -> f64 {
        self.backlog_s
    }

    /// Changes the parameters under way. The present slot is recomputed with them; users are added or removed at the end
    /// when their number changed, the others stay as they are.
    ///
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub fn set_params(&mut self, params: MecParams) {
        assert!(params.users <= MAX_USERS, "at most {MAX_USERS} users");
        self.physics = params.physics();
        self.states.truncate(params.users);
        while self.states.len() < params.users {
            let user = self.draw_user();
            self.states.push(user);
        }
        let known = self.outcomes.len().min(params.users);
        self.refresh();
        // A newcomer has no last slot: it gets the outcome of half offloading in this one.
        if known < params.users {
            let mut decisions = [UserDecision::default(); MAX_USERS];
            let mut outcomes = [UserOutcome::default(); MAX_USERS];
            let (decisions, outcomes) = (&mut decisions[..params.users], &mut outcomes[..params.users]);
            closed_form(&self.physics, &self.slots, QosKnowledge::Mean, decisions);
            decisions.iter_mut().for_each(|d| d.alpha = 0.5);
            evaluate(&self.physics, &self.slots, self.backlog_s, decisions, outcomes);
            self.decisions[known..].copy_from_slice(&decisions[known..]);
            self.outcomes[known..].copy_from_slice(&outcomes[known..]);
        }
        self.remember_seen();
    }

    /// Puts a user somewhere by hand; it stays there, also through resets. Nothing happens if there is no such user.
    pub fn set_position(&mut self, user: usize, x_m: f64, y_m: f64) {
        if let Some(state) = self.states.get_mut(user) {
            state.position = Position { x_m, y_m };
            state.held = true;
            self.refresh();
            self.remember_seen();
        }
    }

    /// Lets a user go that was put somewhere by hand.
    pub fn release_position(&mut self, user: usize) {
        if let Some(state) = self.states.get_mut(user) {
            state.held = false;
        }
    }

    /// Gives all tasks of a user one size, or (`None`) lets them follow the chain again.
    pub fn pin_size(&mut self, user: usize, size_bits: Option<f64>) {
        if let Some(state) = self.states.get_mut(user) {
            state.pinned_size_bits = size_bits;
            self.refresh();
            self.remember_seen();
        }
    }

    /// The users as the page shows them.
    pub fn users(&self) -> impl ExactSizeIterator<Item = UserView> + '_ {
        self.states.iter().zip(&self.slots).map(|(state, slot)| UserView {
            x_m: state.position.x_m,
            y_m: state.position.y_m,
            distance_m: channel::distance_m(&self.physics, state.position),
            fading: channel::rician_gain(&self.physics, state.scatter),
            gain: slot.gain,
            size_bits: slot.size_bits,
            difficulty: state.difficulty,
            quality: slot.quality,
        })
    }

    /// What the users bring into the present slot.
    pub fn slots(&self) -> &[UserSlot] {
        &self.slots
    }

    /// What a policy may see, one entry a user.
    pub fn observation(&self) -> Vec<UserObservation> {
        let mut out = vec![UserObservation::default(); self.states.len()];
        self.observe(&mut out);
        out
    }

    /// [`World::observation`] into a slice of one entry a user.
    pub fn observe(&self, out: &mut [UserObservation]) {
        let delayed = self.physics.params.variant == Variant::Delayed;
        for (k, entry) in out.iter_mut().enumerate().take(self.states.len()) {
            let (size_bits, gain) = if delayed { self.seen[k] } else { (self.slots[k].size_bits, self.slots[k].gain) };
            let (decision, outcome) = (self.decisions[k], self.outcomes[k]);
            *entry = UserObservation {
                alpha: decision.alpha,
                power_w: decision.power_w,
                accuracy: outcome.accuracy,
                hallucination: outcome.hallucination,
                latency_s: outcome.latency_s,
                size_bits,
                gain,
            };
        }
    }

    /// What a decision would give in the present slot, without carrying it out. Decisions are clamped to what is allowed;
    /// missing ones count as all local.
    pub fn evaluate(&self, decisions: &[UserDecision]) -> (SlotTotals, Vec<UserOutcome>) {
        let mut outcomes = vec![UserOutcome::default(); self.states.len()];
        let mut allowed = [UserDecision::default(); MAX_USERS];
        let allowed = self.allowed(decisions, &mut allowed);
        let totals = evaluate(&self.physics, &self.slots, self.backlog_s, allowed, &mut outcomes);
        (totals, outcomes)
    }

    fn allowed<'a>(&self, decisions: &[UserDecision], out: &'a mut [UserDecision; MAX_USERS]) -> &'a [UserDecision] {
        let count = self.states.len();
        for (allowed, decision) in out[..count].iter_mut().zip(decisions) {
            *allowed = decision.clamped(self.physics.p_max_w);
        }
        &out[..count]
    }

    /// Carries out a decision and moves on to the next slot. Clamps as [`World::evaluate`] does.
    pub fn step(&mut self, decisions: &[UserDecision]) -> SlotTotals {
        let mut allowed = [UserDecision::default(); MAX_USERS];
        let allowed = self.allowed(decisions, &mut allowed);
        self.decisions.copy_from_slice(allowed);
        self.totals = evaluate(&self.physics, &self.slots, self.backlog_s, &self.decisions, &mut self.outcomes);
        let params = self.physics.params;
        if params.variant == Variant::Backlog {
            let work_s = self.totals.work_cycles / params.server_hz;
            self.backlog_s = (self.backlog_s + work_s - params.slot_s).max(0.0);
        }
        if params.variant == Variant::Delayed {
            self.remember_seen();
        }
        for k in 0..self.states.len() {
            self.advance_user(k);
        }
        self.refresh();
        self.slot_index += 1;
        self.totals
    }

    fn advance_user(&mut self, k: usize) {
        let params = &self.physics.params;
        let rng = &mut self.rng;
        let state = &mut self.states[k];
        if params.variant == Variant::Iid {
            if !state.held {
                state.position = Position::draw(params.radius_m, rng);
            }
            state.scatter = Scatter::draw(rng);
            state.level = task::draw_level(params, rng);
            state.difficulty = qos::draw_difficulty(params, rng);
            return;
        }
        state.scatter = state.scatter.next(params.fading_rho, Scatter::draw(rng));
        state.level = task::next_level(params, state.level, rng);
        state.difficulty = qos::next_difficulty(params, state.difficulty, StandardNormal.sample(rng));
        if params.variant == Variant::Mobile && !state.held {
            state.position = state.position.towards(state.goal, params.speed_m_s * params.slot_s);
            if state.position == state.goal {
                state.goal = Position::draw(params.radius_m, rng);
            }
        }
    }

    /// What the last slot gave each user.
    pub fn last_outcomes(&self) -> &[UserOutcome] {
        &self.outcomes
    }

    /// The best decision of the present slot, with full knowledge.
    pub fn optimum(&self, effort: OracleEffort) -> Optimum {
        oracle::optimum(&self.physics, &self.slots, self.backlog_s, effort)
    }

    /// The present slot as those see it who decide in it: in [`Variant::Delayed`] with size and gain of the last one.
    pub fn seen_slots(&self) -> Vec<UserSlot> {
        let mut seen = self.slots.clone();
        if self.physics.params.variant == Variant::Delayed {
            for (slot, (size_bits, gain)) in seen.iter_mut().zip(&self.seen) {
                (slot.size_bits, slot.gain) = (*size_bits, *gain);
            }
        }
        seen
    }

    /// What a policy without learning decides in the present slot, by [`World::seen_slots`] (only the closed form with
    /// exact knowledge sees more).
    pub fn decide(&mut self, policy: StaticPolicy) -> Vec<UserDecision> {
        let mut out = vec![UserDecision::default(); self.states.len()];
        let exact = policy == StaticPolicy::ClosedForm(QosKnowledge::Exact);
        let slots = if exact { self.slots.clone() } else { self.seen_slots() };
        policy.decide(&self.physics, &slots, &mut self.policy_rng, &mut out);
        out
    }
}

/// The seed of the `index`-th of many worlds that belong together (SplitMix64's finaliser, so that neighbouring indices
/// share nothing).
pub fn nth_seed(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
