//! The mobile-edge-computing system of the paper (sections IV, V-D and VI-A): radio channel, tasks, quality of service,
//! cost and reward, as a seeded simulator that page, server and trainer share.
//!
//! | module | what it holds | equations |
//! | --- | --- | --- |
//! | [`params`] | every constant with its default, derived linear units | section VI-A |
//! | [`draw`] | settings at random, anywhere in their ranges | |
//! | [`settings`] | each setting declared once: key, range, unit, help, reason | |
//! | [`channel`] | path loss, Rician fading, its Gauss-Markov evolution | (16)–(18) |
//! | [`task`] | the chain of task sizes | section IV |
//! | [`qos`] | accuracy and hallucination of a slot from a difficulty process | (28) |
//! | [`cost`] | rate, latency, energy, penalty, reward | (14)–(15), (19)–(22), (29), (47)–(48) |
//! | [`slot`] | one slot as a pure function, without allocation | all of the above |
//! | [`batch`] | many slots at once in `f32`, vectorised | the same |
//! | [`world`] | K users through time: what the page drives by hand | (45)–(46) |
//! | [`block`] | several cells stepped together, as a structure of arrays | all of the above |
//! | [`env`](mod@env) | many cells at once, with episodes: what a learner drives | |
//! | [`alpha`] | the exact best offloading ratios for given rates and powers | (29), (47)–(48) |
//! | [`ratio_solver`] | the exact best ratios for powers chosen elsewhere | (29), (47)–(48) |
//! | [`oracle`] | the best decision of one slot by search, full knowledge | (30) |
//! | [`bound`] | a reward that no decision of a slot can pass | (30) |
//! | [`planner`] | decisions that look ahead, where today's work delays tomorrow | (30) |
//! | [`heuristics`] | always local, always offload, random, closed form | |
//! | [`constant`] | the best action that is the same always and for all | |
//!
//! Units are in the names: `_s`, `_hz`, `_w`, `_j`, `_bits`, `_bps`, `_m`. Everything is `f64` but [`batch`].
//!
//! Deliberately absent: neural networks and the normalisation they need (see the `policy` module), any clock, any global
//! random generator (every random thing takes a seed), and real language models: here their quality is two straight lines
//! in a difficulty, see [`qos`].

pub mod alpha;
pub mod batch;
pub mod block;
pub mod bound;
pub mod channel;
pub mod constant;
pub mod cost;
pub mod draw;
pub mod env;
pub mod heuristics;
pub mod oracle;
pub mod params;
pub mod planner;
pub mod qos;
pub mod ratio_solver;
mod search;
pub mod settings;
mod simplex;
pub mod slot;
pub mod task;
pub mod world;

pub use batch::{BatchDecisions, BatchSlots, BatchTotals};
pub use block::{CellBlock, StepResult};
pub use constant::{ConstantAction, ConstantPower};
pub use env::VecEnv;
pub use heuristics::{QosKnowledge, StaticPolicy};
pub use oracle::{Optimum, OracleEffort};
pub use params::{MAX_USERS, MecParams, Physics, ServerShare, Variant};
pub use planner::{Clairvoyant, Lookahead};
pub use qos::Quality;
pub use ratio_solver::RatioSolver;
pub use settings::{Group, Scale, Setting, SettingError};
pub use slot::{SlotTotals, UserDecision, UserOutcome, UserSlot, evaluate};
pub use world::{SnapshotError, UserObservation, UserView, World, WorldSnapshot};
