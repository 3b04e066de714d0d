//! The models that the arguments name: the server's own, the one for pages, and those of the catalogue.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use client::catalogue::Catalogue;

use super::args::Args;
use crate::catalogue::store::Store;
use crate::catalogue::{self, FILE, Named, own};
use crate::cli::folders::{hub_folder, own_catalogues};
use crate::host::load;
use crate::host::local::{LocalConfig, LocalHost};
use crate::host::memory::Room;
use crate::host::swap::Swap;
use crate::http::catalogue::Offered;
use crate::http::files::source::Source;
use crate::http::model::{ModelSwitch, OpenError};

/// What was named, and the list that it was looked for in.
pub(super) struct Found {
    /// The server's model; `None` for the one that ships.
    pub(super) model: Option<Named>,
    offered: Offered,
}

impl Found {
    /// What pages may have.
    pub(super) fn offered(&self) -> Offered {
        self.offered.clone()
    }
}

/// Looks for the models that the arguments name.
///
/// # Errors
/// A list cannot be read, a model is not on this machine, or a file is no model; says what to do.
pub(super) fn find(args: &Args, public: &Source) -> anyhow::Result<Found> {
    let data = args.data.as_deref();
    let catalogue = list(args, public)?;
    let store = Store::new(hub_folder(args.hub.hub_cache.as_deref(), data).unwrap_or_default());
    let resolve = |text: &str| catalogue::resolve(text, &catalogue, &store);
    let model = args.model.as_deref().map(resolve).transpose().context("--model")?;
    let device = args.device_model.as_deref().map(resolve).transpose().context("--device-model")?;
    let mut offered = Offered { catalogue: catalogue.clone(), store: store.clone(), own: None };
    match device {
        None => {}
        Some(Named::Shipped(entry)) => offered.catalogue.device = Some(entry.id),
        Some(Named::Stored(mut entry, path)) => {
            offered.catalogue.device = Some(entry.id.clone());
            // One for servers too, if its owner wants it in pages.
            entry.role = client::catalogue::Role::Both;
            offered.own = Some((entry.id.clone(), path));
            replace(&mut offered.catalogue, entry);
        }
        Some(Named::Path(path)) => {
            let what = || format!("--device-model {}", path.display());
            let path = std::fs::canonicalize(&path).with_context(what)?;
            let entry = own::describe(&path).with_context(what)?;
            offered.catalogue.device = Some(entry.id.clone());
            offered.own = Some((entry.id.clone(), path.clone()));
            replace(&mut offered.catalogue, entry);
        }
    }
    Ok(Found { model, offered })
}

fn replace(catalogue: &mut Catalogue, entry: client::catalogue::CatalogueEntry) {
    catalogue.models.retain(|known| known.id != entry.id);
    catalogue.models.push(entry);
}

/// The list that ships and what is added to it. A folder `public` of somebody's own need not have one.
fn list(args: &Args, public: &Source) -> anyhow::Result<Catalogue> {
    let own = own_catalogues(&args.catalogue, args.data.as_deref());
    let shipped = match public.read(FILE) {
        Ok(json) => json.to_vec(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Source::Embedded.read(FILE)?.to_vec(),
        Err(error) => return Err(anyhow::Error::new(error).context(FILE)),
    };
    Ok(catalogue::load(&shipped, &own)?)
}

/// What changes the server's model for whoever has the key: to one of the catalogue that is on this machine, or back to the one
/// that it began with.
pub(super) fn switch(
    key: &str,
    swap: &Arc<Swap>,
    found: &Found,
    public: &Source,
    config: LocalConfig,
    context: Option<usize>,
) -> ModelSwitch {
    let (offered, public) = (found.offered(), public.clone());
    let first = match &found.model {
        Some(Named::Path(path)) => stem(path).map(|id| (id, Named::Path(path.clone()))),
        _ => None,
    };
    let open = move |name: &str| {
        let named = match &first {
            Some((id, named)) if id == name => named.clone(),
            // Files by their path are the owner's affair, at the machine.
            _ if offered.catalogue.find(name).is_none() => {
                return Err(OpenError::NotHere(format!("The catalogue has no model {name:?} (tandem models list).")));
            }
            _ => catalogue::resolve(name, &offered.catalogue, &offered.store)
                .map_err(|error| OpenError::NotHere(format!("{error}.")))?,
        };
        let failed = |error: &dyn std::fmt::Display| OpenError::Failed(format!("{error}."));
        let (engine, card) = load::named(&named, &public, Room::now(context)).map_err(|error| failed(&error))?;
        LocalHost::start(engine, card, config).map_err(|error| failed(&error))
    };
    ModelSwitch::new(key, Arc::clone(swap), Box::new(open))
}

fn stem(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_string_lossy().into_owned())
}
