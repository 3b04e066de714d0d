//! Where the server and its commands keep things, by the customs of the system.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::catalogue::OWN_FILE;

/// The user's data folder.
pub fn data_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_DATA_HOME").or_else(|| variable("LOCALAPPDATA")).or_else(|| {
        Some(variable("HOME")?.join(if cfg!(target_os = "macos") {
            "Library/Application Support"
        } else {
            ".local/share"
        }))
    });
    Some(base?.join("tandem"))
}

/// The folder of the hub's files and of the catalogue's models: the one that was named, or `hub` in the data folder.
///
/// # Errors
/// No data folder is known, and none was named.
pub fn hub_folder(named: Option<&Path>, data: Option<&Path>) -> anyhow::Result<PathBuf> {
    let usual = || data.map(Path::to_owned).or_else(data_folder).map(|data| data.join("hub"));
    named.map(Path::to_owned).or_else(usual).context("no data folder is known; name one with --hub-cache")
}

/// The lists of models that were named, or the one in the data folder where there is one.
pub fn own_catalogues(named: &[PathBuf], data: Option<&Path>) -> Vec<PathBuf> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let usual = data.map(Path::to_owned).or_else(data_folder).map(|data| data.join(OWN_FILE));
    usual.filter(|path| path.is_file()).into_iter().collect()
}
