//! The policy file: safetensors with f32 tensors `layers.N.weight` `[inputs, outputs]` and `layers.N.bias` `[outputs]`, and
//! a header in the file's metadata that says what they are for.

use std::collections::HashMap;

use burn::tensor::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use thiserror::Error;

use super::actor::{Activation, Actor, ActorConfig, Head};
use super::spaces::{ActionMap, SPACES_VERSION};
use crate::mec::params::MAX_USERS;

/// Version of the file's layout.
pub const FILE_VERSION: u32 = 1;
/// A layer wider or a stack deeper than this is no policy of ours.
const MAX_UNITS: usize = 8192;
const MAX_LAYERS: usize = 16;

/// Why a policy cannot be used.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Not a safetensors file, or a damaged one.
    #[error("the policy file cannot be read: {0}")]
    Format(String),
    /// Not our kind of safetensors file, or a header that makes no sense.
    #[error("the policy file's header: {field}: {problem}")]
    Header {
        /// Field of the metadata.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Made for another version of the code.
    #[error(
        "the policy was written as {what} version {found}, this build reads version {wanted}; train or download it again"
    )]
    Version {
        /// What has the version.
        what: &'static str,
        /// Version in the file.
        found: u32,
        /// Version of this build.
        wanted: u32,
    },
    /// A tensor has another shape or type than the header promises.
    #[error("tensor {name} should be {wanted}, but is {found}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Shape and type promised.
        wanted: String,
        /// Shape and type found.
        found: String,
    },
    /// A weight is not a number.
    #[error("tensor {0} holds a value that is not a finite number")]
    NotFinite(String),
    /// Asked to decide for another number of users.
    #[error("the policy decides for {trained} users, but there are {present}")]
    Users {
        /// Users that it was trained for.
        trained: usize,
        /// Users that are there.
        present: usize,
    },
    /// The device failed to compute.
    #[error("the policy's device failed: {0}")]
    Device(String),
}

/// What the weights are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyHeader {
    /// Sizes of the network.
    pub config: ActorConfig,
    /// Meaning of the second action.
    pub action_map: ActionMap,
    /// Algorithm that trained it, e.g. `ppo`.
    pub algo: String,
    /// Seed of the training.
    pub seed: u64,
    /// Environment steps of the training.
    pub steps: u64,
}

/// [`PolicyHeader`] as the file has it: JSON under one key of the metadata. (Several keys would come in another order in
/// every file, and equal policies should be equal files.)
#[derive(serde::Serialize, serde::Deserialize)]
struct HeaderWire {
    version: u32,
    spaces: u32,
    users: usize,
    hidden: Vec<usize>,
    activation: Activation,
    head: Head,
    action_map: ActionMap,
    algo: String,
    seed: u64,
    steps: u64,
}

/// The part that every version has, read first, so that a newer file is called newer and not broken.
#[derive(serde::Deserialize)]
struct Versions {
    version: u32,
    spaces: u32,
}

const METADATA_KEY: &str = "tandem_policy";

impl PolicyHeader {
    fn to_metadata(&self) -> Result<HashMap<String, String>, PolicyError> {
        let wire = HeaderWire {
            version: FILE_VERSION,
            spaces: SPACES_VERSION,
            users: self.config.users,
            hidden: self.config.hidden.clone(),
            activation: self.config.activation,
            head: self.config.head,
            action_map: self.action_map,
            algo: self.algo.clone(),
            seed: self.seed,
            steps: self.steps,
        };
        let json = serde_json::to_string(&wire).map_err(|e| PolicyError::Format(e.to_string()))?;
        Ok(HashMap::from([(METADATA_KEY.to_owned(), json)]))
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, PolicyError> {
        let refuse = |field: &'static str, problem: String| PolicyError::Header { field, problem };
        let json = metadata.get(METADATA_KEY).ok_or_else(|| refuse(METADATA_KEY, "is missing".to_owned()))?;
        let broken = |e: serde_json::Error| refuse(METADATA_KEY, e.to_string());
        let versions: Versions = serde_json::from_str(json).map_err(broken)?;
        for (what, found, wanted) in
            [("file", versions.version, FILE_VERSION), ("spaces", versions.spaces, SPACES_VERSION)]
        {
            if found != wanted {
                return Err(PolicyError::Version { what, found, wanted });
            }
        }
        let HeaderWire { users, hidden, activation, head, action_map, algo, seed, steps, .. } =
            serde_json::from_str(json).map_err(broken)?;
        if users == 0 || users > MAX_USERS {
            return Err(refuse("users", format!("{users} is not in 1..={MAX_USERS}")));
        }
        if hidden.len() > MAX_LAYERS || hidden.iter().any(|units| *units == 0 || *units > MAX_UNITS) {
            return Err(refuse("hidden", format!("{hidden:?} is out of range")));
        }
        Ok(Self { config: ActorConfig { users, hidden, activation, head }, action_map, algo, seed, steps })
    }
}

/// Writes a policy file.
///
/// # Errors
/// When a weight cannot be read from its device or is not finite.
pub fn to_bytes(header: &PolicyHeader, actor: &Actor) -> Result<Vec<u8>, PolicyError> {
    let mut tensors = Vec::new();
    for (i, (layer, [inputs, outputs])) in actor.layers.iter().zip(header.config.layers()).enumerate() {
        let unread = |e: burn::tensor::TensorReadError| PolicyError::Device(e.to_string());
        let weight = layer.weight.val().try_into_vec_as::<f32>().map_err(unread)?;
        tensors.push((format!("layers.{i}.weight"), vec![inputs, outputs], weight));
        let bias = match &layer.bias {
            Some(bias) => bias.val().try_into_vec_as::<f32>().map_err(unread)?,
            None => vec![0.0; outputs],
        };
        tensors.push((format!("layers.{i}.bias"), vec![outputs], bias));
    }
    let mut raw = Vec::new();
    for (name, shape, values) in tensors {
        if values.iter().any(|v| !v.is_finite()) {
            return Err(PolicyError::NotFinite(name));
        }
        raw.push((name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()));
    }
    let broken = |e: safetensors::SafeTensorError| PolicyError::Format(e.to_string());
    let views = raw.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.clone(), view)).map_err(broken)
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    safetensors::serialize(views, Some(header.to_metadata()?)).map_err(broken)
}

/// Reads a policy file onto a device.
///
/// # Errors
/// When it is no policy file, of another version, or its tensors are not what its header promises.
pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<(PolicyHeader, Actor), PolicyError> {
    let broken = |e: safetensors::SafeTensorError| PolicyError::Format(e.to_string());
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let empty = HashMap::new();
    let header = PolicyHeader::from_metadata(metadata.metadata().as_ref().unwrap_or(&empty))?;
    let file = SafeTensors::deserialize(bytes).map_err(broken)?;
    let read = |name: String, shape: &[usize]| {
        let view = file.tensor(&name).map_err(|e| PolicyError::Format(e.to_string()))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let (wanted, found) = (format!("F32 {shape:?}"), format!("{:?} {:?}", view.dtype(), view.shape()));
            return Err(PolicyError::Tensor { name, wanted, found });
        }
        let (quads, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect();
        if values.iter().all(|v| v.is_finite()) { Ok(values) } else { Err(PolicyError::NotFinite(name)) }
    };
    let mut values = Vec::new();
    for (i, shape) in header.config.layers().iter().enumerate() {
        let weight = read(format!("layers.{i}.weight"), shape)?;
        values.push((weight, read(format!("layers.{i}.bias"), &shape[1..])?));
    }
    let actor = Actor::from_values(&header.config, values, device);
    Ok((header, actor))
}
