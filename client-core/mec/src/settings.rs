//! Each numeric setting of the system, declared once. Sliders, URL parameters, command-line flags and the documentation
//! are made from [`SETTINGS`]; [`MecParams::get`] and [`MecParams::set`] reach the fields through it.

use thiserror::Error;

use super::params::MecParams;

/// Where a setting is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Radio and geometry.
    Channel,
    /// Task sizes and the episode.
    Task,
    /// Accuracy, hallucination and the reward.
    Quality,
    /// Processors and energy.
    Compute,
}

/// How a slider should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Evenly in the logarithm.
    Log,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Field of [`MecParams`], and the key in files and flags.
    pub key: &'static str,
    /// Short name for a label.
    pub label: &'static str,
    /// What it does, one sentence.
    pub help: &'static str,
    /// Why the default is what it is.
    pub reason: &'static str,
    /// Unit, empty for a plain number.
    pub unit: &'static str,
    /// Least allowed value.
    pub min: f64,
    /// Greatest allowed value.
    pub max: f64,
    /// Default.
    pub default: f64,
    /// Step of a slider (of a linear one; a logarithmic one divides its range evenly).
    pub step: f64,
    /// How a slider moves.
    pub scale: Scale,
    /// Name in the URL's query.
    pub url: &'static str,
    /// Where it is shown.
    pub group: Group,
    read: fn(&MecParams) -> f64,
    write: fn(&mut MecParams, f64),
}

impl Setting {
    /// Whether only whole numbers make sense.
    pub fn is_integer(&self) -> bool {
        self.step >= 1.0 && self.step.fract() == 0.0 && matches!(self.key, "users" | "horizon" | "size_levels")
    }
}

/// Why a setting was refused.
#[derive(Debug, Error, PartialEq)]
pub enum SettingError {
    /// No setting of that name.
    #[error("there is no setting called `{0}`")]
    Unknown(String),
    /// Out of range, or not a number.
    #[error("{label} ({key}) must lie between {min} and {max} {unit}, but is {given}")]
    Range {
        /// Key of the setting.
        key: &'static str,
        /// Label of the setting.
        label: &'static str,
        /// Least allowed value.
        min: f64,
        /// Greatest allowed value.
        max: f64,
        /// Unit.
        unit: &'static str,
        /// What was given.
        given: f64,
    },
    /// A whole number is needed.
    #[error("{key} must be a whole number, but is {given}")]
    Whole {
        /// Key of the setting.
        key: &'static str,
        /// What was given.
        given: f64,
    },
    /// Not one of the choices.
    #[error("{key} must be one of {allowed}, but is `{given}`")]
    Choice {
        /// Key of the setting.
        key: &'static str,
        /// What was given.
        given: String,
        /// The choices.
        allowed: &'static str,
    },
    /// The smallest size is over the largest.
    #[error("the smallest task ({min} Mbit) is larger than the largest ({max} Mbit)")]
    Sizes {
        /// Smallest size.
        min: f64,
        /// Largest size.
        max: f64,
    },
}

/// Declares the table; every row names a field of [`MecParams`], whose default it takes.
macro_rules! settings {
    ($( $group:ident $key:ident as $ty:ty, $url:literal, $label:literal, $unit:literal,
        $min:literal ..= $max:literal, $step:literal, $scale:ident, $help:literal, $reason:literal; )*) => {
        /// Every numeric setting.
        pub static SETTINGS: &[Setting] = &[$( Setting {
            key: stringify!($key), label: $label, help: $help, reason: $reason, unit: $unit, min: $min, max: $max,
            default: MecParams::DEFAULT.$key as f64, step: $step, scale: Scale::$scale, url: $url, group: Group::$group,
            read: |p| p.$key as f64, write: |p, v| p.$key = v as $ty,
        } ),*];
    };
}

settings! {
    Channel users as usize, "k", "Users", "", 1.0..=32.0, 1.0, Linear, "How many devices share the uplink and the server.", "The paper's K.";
    Channel radius_m as f64, "r", "Cell radius", "m", 1.0..=500.0, 1.0, Linear, "Devices are placed uniformly in a disc of this radius.", "The paper's.";
    Channel antenna_height_m as f64, "hm", "Antenna height", "m", 0.0..=100.0, 0.5, Linear, "Height of the server's antenna over the devices.", "Open in the paper; 10 m is a small cell's mast, and keeps the gain finite under it.";
    Channel min_distance_m as f64, "dmin", "Least distance", "m", 0.1..=10.0, 0.1, Linear, "Closer than this counts as this.", "The reference gain is for 1 m; the model means nothing closer.";
    Channel g0_db as f64, "g0", "Gain at 1 m", "dB", -80.0..=0.0, 1.0, Linear, "Reference channel gain.", "The paper's.";
    Channel p_max_dbm as f64, "pmax", "Largest power", "dBm", 0.0..=40.0, 0.5, Linear, "Limit of every device's transmit power.", "The paper's (2 W).";
    Channel noise_dbm as f64, "n", "Noise", "dBm", -140.0..=-20.0, 1.0, Linear, "Noise power over the band at the receiver.", "The paper's: thermal noise of 10 MHz.";
    Channel rician_kappa as f64, "kr", "Rician factor", "", 0.0..=100.0, 0.5, Linear, "Power of the direct path over the scattered paths.", "The paper's.";
    Channel bandwidth_hz as f64, "b", "Bandwidth", "Hz", 1e5..=1e8, 1e5, Log, "Uplink bandwidth that all devices share at once.", "The paper's.";
    Channel fading_rho as f64, "rho", "Fading correlation", "", 0.0..=1.0, 0.01, Linear, "How much of the scattered path survives to the next slot.", "Open in the paper; J0(0.2 pi), a Doppler shift of a tenth of the slot rate.";
    Channel rate_floor_bps as f64, "rmin", "Rate floor", "bit/s", 1.0..=1e6, 1.0, Log, "No rate is lower, so that offloading at no power has a finite cost.", "Open in the paper; low enough never to pay, high enough to keep the reward finite.";
    Channel speed_m_s as f64, "v", "Walking speed", "m/s", 0.0..=30.0, 0.1, Linear, "Speed of the devices in the mobile variant.", "A pedestrian.";
    Task size_min_mbit as f64, "xmin", "Smallest task", "Mbit", 0.01..=20.0, 0.05, Linear, "Smallest input of a task.", "The paper's range starts here.";
    Task size_max_mbit as f64, "xmax", "Largest task", "Mbit", 0.01..=20.0, 0.05, Linear, "Largest input of a task.", "The paper's range ends here.";
    Task size_levels as usize, "xn", "Task sizes", "", 1.0..=16.0, 1.0, Linear, "Number of sizes from smallest to largest.", "The paper's figures step by 0.5 Mbit.";
    Task size_stay as f64, "xs", "Size persistence", "", 0.0..=1.0, 0.05, Linear, "Chance that the next task has the size of this one.", "Open in the paper; about three slots of the same size in a row.";
    Task horizon as usize, "t", "Episode", "slots", 1.0..=10000.0, 10.0, Linear, "Slots in an episode.", "Open in the paper; a time limit, not an end: learners bootstrap there.";
    Task slot_s as f64, "ts", "Slot", "s", 0.01..=60.0, 0.01, Log, "Length of a slot.", "Open in the paper; longer than nearly every latency.";
    Quality a_min as f64, "amin", "Least accuracy", "", 0.0..=1.0, 0.01, Linear, "Accuracy that the answer must reach.", "The paper's.";
    Quality h_max as f64, "hmax", "Most hallucination", "", 0.0..=1.0, 0.01, Linear, "Hallucination rate that the answer may have.", "The paper's.";
    Quality omega as f64, "w", "Penalty weight", "", 0.0..=100.0, 0.5, Linear, "Seconds of latency that one unit of violation counts for.", "Open in the paper; avoiding a violation pays from about 1.5 to 8 on.";
    Quality difficulty_rho as f64, "urho", "Difficulty correlation", "", 0.0..=1.0, 0.01, Linear, "How much of a user's difficulty survives to the next slot.", "Open in the paper; slow enough for the last slot to tell something of this one.";
    Quality difficulty_clip as f64, "uc", "Difficulty limit", "", 0.0..=5.0, 0.1, Linear, "Difficulty stays within plus and minus this.", "Three standard deviations.";
    Quality accuracy_local as f64, "al", "Accuracy, device", "", 0.0..=1.0, 0.01, Linear, "Accuracy of the compact model.", "Table I: mean of the compact models over three backbones.";
    Quality accuracy_local_slope as f64, "als", "… by difficulty", "", -0.5..=0.5, 0.01, Linear, "What a unit of difficulty adds to it.", "The compact model suffers most from hard questions.";
    Quality hallucination_local as f64, "hl", "Hallucination, device", "", 0.0..=1.0, 0.01, Linear, "Hallucination rate of the compact model.", "Table I: mean of the compact models over three backbones.";
    Quality hallucination_local_slope as f64, "hls", "… by difficulty", "", -0.5..=0.5, 0.01, Linear, "What a unit of difficulty adds to it.", "The compact model suffers most from hard questions.";
    Quality accuracy_server as f64, "as", "Accuracy, server", "", 0.0..=1.0, 0.01, Linear, "Accuracy of the full model.", "Table I: mean of the originals over three backbones.";
    Quality accuracy_server_slope as f64, "ass", "… by difficulty", "", -0.5..=0.5, 0.01, Linear, "What a unit of difficulty adds to it.", "The full model hardly notices.";
    Quality hallucination_server as f64, "hs", "Hallucination, server", "", 0.0..=1.0, 0.01, Linear, "Hallucination rate of the full model.", "Table I: mean of the originals over three backbones.";
    Quality hallucination_server_slope as f64, "hss", "… by difficulty", "", -0.5..=0.5, 0.01, Linear, "What a unit of difficulty adds to it.", "The full model hardly notices.";
    Compute device_hz as f64, "f", "Device clock", "Hz", 1e8..=2e10, 1e8, Log, "Cycles a second of a device.", "The paper's.";
    Compute server_hz as f64, "F", "Server clock", "Hz", 1e9..=1e12, 1e9, Log, "Cycles a second of the server.", "The paper's.";
    Compute cycles_per_bit as f64, "phi", "Work", "cycles/bit", 1.0..=10000.0, 10.0, Log, "Cycles for a bit of input, on device and server.", "The paper's.";
    Compute kappa_comp as f64, "kc", "Energy coefficient", "", 1e-30..=1e-25, 1e-29, Log, "Energy of a device's cycle over its clock squared.", "The paper's.";
    Compute e_max_j as f64, "emax", "Energy budget", "J", 0.01..=100.0, 0.01, Log, "Energy that a device may spend in a slot.", "The paper's.";
}

/// The setting of that key.
///
/// # Errors
/// [`SettingError::Unknown`].
pub fn find(key: &str) -> Result<&'static Setting, SettingError> {
    SETTINGS.iter().find(|s| s.key == key).ok_or_else(|| SettingError::Unknown(key.to_owned()))
}

fn check(setting: &Setting, value: f64) -> Result<(), SettingError> {
    // Written so that a NaN is refused too.
    if !(value >= setting.min && value <= setting.max) {
        let Setting { key, label, min, max, unit, .. } = *setting;
        return Err(SettingError::Range { key, label, min, max, unit, given: value });
    }
    if setting.is_integer() && value.fract() != 0.0 {
        return Err(SettingError::Whole { key: setting.key, given: value });
    }
    Ok(())
}

impl MecParams {
    /// The value of a setting.
    ///
    /// # Errors
    /// [`SettingError::Unknown`].
    pub fn get(&self, key: &str) -> Result<f64, SettingError> {
        Ok((find(key)?.read)(self))
    }

    /// Changes a setting; nothing is changed when it is refused. A smallest size over the largest moves the largest along
    /// (and the other way round), as two sliders should.
    ///
    /// # Errors
    /// Unknown key, out of range, not a number, or not whole where it has to be.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), SettingError> {
        let setting = find(key)?;
        check(setting, value)?;
        (setting.write)(self, value);
        match key {
            "size_min_mbit" => self.size_max_mbit = self.size_max_mbit.max(value),
            "size_max_mbit" => self.size_min_mbit = self.size_min_mbit.min(value),
            _ => {}
        }
        Ok(())
    }

    /// Checks every setting, for values that came from a file.
    ///
    /// # Errors
    /// The first setting that is out of range.
    pub fn validate(&self) -> Result<(), SettingError> {
        for setting in SETTINGS {
            check(setting, (setting.read)(self))?;
        }
        if self.size_min_mbit > self.size_max_mbit {
            return Err(SettingError::Sizes { min: self.size_min_mbit, max: self.size_max_mbit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_range_and_names_are_unique() {
        MecParams::DEFAULT.validate().expect("defaults");
        assert_eq!(find("users").expect("a setting").max, crate::MAX_USERS as f64, "a literal there");
        for (i, a) in SETTINGS.iter().enumerate() {
            assert!(!a.reason.is_empty() && !a.help.is_empty());
            for b in &SETTINGS[i + 1..] {
                assert_ne!(a.key, b.key);
                assert_ne!(a.url, b.url, "{} and {}", a.key, b.key);
            }
        }
    }

    #[test]
    fn set_reaches_the_field_that_get_reads_and_no_other() {
        for setting in SETTINGS {
            for value in [setting.min, setting.max] {
                let mut params = MecParams::DEFAULT;
                params.set(setting.key, value).expect(setting.key);
                assert_eq!(params.get(setting.key), Ok(value), "{}", setting.key);
                let moved = SETTINGS.iter().filter(|s| params.get(s.key) != Ok(s.default)).count();
                let sizes = usize::from(setting.group == Group::Task);
                assert!(moved <= 1 + sizes, "{} moved {moved} settings", setting.key);
            }
        }
    }

    #[test]
    fn bad_values_are_refused_and_change_nothing() {
        let cases = [("users", 0.0), ("users", 2.5), ("omega", f64::NAN), ("bandwidth_hz", -1.0), ("nonsense", 1.0)];
        for (key, value) in cases {
            let mut params = MecParams::DEFAULT;
            assert!(params.set(key, value).is_err(), "{key} = {value}");
            assert_eq!(params, MecParams::DEFAULT);
        }
    }
}
