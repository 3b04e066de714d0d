//! The circles that are accepted, and why.

/// One of them.
pub struct Accepted {
    /// The package, as [`super::check`] names it.
    pub root: &'static str,
    /// Its modules; `NAME::*` is whatever lies below one.
    pub modules: &'static [&'static str],
    /// Why it may stay.
    pub reason: &'static str,
}

/// A folder whose `mod.rs` holds what its files share, and which is used from outside as one.
const FOLDER: &str = "one concept in a folder: mod.rs holds what its files share, and calls them";

/// All of them.
pub const ACCEPTED: &[Accepted] = &[
    Accepted { root: "client", modules: &["offload::run", "offload::run::*"], reason: FOLDER },
    Accepted {
        root: "client",
        modules: &["offload::openai", "offload::ports"],
        reason: "to be untied: where answers come from",
    },
    Accepted {
        root: "client",
        modules: &["protocol::engine", "protocol::worker"],
        reason: "to be untied: messages of one worker",
    },
    Accepted {
        root: "client",
        modules: &["download", "verdict"],
        reason: "to be untied: what a file takes, and getting it",
    },
    Accepted { root: "cpu-kernels", modules: &["pool", "pool::*"], reason: FOLDER },
    Accepted {
        root: "cpu-kernels",
        modules: &["attention", "math", "matrix", "native", "native::*", "tile", "tile::*"],
        reason: "to be untied: a product and the tiles that it is made of",
    },
    Accepted {
        root: "engine",
        modules: &["assemble", "config", "error", "files", "parts", "safetensors", "weights"],
        reason: "to be untied: a checkpoint's loaders share their error and their places",
    },
    Accepted {
        root: "engine",
        modules: &["backend", "sampler"],
        reason: "to be untied: a backend that samples itself",
    },
    Accepted {
        root: "engine",
        modules: &["engine", "together"],
        reason: "to be untied: texts that are written together",
    },
    Accepted { root: "engine", modules: &["gpu", "gpu::*"], reason: FOLDER },
    Accepted { root: "engine", modules: &["template", "template::*"], reason: FOLDER },
    Accepted { root: "engine", modules: &["tokenizer", "tokenizer::*"], reason: FOLDER },
    Accepted {
        root: "mec",
        modules: &["params", "settings"],
        reason: "parameters and the declarations of their fields",
    },
    Accepted { root: "mec", modules: &["oracle", "search"], reason: "to be untied: the optimum and its search" },
    Accepted { root: "mec", modules: &["block", "env"], reason: "to be untied: many cells and a block of them" },
    Accepted { root: "tandem-server", modules: &["hub", "hub::*"], reason: FOLDER },
    Accepted { root: "tandem-server", modules: &["http", "http::*"], reason: FOLDER },
    Accepted { root: "tandem-server", modules: &["runs", "runs::*"], reason: FOLDER },
    Accepted { root: "worker", modules: &["checkpoint", "file"], reason: "to be untied: a checkpoint of files" },
    Accepted { root: "worker", modules: &["engine_worker", "engine_worker::*"], reason: FOLDER },
    Accepted {
        root: "xtask",
        modules: &["build", "kernels", "page::module"],
        reason: "to be untied: the page and its kernels",
    },
    Accepted {
        root: "xtask",
        modules: &["beside", "browser", "demo", "test"],
        reason: "to be untied: tests with a page built beside them",
    },
];

impl Accepted {
    /// Whether a module is one of these.
    pub fn holds(&self, module: &str) -> bool {
        self.modules.iter().any(|known| match known.strip_suffix("*") {
            Some(folder) => module.starts_with(folder),
            None => module == *known,
        })
    }
}
