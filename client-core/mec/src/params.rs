//! Every constant of the system with its default, and the linear units derived from them.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

use super::settings::SettingError;

/// The most users that one cell may hold; fixed so that the inner loops need no allocation.
pub const MAX_USERS: usize = 32;

/// How the server's `F` cycles per second are shared among the users who offload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerShare {
    /// As (22) is written: everybody gets all of `F`.
    #[default]
    Full,
    /// `F / K` each, whoever offloads.
    Equal,
    /// In proportion to the offloaded work `α·X`: all finish at the same time. This is the reading under which the
    /// paper's "heavier server load" has a meaning.
    Load,
}

impl ServerShare {
    /// All choices, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::Full, Self::Equal, Self::Load];

    /// The name used in URLs, files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Equal => "equal",
            Self::Load => "load",
        }
    }
}

impl FromStr for ServerShare {
    type Err = SettingError;

    fn from_str(s: &str) -> Result<Self, SettingError> {
        let found = Self::ALL.into_iter().find(|c| c.name() == s);
        found.ok_or_else(|| SettingError::Choice {
            key: "server_share",
            given: s.to_owned(),
            allowed: "full, equal, load",
        })
    }
}

/// What the state does between slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// The paper's system. Actions never move the state, so the best myopic decision is the best decision.
    #[default]
    Paper,
    /// No memory at all: fading, sizes, difficulty and positions are drawn anew in every slot.
    Iid,
    /// Sizes and channel gains are seen one slot late.
    Delayed,
    /// Cycles that the server did not finish within the slot delay the next slot's offloaded work.
    Backlog,
    /// Users walk (random waypoint), and the path loss moves with them.
    Mobile,
}

impl Variant {
    /// All variants, in the order in which they are offered.
    pub const ALL: [Self; 5] = [Self::Paper, Self::Iid, Self::Delayed, Self::Backlog, Self::Mobile];

    /// The name used in URLs, files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::Iid => "iid",
            Self::Delayed => "delayed",
            Self::Backlog => "backlog",
            Self::Mobile => "mobile",
        }
    }
}

impl FromStr for Variant {
    type Err = SettingError;

    fn from_str(s: &str) -> Result<Self, SettingError> {
        let found = Self::ALL.into_iter().find(|c| c.name() == s);
        let allowed = "paper, iid, delayed, backlog, mobile";
        found.ok_or_else(|| SettingError::Choice { key: "variant", given: s.to_owned(), allowed })
    }
}

/// All constants of the system. Ranges, help and the reason of each default are in [`super::settings::SETTINGS`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MecParams {
    /// Number of users K.
    pub users: usize,
    /// Radius of the disc in which users are placed.
    pub radius_m: f64,
    /// Antenna height h_MEC of (16).
    pub antenna_height_m: f64,
    /// Distances below this count as this, so that path loss stays finite.
    pub min_distance_m: f64,
    /// Channel gain g_0 at 1 m, in dB.
    pub g0_db: f64,
    /// Largest transmit power, in dBm.
    pub p_max_dbm: f64,
    /// Noise power at the receiver over the whole band, in dBm.
    pub noise_dbm: f64,
    /// Rician factor κ of (18), linear.
    pub rician_kappa: f64,
    /// Uplink bandwidth B of (19), shared by all users.
    pub bandwidth_hz: f64,
    /// Correlation of the scattered path from one slot to the next.
    pub fading_rho: f64,
    /// No rate is lower than this.
    pub rate_floor_bps: f64,
    /// Smallest task size.
    pub size_min_mbit: f64,
    /// Largest task size.
    pub size_max_mbit: f64,
    /// Number of sizes, evenly spaced from smallest to largest.
    pub size_levels: usize,
    /// Probability that a user's next task has the size of this one.
    pub size_stay: f64,
    /// Cycles per second of a device, f_k of (14).
    pub device_hz: f64,
    /// Cycles per second of the server, F of (22).
    pub server_hz: f64,
    /// Cycles per bit φ, on device and server alike.
    pub cycles_per_bit: f64,
    /// Energy coefficient κ_comp of (15).
    pub kappa_comp: f64,
    /// How the server is shared.
    pub server_share: ServerShare,
    /// Energy budget of a user and slot, (30d).
    pub e_max_j: f64,
    /// Lowest accuracy A_min, (30e).
    pub a_min: f64,
    /// Highest hallucination rate H_max, (30f).
    pub h_max: f64,
    /// Weight ω of the penalty in (47).
    pub omega: f64,
    /// Correlation of a user's difficulty from one slot to the next.
    pub difficulty_rho: f64,
    /// Difficulty is held within ± this.
    pub difficulty_clip: f64,
    /// Accuracy on the device at difficulty 0.
    pub accuracy_local: f64,
    /// What one unit of difficulty adds to it.
    pub accuracy_local_slope: f64,
    /// Hallucination rate on the device at difficulty 0.
    pub hallucination_local: f64,
    /// What one unit of difficulty adds to it.
    pub hallucination_local_slope: f64,
    /// Accuracy on the server at difficulty 0.
    pub accuracy_server: f64,
    /// What one unit of difficulty adds to it.
    pub accuracy_server_slope: f64,
    /// Hallucination rate on the server at difficulty 0.
    pub hallucination_server: f64,
    /// What one unit of difficulty adds to it.
    pub hallucination_server_slope: f64,
    /// Slots in an episode, T.
    pub horizon: usize,
    /// Length of a slot τ.
    pub slot_s: f64,
    /// Walking speed in [`Variant::Mobile`].
    pub speed_m_s: f64,
    /// What the state does between slots.
    pub variant: Variant,
}

impl MecParams {
    /// The paper's values, and ours where the paper gives none.
    pub const DEFAULT: Self = Self {
        users: 2,
        radius_m: 20.0,
        antenna_height_m: 10.0,
        min_distance_m: 1.0,
        g0_db: -30.0,
        p_max_dbm: 33.0,
        noise_dbm: -104.0,
        rician_kappa: 8.0,
        bandwidth_hz: 10e6,
        fading_rho: 0.9037,
        rate_floor_bps: 1000.0,
        size_min_mbit: 1.0,
        size_max_mbit: 2.5,
        size_levels: 4,
        size_stay: 0.7,
        device_hz: 2e9,
        server_hz: 10e9,
        cycles_per_bit: 900.0,
        kappa_comp: 1e-28,
        server_share: ServerShare::Full,
        e_max_j: 2.0,
        a_min: 0.6,
        h_max: 0.78,
        omega: 10.0,
        difficulty_rho: 0.9,
        difficulty_clip: 3.0,
        accuracy_local: 0.5576,
        accuracy_local_slope: -0.08,
        hallucination_local: 0.83,
        hallucination_local_slope: 0.06,
        accuracy_server: 0.6815,
        accuracy_server_slope: -0.02,
        hallucination_server: 0.6867,
        hallucination_server_slope: 0.02,
        horizon: 200,
        slot_s: 1.0,
        speed_m_s: 1.4,
        variant: Variant::Paper,
    };

    /// The defaults with K users.
    pub fn with_users(users: usize) -> Self {
        Self { users, ..Self::DEFAULT }
    }

    /// The same with every task of one size.
    pub fn with_fixed_size(self, size_mbit: f64) -> Self {
        Self { size_min_mbit: size_mbit, size_max_mbit: size_mbit, size_levels: 1, ..self }
    }

    /// The same in another variant. [`Variant::Backlog`] also shortens the slot to 0.15 s: with a slot of 1 s the server
    /// always finishes and nothing would carry over.
    pub fn with_variant(self, variant: Variant) -> Self {
        let slot_s = if variant == Variant::Backlog { 0.15 } else { self.slot_s };
        Self { variant, slot_s, ..self }
    }

    /// The values in linear units, computed once.
    pub fn physics(&self) -> Physics {
        let p_max_w = dbm_to_w(self.p_max_dbm);
        let server_hz_each = match self.server_share {
            ServerShare::Equal => self.server_hz / self.users.max(1) as f64,
            ServerShare::Full | ServerShare::Load => self.server_hz,
        };
        let kappa = self.rician_kappa;
        Physics {
            line_of_sight: (kappa / (kappa + 1.0)).sqrt(),
            scattered: (1.0 / (kappa + 1.0)).sqrt(),
            params: *self,
            g0: db_to_ratio(self.g0_db),
            p_max_w,
            noise_w: dbm_to_w(self.noise_dbm),
            server_hz_each,
        }
    }
}

impl Default for MecParams {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// [`MecParams`] with decibels turned into linear units; what the equations work on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Physics {
    /// The values that these were derived from.
    pub params: MecParams,
    /// Channel gain at 1 m, linear.
    pub g0: f64,
    /// Amplitude √(κ/(κ+1)) of the direct path in (18).
    pub line_of_sight: f64,
    /// Amplitude √(1/(κ+1)) of the scattered paths in (18).
    pub scattered: f64,
    /// Largest transmit power.
    pub p_max_w: f64,
    /// Noise power.
    pub noise_w: f64,
    /// The server's cycles per second that a user sees, before [`ServerShare::Load`] divides by the load.
    pub server_hz_each: f64,
}

/// dB to a linear ratio.
pub fn db_to_ratio(db: f64) -> f64 {
    10f64.powf(db / 10.0)
}

/// A linear ratio to dB.
pub fn ratio_to_db(ratio: f64) -> f64 {
    10.0 * ratio.log10()
}

/// dBm to watts.
pub fn dbm_to_w(dbm: f64) -> f64 {
    10f64.powf((dbm - 30.0) / 10.0)
}
