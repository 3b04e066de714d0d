//! The policy file: safetensors with f32 tensors `layers.N.weight` `[inputs, outputs]` and `layers.N.bias` `[outputs]`, and
//! a header in the file's metadata that says what they are for. A policy for any number of users has `encoder.N` and
//! `head.N` in place of `layers.N`, and a version of its own, so that a build that knows only the other kind says so; the one
//! for every world has these layers, too, and another version, and so has one for one number of users that sees its world.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use burn::nn::Linear;
use burn::tensor::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::activation::Activation;
use super::actor::{Actor, ActorConfig, Head};
use super::error::PolicyError;
use super::sees::Sees;
use super::set::{LayerValues, SetActor, SetConfig};
use super::spaces::{ActionMap, SPACES_VERSION};
use super::world::WorldConfig;
use mec::params::MAX_USERS;

/// Version of the file's layout.
pub const FILE_VERSION: u32 = 1;
/// The same of a policy for any number of users.
pub const SET_FILE_VERSION: u32 = 2;
/// The same of a policy that is told its world.
pub const WORLD_FILE_VERSION: u32 = 3;
/// The same of a policy for one number of users that sees its world.
pub const SEEING_FILE_VERSION: u32 = 4;
/// Version of what such a policy sees and of what its outputs mean.
pub const WORLD_SPACES_VERSION: u32 = 1;
/// A layer wider or a stack deeper than this is no policy of ours.
const MAX_UNITS: usize = 8192;
const MAX_LAYERS: usize = 16;
/// More proposals than this take longer than they are worth.
const MAX_PROPOSALS: usize = 64;

/// Sizes of a network, of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkShape {
    /// For one number of users.
    Fixed(ActorConfig),
    /// For any number of users up to a largest one.
    Set(SetConfig),
    /// For any number of users up to a largest one, in any world.
    World(WorldConfig),
}

/// A network of either kind.
#[derive(Clone, Debug)]
pub enum Network {
    /// For one number of users.
    Fixed(Actor),
    /// For any number of users.
    Set(SetActor),
    /// For any number of users in any world.
    World(SetActor),
}

impl NetworkShape {
    /// Numbers of users that it is for.
    pub fn users(&self) -> RangeInclusive<usize> {
        match self {
            Self::Fixed(config) => config.users..=config.users,
            Self::Set(config) => 1..=config.most_users,
            Self::World(config) => 1..=config.most_users,
        }
    }

    /// What a network for one number of users sees; the others have a view of their own.
    pub fn sees(&self) -> Sees {
        match self {
            Self::Fixed(config) => config.sees,
            Self::Set(_) | Self::World(_) => Sees::Slot,
        }
    }

    /// That it is for so many users.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_users(&self, present: usize) -> Result<(), PolicyError> {
        let (least, most) = self.users().into_inner();
        match self {
            _ if (least..=most).contains(&present) => Ok(()),
            Self::Fixed(_) => Err(PolicyError::Users { trained: most, present }),
            Self::Set(_) | Self::World(_) => Err(PolicyError::OutOfRange { least, most, present }),
        }
    }

    /// Name and `[inputs, outputs]` of every layer, in the order of [`Network::layers`].
    fn layers(&self) -> Vec<(String, [usize; 2])> {
        let named = |name: &str, shapes: Vec<[usize; 2]>| -> Vec<(String, [usize; 2])> {
            shapes.into_iter().enumerate().map(|(i, shape)| (format!("{name}.{i}"), shape)).collect()
        };
        match self {
            Self::Fixed(config) => named("layers", config.layers()),
            Self::Set(config) => {
                [named("encoder", config.encoder_layers()), named("head", config.head_layers())].concat()
            }
            Self::World(config) => {
                [named("encoder", config.encoder_layers()), named("head", config.head_layers())].concat()
            }
        }
    }

    fn network(&self, mut values: Vec<LayerValues>, device: &Device) -> Network {
        match self {
            Self::Fixed(config) => Network::Fixed(Actor::from_values(config, values, device)),
            Self::Set(config) => {
                let head = values.split_off(config.encoder.len());
                Network::Set(SetActor::from_values(config, values, head, device))
            }
            Self::World(config) => {
                let head = values.split_off(config.encoder.len());
                Network::World(config.actor([values, head], device))
            }
        }
    }
}

impl Network {
    fn layers(&self) -> Vec<&Linear> {
        match self {
            Self::Fixed(actor) => actor.layers.iter().collect(),
            Self::Set(actor) | Self::World(actor) => actor.encoder.iter().chain(&actor.head).collect(),
        }
    }
}

impl From<ActorConfig> for NetworkShape {
    fn from(config: ActorConfig) -> Self {
        Self::Fixed(config)
    }
}

impl From<SetConfig> for NetworkShape {
    fn from(config: SetConfig) -> Self {
        Self::Set(config)
    }
}

impl From<WorldConfig> for NetworkShape {
    fn from(config: WorldConfig) -> Self {
        Self::World(config)
    }
}

impl From<Actor> for Network {
    fn from(actor: Actor) -> Self {
        Self::Fixed(actor)
    }
}

impl From<SetActor> for Network {
    fn from(actor: SetActor) -> Self {
        Self::Set(actor)
    }
}

/// What the weights are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyHeader {
    /// Sizes of the network.
    pub shape: NetworkShape,
    /// Meaning of the second action; a policy that is told its world has none.
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

/// The same of a policy for any number of users.
#[derive(serde::Serialize, serde::Deserialize)]
struct SetHeaderWire {
    version: u32,
    spaces: u32,
    /// Fewest and most users.
    users: [usize; 2],
    encoder: Vec<usize>,
    head: Vec<usize>,
    activation: Activation,
    action_map: ActionMap,
    algo: String,
    seed: u64,
    steps: u64,
}

/// The same of a policy that is told its world.
#[derive(serde::Serialize, serde::Deserialize)]
struct WorldHeaderWire {
    version: u32,
    spaces: u32,
    /// Fewest and most users.
    users: [usize; 2],
    encoder: Vec<usize>,
    head: Vec<usize>,
    activation: Activation,
    proposals: usize,
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
        let (action_map, algo, seed, steps) = (self.action_map, self.algo.clone(), self.seed, self.steps);
        let json = match &self.shape {
            NetworkShape::Fixed(config) => serde_json::to_string(&HeaderWire {
                version: match config.sees {
                    Sees::Slot => FILE_VERSION,
                    Sees::World => SEEING_FILE_VERSION,
                },
                spaces: match config.sees {
                    Sees::Slot => SPACES_VERSION,
                    Sees::World => WORLD_SPACES_VERSION,
                },
                users: config.users,
                hidden: config.hidden.clone(),
                activation: config.activation,
                head: config.head,
                action_map,
                algo,
                seed,
                steps,
            }),
            NetworkShape::Set(config) => serde_json::to_string(&SetHeaderWire {
                version: SET_FILE_VERSION,
                spaces: SPACES_VERSION,
                users: [1, config.most_users],
                encoder: config.encoder.clone(),
                head: config.head.clone(),
                activation: config.activation,
                action_map,
                algo,
                seed,
                steps,
            }),
            NetworkShape::World(config) => serde_json::to_string(&WorldHeaderWire {
                version: WORLD_FILE_VERSION,
                spaces: WORLD_SPACES_VERSION,
                users: [1, config.most_users],
                encoder: config.encoder.clone(),
                head: config.head.clone(),
                activation: config.activation,
                proposals: config.proposals,
                algo,
                seed,
                steps,
            }),
        };
        let json = json.map_err(|e| PolicyError::Format(e.to_string()))?;
        Ok(HashMap::from([(METADATA_KEY.to_owned(), json)]))
    }

    fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, PolicyError> {
        let refuse = |field: &'static str, problem: String| PolicyError::Header { field, problem };
        let json = metadata.get(METADATA_KEY).ok_or_else(|| refuse(METADATA_KEY, "is missing".to_owned()))?;
        let broken = |e: serde_json::Error| refuse(METADATA_KEY, e.to_string());
        let versions: Versions = serde_json::from_str(json).map_err(broken)?;
        let (file_version, spaces_version) = match versions.version {
            SET_FILE_VERSION => (SET_FILE_VERSION, SPACES_VERSION),
            version @ (WORLD_FILE_VERSION | SEEING_FILE_VERSION) => (version, WORLD_SPACES_VERSION),
            _ => (FILE_VERSION, SPACES_VERSION),
        };
        for (what, found, wanted) in
            [("file", versions.version, file_version), ("spaces", versions.spaces, spaces_version)]
        {
            if found != wanted {
                return Err(PolicyError::Version { what, found, wanted });
            }
        }
        let check_units = |field: &'static str, units: &[usize]| {
            if units.len() > MAX_LAYERS || units.iter().any(|units| *units == 0 || *units > MAX_UNITS) {
                return Err(refuse(field, format!("{units:?} is out of range")));
            }
            Ok(())
        };
        let check_users = |[least, most]: [usize; 2]| {
            if least != 1 || most == 0 || most > MAX_USERS {
                return Err(refuse("users", format!("{least} to {most} is not 1 to at most {MAX_USERS}")));
            }
            Ok(most)
        };
        if file_version == WORLD_FILE_VERSION {
            let WorldHeaderWire { users, encoder, head, activation, proposals, algo, seed, steps, .. } =
                serde_json::from_str(json).map_err(broken)?;
            let most_users = check_users(users)?;
            check_units("encoder", &encoder)?;
            check_units("head", &head)?;
            if !(1..=MAX_PROPOSALS).contains(&proposals) {
                return Err(refuse("proposals", format!("{proposals} is not in 1..={MAX_PROPOSALS}")));
            }
            let shape = WorldConfig { most_users, encoder, head, activation, proposals }.into();
            return Ok(Self { shape, action_map: ActionMap::default(), algo, seed, steps });
        }
        if file_version == SET_FILE_VERSION {
            let SetHeaderWire { users, encoder, head, activation, action_map, algo, seed, steps, .. } =
                serde_json::from_str(json).map_err(broken)?;
            let most_users = check_users(users)?;
            check_units("encoder", &encoder)?;
            check_units("head", &head)?;
            let shape = SetConfig { most_users, encoder, head, activation }.into();
            return Ok(Self { shape, action_map, algo, seed, steps });
        }
        let HeaderWire { users, hidden, activation, head, action_map, algo, seed, steps, .. } =
            serde_json::from_str(json).map_err(broken)?;
        if users == 0 || users > MAX_USERS {
            return Err(refuse("users", format!("{users} is not in 1..={MAX_USERS}")));
        }
        check_units("hidden", &hidden)?;
        let sees = if file_version == SEEING_FILE_VERSION { Sees::World } else { Sees::Slot };
        let shape = ActorConfig { users, sees, hidden, activation, head }.into();
        Ok(Self { shape, action_map, algo, seed, steps })
    }
}

/// Writes a policy file.
///
/// # Errors
/// When a weight cannot be read from its device or is not finite.
pub fn to_bytes(header: &PolicyHeader, network: &Network) -> Result<Vec<u8>, PolicyError> {
    let mut tensors = Vec::new();
    for (layer, (name, [inputs, outputs])) in network.layers().into_iter().zip(header.shape.layers()) {
        let unread = |e: burn::tensor::TensorReadError| PolicyError::Device(e.to_string());
        let weight = layer.weight.val().try_into_vec_as::<f32>().map_err(unread)?;
        tensors.push((format!("{name}.weight"), vec![inputs, outputs], weight));
        let bias = match &layer.bias {
            Some(bias) => bias.val().try_into_vec_as::<f32>().map_err(unread)?,
            None => vec![0.0; outputs],
        };
        tensors.push((format!("{name}.bias"), vec![outputs], bias));
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
pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<(PolicyHeader, Network), PolicyError> {
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
    for (name, shape) in header.shape.layers() {
        let weight = read(format!("{name}.weight"), &shape)?;
        values.push((weight, read(format!("{name}.bias"), &shape[1..])?));
    }
    let network = header.shape.network(values, device);
    Ok((header, network))
}
