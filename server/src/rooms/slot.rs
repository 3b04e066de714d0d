//! A slot: its inputs frozen, then decided, which needs no lock. What follows of it is in [`super::finish`].

use client::protocol::rooms::{Part, Presence};
use client::protocol::world::Decider;
use mec::heuristics::closed_form;
use mec::params::MAX_USERS;
use mec::world::nth_seed;
use mec::{MecParams, Physics, QosKnowledge, SlotTotals, UserDecision, UserOutcome, UserSlot, evaluate};
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::compare::Compare;
use super::deciders::{Deciders, Question, send_all};
use super::member::{Last, Member};
use super::radio::Radio;
use super::state::State;

/// A slot's inputs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which slot.
    pub slot: u64,
    /// How often the room had begun anew.
    epoch: u32,
    /// Who is to decide.
    pub decider: Decider,
    /// α and the share of the highest power, by hand.
    manual: (f64, f64),
    seed: u64,
    /// The cells in which somebody sits, by number.
    pub cells: Vec<CellPlan>,
}

/// A cell's inputs.
#[derive(Clone, Debug)]
pub struct CellPlan {
    /// Its number.
    pub cell: u32,
    /// The parameters with the number of those that take part.
    pub physics: Physics,
    /// All seats, by number of the member.
    pub seats: Vec<SeatPlan>,
}

/// A seat's inputs.
#[derive(Clone, Copy, Debug)]
pub struct SeatPlan {
    /// Whose.
    pub mlu: u32,
    /// How it takes part.
    pub part: Part,
    /// Whether it does.
    pub presence: Presence,
    /// Place, channel, task.
    pub radio: Radio,
    /// What it brings into the slot.
    pub user: UserSlot,
    last: Option<Last>,
    /// Its own speed as it measured it.
    pub tokens_per_s: f64,
}

/// A cell, decided.
#[derive(Clone, Debug)]
pub struct CellDecided {
    /// The inputs.
    pub plan: CellPlan,
    /// α and p, one for each seat; nothing for those that took no part.
    pub seats: Vec<Option<(UserDecision, UserOutcome)>>,
    /// The sums; `None` where nobody took part.
    pub totals: Option<SlotTotals>,
}

/// A slot, decided.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Which slot.
    pub slot: u64,
    /// How often the room had begun anew.
    pub epoch: u32,
    /// Who decided.
    pub decider: Decider,
    /// The cells.
    pub cells: Vec<CellDecided>,
}

impl State {
    /// Freezes the inputs of the next slot.
    #[must_use]
    pub fn begin(&mut self) -> Plan {
        self.deciding = true;
        let compared = self.compare.as_ref().and_then(Compare::decider);
        let decider = compared.unwrap_or(self.settings.decider);
        let manual = (self.settings.manual_alpha, self.settings.manual_power);
        let plans = (1..=self.cells().last()).map(|cell| self.cell_plan(cell)).filter(|plan| !plan.seats.is_empty());
        Plan { slot: self.slot, epoch: self.epoch, decider, manual, seed: self.seed, cells: plans.collect() }
    }

    fn cell_plan(&self, cell: u32) -> CellPlan {
        let members: Vec<&Member> = self.members.values().filter(|member| member.identity.cell == Some(cell)).collect();
        let active = members.iter().filter(|member| member.is_active()).count();
        let physics = MecParams { users: active.max(1), ..self.params }.physics();
        let seats = members.into_iter().filter_map(|member| {
            Some(SeatPlan {
                mlu: member.identity.mlu,
                part: member.identity.part,
                presence: member.presence()?,
                radio: member.progress.radio,
                user: member.progress.radio.user(&physics),
                last: member.progress.last,
                tokens_per_s: member.tokens_per_s(),
            })
        });
        CellPlan { cell, physics, seats: seats.collect() }
    }
}

impl CellPlan {
    fn active(&self) -> impl Iterator<Item = &SeatPlan> {
        self.seats.iter().filter(|seat| seat.presence == Presence::Active)
    }

    fn decide(self, deciders: &Deciders, decider: Decider, manual: (f64, f64), seed: u64) -> CellDecided {
        let physics = &self.physics;
        let users: Vec<UserSlot> = self.active().map(|seat| seat.user).collect();
        if users.is_empty() {
            let seats = vec![None; self.seats.len()];
            return CellDecided { plan: self, seats, totals: None };
        }
        // A newcomer has no last slot: it gets the outcome of half offloading in this one, as in `mec::world`.
        let mut half = [UserDecision::default(); MAX_USERS];
        let mut half_outcomes = [UserOutcome::default(); MAX_USERS];
        let (half, half_outcomes) = (&mut half[..users.len()], &mut half_outcomes[..users.len()]);
        closed_form(physics, &users, QosKnowledge::Mean, half);
        half.iter_mut().for_each(|decision| decision.alpha = 0.5);
        evaluate(physics, &users, 0.0, half, half_outcomes);
        let begun = half.iter().zip(half_outcomes.iter()).map(|(decision, outcome)| Last::of(*decision, outcome));
        let seen = self.active().zip(begun).map(|(seat, begun)| seat.last.unwrap_or(begun).observation(&seat.user));
        let seen: Vec<_> = seen.collect();
        let question = Question { physics, users: &users, seen: &seen, seed, manual };
        let mut decisions = deciders.decide(decider, &question);
        let without_model: Vec<bool> = self.active().map(|seat| seat.part == Part::ServerOnly).collect();
        send_all(physics, &users, &without_model, &mut decisions);
        for decision in &mut decisions {
            *decision = decision.clamped(physics.p_max_w);
        }
        let mut outcomes = vec![UserOutcome::default(); users.len()];
        let totals = evaluate(physics, &users, 0.0, &decisions, &mut outcomes);
        let mut both = decisions.into_iter().zip(outcomes);
        let seats = self.seats.iter().map(|seat| if seat.presence == Presence::Active { both.next() } else { None });
        let seats = seats.collect();
        CellDecided { plan: self, seats, totals: Some(totals) }
    }
}

impl Plan {
    /// Decides every cell, side by side.
    #[must_use]
    pub fn decide(self, deciders: &Deciders) -> Decided {
        self.decide_unless(deciders, &|| false)
    }

    /// The same, for a room that may be closed meanwhile, as `gone` says: no more is searched for it then.
    #[must_use]
    pub fn decide_unless(self, deciders: &Deciders, gone: &(dyn Fn() -> bool + Sync)) -> Decided {
        let Self { slot, epoch, decider, manual, seed, cells } = self;
        let decider = deciders.present(decider);
        let slot_seed = nth_seed(seed, slot);
        let decide = |plan: CellPlan| {
            let cell_seed = nth_seed(slot_seed, u64::from(plan.cell));
            let decider = if gone() { Decider::AlwaysLocal } else { decider };
            plan.decide(deciders, decider, manual, cell_seed)
        };
        let cells = Deciders::with_threads(decider, || cells.into_par_iter().map(decide).collect());
        Decided { slot, epoch, decider, cells }
    }
}
