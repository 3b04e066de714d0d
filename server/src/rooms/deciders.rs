//! Who decides α and p of a cell.

use std::sync::{LazyLock, Mutex, PoisonError};

use burn::tensor::Device;
use client::protocol::rooms::settings::MOST_CELL_MEMBERS;
use client::protocol::world::Decider;
use mec::oracle::{self, OracleEffort, powers_from_offsets};
use mec::params::{MAX_USERS, Physics};
use mec::{QosKnowledge, StaticPolicy, UserDecision, UserObservation, UserSlot};
use policy::Policy;
use rand::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::RoomsError;

/// Half of the cores, on which all rooms together search the optimum: 50 full cells take seconds a slot, and what else is
/// asked of the server goes on meanwhile, as do the slots of rooms that search nothing.
static SEARCHING: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = ThreadPoolBuilder::new().num_threads((cores / 2).max(1)).thread_name(|n| format!("search-{n}"));
    threads.build().inspect_err(|error| tracing::warn!(%error, "the optimum has no threads of its own")).ok()
});

/// A cell's slot, as those see it who decide.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The parameters, with the cell's number of users.
    pub physics: &'a Physics,
    /// Channel, size and quality of each.
    pub users: &'a [UserSlot],
    /// What a policy may see of each, eq. 46.
    pub seen: &'a [UserObservation],
    /// Seed of what is random about the decision.
    pub seed: u64,
    /// The decision by hand: α, and the share of the highest power.
    pub manual: (f64, f64),
}

/// All that can decide.
#[derive(Debug, Default)]
pub struct Deciders {
    policy: Option<Mutex<Policy>>,
}

impl Deciders {
    /// With this policy file, for any number of devices.
    ///
    /// # Errors
    /// The file is damaged, or of a policy that does not decide for every number of a cell's members.
    pub fn with_policy(bytes: &[u8]) -> Result<Self, RoomsError> {
        let policy = Policy::load(bytes, &Device::flex())?;
        let users = policy.users();
        for present in [1, MOST_CELL_MEMBERS] {
            if !users.contains(&present) {
                return Err(policy::PolicyError::Users { trained: *users.end(), present }.into());
            }
        }
        Ok(Self { policy: Some(Mutex::new(policy)) })
    }

    /// Who decides when this one is asked for: without a policy the closed form stands in.
    #[must_use]
    pub fn present(&self, wanted: Decider) -> Decider {
        if wanted == Decider::Policy && self.policy.is_none() { Decider::ClosedForm } else { wanted }
    }

    /// Runs what decides several cells where such a decider computes.
    pub fn with_threads<T: Send>(decider: Decider, work: impl FnOnce() -> T + Send) -> T {
        if decider == Decider::Oracle
            && let Some(threads) = &*SEARCHING
        {
            threads.install(work)
        } else {
            work()
        }
    }

    /// α and p of each user.
    pub fn decide(&self, decider: Decider, question: &Question<'_>) -> Vec<UserDecision> {
        let Question { physics, users, seen, seed, manual } = *question;
        let fixed = match (decider, &self.policy) {
            (Decider::Policy, Some(policy)) => {
                let policy = policy.lock().unwrap_or_else(PoisonError::into_inner);
                match futures::executor::block_on(policy.decide(physics, seen)) {
                    Ok(decisions) => return decisions,
                    Err(error) => tracing::warn!(%error, users = users.len(), "the policy does not decide"),
                }
                StaticPolicy::ClosedForm(QosKnowledge::Mean)
            }
            (Decider::Oracle, _) => return oracle::optimum(physics, users, 0.0, OracleEffort::Usual).decisions,
            (Decider::Manual, _) => {
                let by_hand = UserDecision { alpha: manual.0, power_w: manual.1 * physics.p_max_w };
                return vec![by_hand.clamped(physics.p_max_w); users.len()];
            }
            (Decider::AlwaysLocal, _) => StaticPolicy::AlwaysLocal,
            (Decider::AlwaysOffload, _) => StaticPolicy::AlwaysOffload,
            (Decider::Random, _) => StaticPolicy::Random,
            (Decider::ClosedForm, _) | (Decider::Policy, None) => StaticPolicy::ClosedForm(QosKnowledge::Mean),
        };
        let mut decisions = vec![UserDecision::default(); users.len()];
        fixed.decide(physics, users, &mut Xoshiro256PlusPlus::seed_from_u64(seed), &mut decisions);
        decisions
    }
}

/// What a device without a model has to do: all goes to the server, with at least the power at which all are received
/// equally (at less the rate would be next to nothing).
pub fn send_all(physics: &Physics, users: &[UserSlot], which: &[bool], decisions: &mut [UserDecision]) {
    let mut equal_w = [0.0; MAX_USERS];
    let count = users.len().min(MAX_USERS);
    powers_from_offsets(physics, users.iter().map(|user| user.gain), &[0.0; MAX_USERS][..count], &mut equal_w[..count]);
    for ((decision, has_no_model), equal_w) in decisions.iter_mut().zip(which).zip(equal_w) {
        if *has_no_model {
            *decision = UserDecision { alpha: 1.0, power_w: decision.power_w.max(equal_w) };
        }
    }
}

#[cfg(test)]
mod tests {
    use mec::{MecParams, World};

    use super::*;

    fn policy() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../public/policies/set.safetensors")).unwrap()
    }

    #[test]
    fn every_way_decides_for_every_size_and_the_optimum_is_best() {
        let deciders = Deciders::with_policy(&policy()).unwrap();
        for users in [1, 4, MOST_CELL_MEMBERS] {
            let world = World::new(MecParams::with_users(users), 3);
            let seen = world.observation();
            let question =
                Question { physics: world.physics(), users: world.slots(), seen: &seen, seed: 1, manual: (0.25, 0.5) };
            let reward = |decider| {
                let decisions = deciders.decide(decider, &question);
                assert_eq!(decisions.len(), users);
                assert_eq!(decisions, deciders.decide(decider, &question), "{decider:?} decides alike");
                world.evaluate(&decisions).0.reward
            };
            let best = reward(Decider::Oracle);
            for decider in [
                Decider::Policy,
                Decider::ClosedForm,
                Decider::AlwaysLocal,
                Decider::AlwaysOffload,
                Decider::Random,
                Decider::Manual,
            ] {
                assert!(reward(decider) <= best + 1e-9, "{decider:?} for {users}");
            }
            assert!(reward(Decider::Policy) > reward(Decider::AlwaysLocal));
        }
    }

    #[test]
    fn a_search_leaves_half_of_the_cores() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let at = |decider| {
            let name = || std::thread::current().name().is_some_and(|name| name.starts_with("search-"));
            Deciders::with_threads(decider, || (name(), rayon::current_num_threads()))
        };
        assert_eq!(at(Decider::Oracle), (true, (cores / 2).max(1)));
        assert!(!at(Decider::Policy).0);
    }

    #[test]
    fn a_policy_for_one_size_is_refused_and_without_one_the_closed_form_decides() {
        assert!(matches!(Deciders::with_policy(&crate::untrained::policy(3)), Err(RoomsError::Policy(_))));
        assert!(Deciders::with_policy(b"nonsense").is_err());
        let none = Deciders::default();
        assert_eq!(none.present(Decider::Policy), Decider::ClosedForm);
        assert_eq!(none.present(Decider::Oracle), Decider::Oracle);
        assert_eq!(Deciders::with_policy(&policy()).unwrap().present(Decider::Policy), Decider::Policy);
    }

    #[test]
    fn a_device_without_a_model_sends_all() {
        let world = World::new(MecParams::with_users(3), 3);
        let mut decisions = vec![UserDecision::default(); 3];
        send_all(world.physics(), world.slots(), &[false, true, false], &mut decisions);
        assert_eq!((decisions[0], decisions[2]), (UserDecision::default(), UserDecision::default()));
        assert!(decisions[1].alpha == 1.0 && decisions[1].power_w > 0.0);
        let (_, outcomes) = world.evaluate(&decisions);
        assert!(outcomes[1].latency_s < 2.0, "{:?}", outcomes[1]);
    }
}
