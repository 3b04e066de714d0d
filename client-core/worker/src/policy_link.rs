//! Messages between the engine worker and the workers that run the policy, on burn flex and on burn-wgpu. All are built from
//! one source, so they carry no version.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use mec::{MecParams, UserDecision, UserObservation};

/// Engine worker → policy worker. Each request has a number and gets one [`Reply`] with it.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Use this policy from now on.
    Load {
        /// Number of the request.
        call: u32,
        /// The policy file.
        bytes: Bytes,
    },
    /// Decide a slot.
    Decide {
        /// Number of the request.
        call: u32,
        /// The system's constants.
        params: Box<MecParams>,
        /// What the policy sees, one entry a device.
        seen: Vec<UserObservation>,
    },
}

/// Policy worker → engine worker. `policy_boot.js` says [`Reply::Up`] in its place when the module does not start.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The worker listens; comes once, before anything else.
    Up {
        /// Why it will not be able to decide; `None` when all is well.
        problem: Option<String>,
    },
    /// The policy is loaded.
    Loaded {
        /// Number of the request.
        call: u32,
        /// Fewest and most users that it decides for.
        users: [usize; 2],
    },
    /// A decision.
    Decided {
        /// Number of the request.
        call: u32,
        /// One entry a device.
        decisions: Vec<UserDecision>,
        /// How long it took in the worker.
        millis: f64,
    },
    /// A request could not be carried out.
    Failed {
        /// Number of the request.
        call: u32,
        /// Why, in words.
        problem: String,
    },
}

/// Bytes that cross the border as a `Uint8Array`, not as an array of numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.0.len())
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}
