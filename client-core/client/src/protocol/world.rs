//! The simulated cell as page and worker speak of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who decides α and p.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decider {
    /// The trained policy.
    #[default]
    Policy,
    /// The per-slot optimum with full knowledge.
    Oracle,
    /// Equal received power, balanced latency, then the quality that is missing.
    ClosedForm,
    /// α = 0.
    AlwaysLocal,
    /// α = 1 at the highest power.
    AlwaysOffload,
    /// Uniform α and p from the seed.
    Random,
    /// The page's own α and p, the same for every device.
    Manual,
}

/// Which quality table eq. 28 mixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QosSource {
    /// Means of the paper's Table I.
    #[default]
    Paper,
    /// What `tandem eval` measured of the models that ship.
    Shipped,
}

/// Everything that the page can set about the world; also what a shared URL holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorldSettings {
    /// Number of devices K, 1 to 10; device 0 is the one that runs this page.
    pub users: usize,
    /// Seed of positions, fading, tasks and difficulty.
    pub seed: u64,
    /// Task size X of every device in Mbit; `None`: the simulator's mixed sizes.
    pub size_mbit: Option<f64>,
    /// Simulator settings by the key of `mec::settings`; a missing key means its default.
    pub values: BTreeMap<String, f64>,
    /// Horizontal positions in metres set by hand (dragged devices), by device.
    pub positions: BTreeMap<usize, [f64; 2]>,
    /// Who decides.
    pub decider: Decider,
    /// α for [`Decider::Manual`], 0..=1.
    pub manual_alpha: f64,
    /// Share of the highest power for [`Decider::Manual`], 0..=1.
    pub manual_power: f64,
    /// Which quality table.
    pub qos: QosSource,
    /// What `size_mbit` stands for in a world that was calibrated to the machines at hand; `None` in the paper's world, where a
    /// task has the size that it has.
    pub calibrated: Option<CalibratedTask>,
}

/// A burst as a task: one that expects more tokens of answers is larger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibratedTask {
    /// Tokens of its answers.
    pub tokens: f64,
    /// Tokens in whose time all is done that takes as long however many there are.
    pub fixed_tokens: f64,
}

impl CalibratedTask {
    /// Work of a burst with so many tokens of answers, in tokens.
    #[must_use]
    pub fn whole(&self, tokens: f64) -> f64 {
        tokens + self.fixed_tokens
    }
}

/// What was measured of device and server, answering a burst together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Tokens that the answers to the burst are expected to have, in all.
    pub tokens: f64,
    /// Tokens in whose time all is done that takes as long however many there are.
    pub fixed_tokens: f64,
    /// Time of a token of the device's, with all that it costs there.
    pub device_s_per_token: f64,
    /// Time of a token of the server's, with all that it costs there.
    pub server_s_per_token: f64,
    /// The device's decode rate; `None` where nobody could tell.
    pub device_tokens_per_s: Option<f64>,
    /// The server's decode rate, by its own clock; `None` where it does not tell.
    pub server_tokens_per_s: Option<f64>,
    /// Bits that go up for the burst.
    pub request_bits: f64,
    /// Round trip to the server; `None` where nobody looked.
    pub round_trip_s: Option<f64>,
}

/// One device in the present slot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Position in metres, the server at the origin.
    pub x_m: f64,
    /// Position in metres.
    pub y_m: f64,
    /// Distance to the antenna, eq. 16.
    pub distance_m: f64,
    /// Channel gain h, eq. 17, in dB.
    pub gain_db: f64,
    /// Fading |h̃|², eq. 18, in dB.
    pub fading_db: f64,
    /// Task size X.
    pub size_bits: f64,
    /// Effect of the chosen action on this device.
    pub outcome: DeviceOutcome,
}

/// What one action costs and gives one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceOutcome {
    /// Offloading ratio α, 0..=1.
    pub alpha: f64,
    /// Transmit power.
    pub power_w: f64,
    /// Uplink rate, eq. 19.
    pub rate_bps: f64,
    /// Eq. 14.
    pub local_s: f64,
    /// Eq. 20.
    pub uplink_s: f64,
    /// Eq. 22.
    pub server_s: f64,
    /// Eq. 29.
    pub latency_s: f64,
    /// Eq. 15.
    pub local_j: f64,
    /// Eq. 21.
    pub uplink_j: f64,
    /// Effective accuracy, eq. 28.
    pub accuracy: f64,
    /// Effective hallucination, eq. 28.
    pub hallucination: f64,
}

/// One way to decide, on the present slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Who decided.
    pub decider: Decider,
    /// Outcome of device 0.
    pub own: DeviceOutcome,
    /// Mean latency over the devices.
    pub mean_latency_s: f64,
    /// Total energy over the devices.
    pub energy_j: f64,
    /// Penalty Ω, eq. 48.
    pub penalty: f64,
    /// Reward, eq. 47.
    pub reward: f64,
}

/// Which code computed the policy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyBackend {
    /// burn flex, on the CPU.
    Flex,
    /// burn-wgpu, on WebGPU.
    BurnWgpu,
}

/// The policy's last decision, for the page's small print.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// Who computed it.
    pub backend: PolicyBackend,
    /// How long it took.
    pub millis: f64,
    /// Id of the policy in the manifest.
    pub policy: String,
}

/// The present slot, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorldView {
    /// Slot number from 0.
    pub slot: u64,
    /// Seed that the world runs on.
    pub seed: u64,
    /// Devices; 0 is this page.
    pub devices: Vec<DeviceView>,
    /// Who decided what `devices` shows.
    pub decider: Decider,
    /// Set when the policy decided.
    pub decision: Option<DecisionView>,
    /// Every way to decide on this same slot, side by side.
    pub comparisons: Vec<Comparison>,
    /// Lowest effective accuracy that the slot may have.
    pub accuracy_min: f64,
    /// Highest effective hallucination that the slot may have.
    pub hallucination_max: f64,
    /// Energy limit of a slot.
    pub energy_max_j: f64,
    /// Highest transmit power.
    pub power_max_w: f64,
}
