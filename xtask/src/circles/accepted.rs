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
    Accepted { root: "cpu-kernels", modules: &["pool", "pool::*"], reason: FOLDER },
    Accepted { root: "cpu-kernels", modules: &["tile", "tile::*"], reason: FOLDER },
    Accepted { root: "engine", modules: &["gpu", "gpu::*"], reason: FOLDER },
    Accepted { root: "engine", modules: &["template", "template::*"], reason: FOLDER },
    Accepted { root: "engine", modules: &["tokenizer", "tokenizer::*"], reason: FOLDER },
    Accepted { root: "lm", modules: &["ecld::case", "ecld::case::*"], reason: FOLDER },
    Accepted { root: "lm", modules: &["ecld::encode", "ecld::encode::*"], reason: FOLDER },
    Accepted {
        root: "mec",
        modules: &["params", "settings"],
        reason: "parameters are built from the declarations of their fields, which read and write them",
    },
    Accepted { root: "tandem-server", modules: &["cli::ecld", "cli::ecld::*"], reason: FOLDER },
    Accepted { root: "tandem-server", modules: &["hub", "hub::*"], reason: FOLDER },
    Accepted { root: "tandem-server", modules: &["http", "http::*"], reason: FOLDER },
    Accepted { root: "tandem-server", modules: &["runs", "runs::*"], reason: FOLDER },
    Accepted { root: "worker", modules: &["engine_worker", "engine_worker::*"], reason: FOLDER },
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
