//! What is said about a model and the engine by themselves: where a file comes from, what it will take, what is to be
//! written or embedded, and what that took. No cell, no policy, no server.

use serde::{Deserialize, Serialize};

use super::tier::Tier;

/// How the matrices of a checkpoint are stored when it is loaded, by GGUF's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAs {
    /// Eight bits and a scale for each block of 32.
    #[default]
    #[serde(rename = "Q8_0")]
    Q8,
    /// Four bits and a scale for each block of 32.
    #[serde(rename = "Q4_0")]
    Q4,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl StoreAs {
    /// All of them, the one to begin with first.
    pub const ALL: [Self; 4] = [Self::Q8, Self::Q4, Self::F16, Self::F32];

    /// GGUF's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8 => "Q8_0",
            Self::Q4 => "Q4_0",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }
}

/// Where a model comes from: a GGUF file, or the files of a Hugging Face checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum ModelSource {
    /// The server's manifest.
    Server {
        /// Id in the manifest.
        id: String,
    },
    /// Any address that lets this page read it (CORS), the server's copies of a hub's files among them.
    Url {
        /// Absolute, or relative to the server.
        url: String,
        /// Lower-case hex SHA-256 to hold the file against, where it is known.
        #[serde(default)]
        sha256: Option<String>,
    },
    /// A file that a person chose. Its content travels beside the command.
    File {
        /// Its name.
        name: String,
    },
    /// A checkpoint whose files a person chose. They travel beside the command.
    Files {
        /// What to call it: the folder's name, or that of a file.
        name: String,
        /// Size of all files together, which tells checkpoints of the same name apart.
        bytes: u64,
        /// How it is to be stored.
        #[serde(default)]
        store_as: StoreAs,
    },
    /// A checkpoint in a folder of some server that lets this page read it, the server's copies of a hub's among them.
    Folder {
        /// Address of the folder with a slash at the end; absolute, or relative to the server.
        url: String,
        /// How it is to be stored.
        #[serde(default)]
        store_as: StoreAs,
    },
}

impl ModelSource {
    /// How a checkpoint is to be stored; `None` for what is stored in one way already.
    pub fn store_as_mut(&mut self) -> Option<&mut StoreAs> {
        match self {
            Self::Files { store_as, .. } | Self::Folder { store_as, .. } => Some(store_as),
            _ => None,
        }
    }

    /// What [`super::worker::Event::Model`] calls the model: the manifest's id, the address, or `file:` and the name. A
    /// checkpoint is another model for each way of storing it.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Server { id } => id.clone(),
            Self::Url { url, .. } => url.clone(),
            Self::File { name } => format!("file:{name}"),
            Self::Files { name, bytes, store_as } => format!("files:{name}:{bytes}#{}", store_as.name()),
            Self::Folder { url, store_as } => format!("{url}#{}", store_as.name()),
        }
    }
}

/// What a model will take in this tab, said before it is loaded. Bytes are as close as the file's own header tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Name from the file.
    pub name: String,
    /// Number of parameters.
    pub parameters: u64,
    /// How most of the matrices are stored.
    pub quantisation: String,
    /// Size of the file, or of all files.
    pub file_bytes: u64,
    /// What is still to be downloaded; 0 for a file that is on this device.
    pub download_bytes: u64,
    /// Where it will be computed.
    pub tier: Tier,
    /// The weights, in GPU memory or WebAssembly memory by `tier`.
    pub weight_bytes: u64,
    /// The KV cache with `context` tokens, in the same memory.
    pub cache_bytes: u64,
    /// WebAssembly memory at its highest, while the model is loaded.
    pub load_bytes: u64,
    /// The chosen context, tokens.
    pub context: u32,
    /// The longest context that the model was made for, tokens.
    pub longest_context: u32,
    /// Whether this tab can hold it.
    pub fits: bool,
    /// Whether the browser has room to keep the file for the next visit.
    pub kept: bool,
    /// What stands in the way or should be known, each a sentence.
    pub remarks: Vec<String>,
    /// What to choose instead, a sentence; `None` when nothing has to be chosen.
    pub advice: Option<String>,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// `system`, `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    /// Its text.
    pub content: String,
}

impl Turn {
    /// What a person says.
    #[must_use]
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".to_owned(), content: content.into() }
    }

    /// What the model has said so far.
    #[must_use]
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant".to_owned(), content: content.into() }
    }
}

#[cfg(feature = "engine")]
impl From<&Turn> for engine::ChatMessage {
    fn from(turn: &Turn) -> Self {
        Self { role: turn.role.clone(), content: turn.content.clone() }
    }
}

/// What is to be continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A conversation, through the model's chat template.
    Chat(Vec<Turn>),
    /// A text as it is.
    Text(String),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model ended its answer, or a stop text came up.
    #[default]
    Stop,
    /// `max_tokens` or the context was used up: the answer is cut.
    Length,
    /// A person, or who asked, stopped it.
    Cancelled,
}

#[cfg(feature = "engine")]
impl From<engine::FinishReason> for Finish {
    fn from(reason: engine::FinishReason) -> Self {
        match reason {
            engine::FinishReason::Stop => Self::Stop,
            engine::FinishReason::Length => Self::Length,
            engine::FinishReason::Cancelled => Self::Cancelled,
        }
    }
}

/// What writing took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WriteRecord {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the KV cache still held.
    pub cached_tokens: usize,
    /// Tokens written.
    pub tokens: usize,
    /// From the command to the first token.
    pub ttft_s: f64,
    /// From there to the last token.
    pub decode_s: f64,
    /// Why it ended.
    pub finish: Finish,
}

/// Tokens of prompts that a side was given to read, every time that it was: an answer that changes hands is read again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// All of them.
    pub tokens: usize,
    /// Those of them that a KV cache still held, so that nothing was computed.
    pub cached: usize,
}

impl Read {
    /// Tokens that were computed.
    #[must_use]
    pub fn computed(self) -> usize {
        self.tokens.saturating_sub(self.cached)
    }
}

impl std::ops::AddAssign for Read {
    fn add_assign(&mut self, more: Self) {
        self.tokens += more.tokens;
        self.cached += more.cached;
    }
}

/// What a conversation takes of the models' context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextUse {
    /// Tokens of what goes along, the question at its end, by the tokenizer of this tab's model.
    pub tokens: usize,
    /// Tokens that all who answer can hold, prompt and answer together.
    pub limit: usize,
    /// Exchanges (question and answer) at the beginning that are left out so that the rest fits.
    pub left_out: usize,
    /// Whether it fits; a question that is too long by itself does not.
    pub fits: bool,
}

/// What the engine occupies.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryReport {
    /// The worker's WebAssembly memory; it never shrinks.
    pub wasm_bytes: u64,
    /// The model's weights; 0 without a model.
    pub weight_bytes: u64,
    /// The KV cache when it is full.
    pub cache_bytes: u64,
    /// Whether weights and cache are in GPU memory; else they are part of `wasm_bytes`.
    pub on_gpu: bool,
    /// What this origin has stored; `None` where the browser does not tell.
    pub stored_bytes: Option<u64>,
    /// What it may store in all; `None` where the browser does not tell.
    pub quota_bytes: Option<u64>,
}
