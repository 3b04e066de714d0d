//! From the network's outputs to a decision.
//!
//! A proposal is four numbers in (−1, 1): for each user an offset from equal received power, and for the cell (the mean over
//! its users) how much of their different gains stays (0: received equally loud, 1: sent equally loud), how much softer all
//! are than P_max allows, and how far over the limits of quality to aim. The best ratios for these powers complete it.

use mec::oracle::powers_from_offsets;
use mec::params::{MAX_USERS, Physics, db_to_ratio, ratio_to_db};
use mec::{RatioSolver, UserDecision, UserObservation, UserSlot, cost};

use super::belief::Belief;

/// Network outputs a user and proposal.
pub const PROPOSAL_OUTPUTS: usize = 4;

/// An offset of z is `FINE_DB·z + WIDE_DB·z³`: fine about 0, and far enough to silence somebody.
const FINE_DB: f64 = 6.0;
const WIDE_DB: f64 = 34.0;
/// Softer by `SOFT_DB·z²`, for z over 0.
const SOFT_DB: f64 = 60.0;
/// The margin is `MARGIN.0 + MARGIN.1·z` standard deviations.
const MARGIN: (f64, f64) = (0.5, 2.5);

/// Steps of the search about the best proposal, one sweep over its numbers each. For up to [`FEW`] users all of them, for more
/// users the two in the middle: a decision of five users has to fit into 200 µs in a browser.
const SWEEPS: [f64; 4] = [0.3, 0.12, 0.05, 0.02];
const FEW: usize = 3;
/// An offset with which nothing is heard of a user.
const SILENT: f64 = -1.0;
/// A step has to bring so much more reward, as a share: less is rounding.
const LEAST_GAIN: f64 = 1e-6;

/// One proposal, each number in (−1, 1).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Proposal {
    /// Of each user: louder or softer than the others.
    pub offset: [f64; MAX_USERS],
    /// How much of the gains' differences stays.
    pub lean: f64,
    /// How much softer all are.
    pub soft: f64,
    /// How far over the limits to aim.
    pub margin: f64,
}

impl Proposal {
    /// The `index`-th of the proposals in a slot's outputs (each in [0, 1], `width` a user, user after user).
    pub fn read(outputs: &[f32], width: usize, index: usize) -> Self {
        let mut proposal = Self::default();
        let count = (outputs.len() / width.max(1)).max(1) as f64;
        let centred = |value: f32| if value.is_nan() { 0.0 } else { 2.0 * f64::from(value.clamp(0.0, 1.0)) - 1.0 };
        for (offset, row) in proposal.offset.iter_mut().zip(outputs.chunks_exact(width.max(1))) {
            if let Some([own, lean, soft, margin]) = row.as_chunks::<PROPOSAL_OUTPUTS>().0.get(index) {
                *offset = centred(*own);
                proposal.lean += centred(*lean) / count;
                proposal.soft += centred(*soft) / count;
                proposal.margin += centred(*margin) / count;
            }
        }
        proposal
    }

    /// Its number at an index: the users' offsets (`count` of them), then lean, softness and margin; and how much wider than
    /// an offset's a step of it is.
    fn number(&mut self, index: usize, count: usize) -> Option<(&mut f64, f64)> {
        Some(match index.checked_sub(count) {
            None => (self.offset.get_mut(index)?, 1.0),
            Some(0) => (&mut self.lean, 1.0),
            Some(1) => (&mut self.soft, 2.0),
            Some(2) => (&mut self.margin, 2.0),
            Some(_) => return None,
        })
    }

    /// The margin in standard deviations.
    fn deviations(&self) -> f64 {
        MARGIN.0 + MARGIN.1 * self.margin
    }
}

/// What a user's uplink can do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uplink {
    /// Rate at equal received power.
    pub equal_bps: f64,
    /// Power that this takes.
    pub equal_w: f64,
    /// Rate if it alone sends, at P_max.
    pub alone_bps: f64,
    /// Gain over the smallest one in the cell.
    pub over_weakest_db: f64,
}

/// A decision with what it is worth by the belief.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    decisions: [UserDecision; MAX_USERS],
    reward: f64,
}

/// All that is computed of a slot before the network is asked.
#[derive(Clone, Debug)]
pub struct Outlook {
    belief: Belief,
    uplinks: [Uplink; MAX_USERS],
    closed: Candidate,
    /// Time that a user costs by the closed form.
    unit_s: f64,
    /// Which part of that is latency.
    latency_share: f64,
}

impl Outlook {
    /// # Panics
    /// If there are more than [`MAX_USERS`] users.
    pub fn new(physics: &Physics, seen: &[UserObservation]) -> Self {
        let belief = Belief::new(physics, seen);
        let count = seen.len();
        let users = belief.users();
        let mut uplinks = [Uplink::default(); MAX_USERS];
        let weakest = users.iter().map(|user| user.gain).fold(f64::INFINITY, f64::min);
        let mut equal_w = [0.0; MAX_USERS];
        let gains = users.iter().map(|user| user.gain);
        powers_from_offsets(physics, gains, &[0.0; MAX_USERS][..count], &mut equal_w[..count]);
        for (k, (uplink, user)) in uplinks.iter_mut().zip(users).enumerate() {
            let heard_w = equal_w[k] * user.gain;
            *uplink = Uplink {
                equal_bps: cost::rate_bps(physics, heard_w, heard_w * (count as f64 - 1.0)),
                equal_w: equal_w[k],
                alone_bps: cost::rate_bps(physics, physics.p_max_w * user.gain, 0.0),
                over_weakest_db: ratio_to_db(user.gain / weakest),
            };
        }
        let mut outlook = Self {
            belief,
            uplinks,
            closed: Candidate { decisions: [UserDecision::default(); MAX_USERS], reward: 0.0 },
            unit_s: 1.0,
            latency_share: 1.0,
        };
        if count == 0 {
            return outlook;
        }
        outlook.closed = outlook.weighed(physics, outlook.belief.users(), &equal_w[..count]);
        outlook.unit_s = 1.0 / (outlook.closed.reward * count as f64);
        let latency_s = outlook.latency_s(physics, &outlook.closed.decisions[..count]);
        outlook.latency_share = latency_s * outlook.closed.reward;
        outlook
    }

    /// What is believed of the users.
    pub fn belief(&self) -> &Belief {
        &self.belief
    }

    /// A user's uplink.
    pub fn uplink(&self, user: usize) -> &Uplink {
        &self.uplinks[user]
    }

    /// Time that a user costs by the closed form, which is the unit of the network's times.
    pub fn unit_s(&self) -> f64 {
        self.unit_s
    }

    /// Which part of the closed form's cost is latency.
    pub fn latency_share(&self) -> f64 {
        self.latency_share
    }

    /// A user's ratio by the closed form.
    pub fn closed_alpha(&self, user: usize) -> f64 {
        self.closed.decisions[user].alpha
    }

    /// The believed reward of the closed form.
    pub fn closed_reward(&self) -> f64 {
        self.closed.reward
    }

    fn latency_s(&self, physics: &Physics, decisions: &[UserDecision]) -> f64 {
        let mut outcomes = [mec::UserOutcome::default(); MAX_USERS];
        let outcomes = &mut outcomes[..decisions.len()];
        mec::evaluate(physics, self.belief.users(), 0.0, decisions, outcomes).latency_sum_s
    }

    fn weighed(&self, physics: &Physics, users: &[UserSlot], power_w: &[f64]) -> Candidate {
        let mut decisions = [UserDecision::default(); MAX_USERS];
        let out = &mut decisions[..users.len()];
        RatioSolver::new(physics, users, 0.0).decide(power_w, out);
        Candidate { reward: self.belief.reward(physics, out), decisions }
    }

    /// Completes a proposal.
    fn completed(&self, physics: &Physics, proposal: &Proposal) -> Candidate {
        let count = self.belief.users().len();
        let users = self.belief.with_margin(proposal.deviations());
        self.weighed(physics, &users[..count], &self.powers(physics, proposal)[..count])
    }

    /// The powers of a proposal.
    fn powers(&self, physics: &Physics, proposal: &Proposal) -> [f64; MAX_USERS] {
        let users = self.belief.users();
        let mut offsets_db = [0.0; MAX_USERS];
        for ((offset_db, z), uplink) in offsets_db.iter_mut().zip(proposal.offset).zip(&self.uplinks) {
            *offset_db = FINE_DB * z + WIDE_DB * z * z * z + proposal.lean * uplink.over_weakest_db;
        }
        let mut power_w = [0.0; MAX_USERS];
        let gains = users.iter().map(|user| user.gain);
        powers_from_offsets(physics, gains, &offsets_db[..users.len()], &mut power_w[..users.len()]);
        let soft = proposal.soft.max(0.0);
        let by = db_to_ratio(-SOFT_DB * soft * soft);
        power_w.iter_mut().for_each(|power| *power *= by);
        power_w
    }

    /// What a proposal is worth by the belief, its ratios being the best ones.
    pub fn reward(&self, physics: &Physics, proposal: &Proposal) -> f64 {
        self.completed(physics, proposal).reward
    }

    /// Silences users or lets them send, then moves one number of a proposal after the other, where that is worth more by the
    /// belief.
    fn refined(&self, physics: &Physics, proposal: Proposal, worth: Candidate) -> (Proposal, Candidate) {
        let count = self.belief.users().len();
        let (mut best, mut at) = (worth, proposal);
        // In an order that does not depend on how the users are numbered.
        let mut order: [usize; MAX_USERS] = std::array::from_fn(|index| index);
        let users = self.belief.users();
        order[..count].sort_unstable_by(|a, b| {
            let key = |index: usize| (users[index].gain, users[index].size_bits);
            let (a, b) = (key(*a), key(*b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        // Of a single user nobody is louder or softer.
        let own = if count > 1 { &order[..count] } else { &[] };
        let common = if count > 1 { count } else { count + 1 };
        // First who sends at all: the reward has a hill for nearly every set of users who do.
        for &user in own {
            let mut moved = at;
            moved.offset[user] = if at.offset[user] > SILENT / 2.0 { SILENT } else { 0.0 };
            let next = self.completed(physics, &moved);
            if next.reward > best.reward * (1.0 + LEAST_GAIN) {
                (best, at) = (next, moved);
            }
        }
        for sweep in if count > FEW { &SWEEPS[1..3] } else { &SWEEPS[..] } {
            for index in own.iter().copied().chain(common..count + 3) {
                for step in [*sweep, -sweep] {
                    let mut moved = at;
                    let Some((number, wider)) = moved.number(index, count) else { continue };
                    *number = (*number + step * wider).clamp(-1.0, 1.0);
                    let next = self.completed(physics, &moved);
                    if next.reward > best.reward * (1.0 + LEAST_GAIN) {
                        (best, at) = (next, moved);
                        break;
                    }
                }
            }
        }
        (at, best)
    }

    /// The best of the proposals and of the candidates that need no network, refined: one decision a user. Returns its
    /// believed reward.
    ///
    /// # Panics
    /// If `out` does not hold one entry a user.
    pub fn decide(
        &self,
        physics: &Physics,
        proposals: impl Iterator<Item = Proposal>,
        out: &mut [UserDecision],
    ) -> f64 {
        let count = self.belief.users().len();
        assert_eq!(out.len(), count, "one decision a user");
        let equal = |lean: f64, deviations: f64| Proposal {
            lean,
            margin: (deviations - MARGIN.0) / MARGIN.1,
            ..Proposal::default()
        };
        let mut best = self.closed;
        // The closed form as a proposal; nobody sends by none.
        let mut from = Some(equal(0.0, 0.0));
        let silent = self.weighed(physics, self.belief.users(), &[0.0; MAX_USERS][..count]);
        if silent.reward > best.reward {
            (best, from) = (silent, None);
        }
        for proposal in [equal(0.0, 1.0), equal(1.0, 0.5)].into_iter().chain(proposals) {
            let next = self.completed(physics, &proposal);
            if next.reward > best.reward {
                (best, from) = (next, Some(proposal));
            }
        }
        let mut aimed = 0.0;
        if let Some(proposal) = from {
            let (refined, worth) = self.refined(physics, proposal, best);
            (best, aimed) = (worth, refined.deviations());
        }
        // Who offloads nothing needs no power, and without it the others may offload more.
        if best.decisions[..count].iter().any(|d| d.alpha == 0.0 && d.power_w > 0.0) {
            let mut power_w = [0.0; MAX_USERS];
            for (power, decision) in power_w.iter_mut().zip(&best.decisions) {
                *power = if decision.alpha > 0.0 { decision.power_w } else { 0.0 };
            }
            let users = self.belief.with_margin(aimed);
            let pruned = self.weighed(physics, &users[..count], &power_w[..count]);
            if pruned.reward > best.reward {
                best = pruned;
            }
        }
        for (out, decision) in out.iter_mut().zip(best.decisions) {
            let power_w = if decision.alpha > 0.0 { decision.power_w } else { 0.0 };
            *out = UserDecision { power_w, ..decision }.clamped(physics.p_max_w);
        }
        best.reward
    }
}
