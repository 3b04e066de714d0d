//! `/models/catalogue.json`: the catalogue as it is here, and `/models/stored/{id}/{file}`: the files of it that this server has
//! for pages.
//!
//! Only what is in the list is handed out, and of that only what is meant for devices: the cache may hold files that its
//! owner's token opened.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse as _, Response};
use client::catalogue::{Catalogue, CatalogueEntry, Role};

use super::address::Address;
use super::{App, files};
use crate::catalogue::store::{State as Stored, Store};

/// The catalogue, and what of it this server has.
#[derive(Clone, Debug)]
pub struct Offered {
    /// The list, with the model below if that is in no other.
    pub catalogue: Catalogue,
    /// Where the files lie.
    pub store: Store,
    /// A file of the owner's own that stands in the list under this id.
    pub own: Option<(String, PathBuf)>,
}

impl Offered {
    /// Folder and name in it of a model's file, where pages may have it and it is here.
    fn file(&self, entry: &CatalogueEntry) -> Option<(PathBuf, String)> {
        if let Some((id, path)) = &self.own
            && *id == entry.id
        {
            return Some((path.parent()?.to_owned(), path.file_name()?.to_str()?.to_owned()));
        }
        let is_here =
            matches!(self.store.state(entry), Stored::Whole(bytes) if entry.bytes.is_none_or(|all| all == bytes));
        (entry.role != Role::Server && is_here).then(|| (self.store.dir().to_owned(), Store::name(entry)))
    }

    /// The list with the addresses that a page gets files from: this server's own, its copies of the hub's files where it passes
    /// them on, else where the hub has them.
    fn list(&self, passes_on: bool) -> Catalogue {
        let mut catalogue = self.catalogue.clone();
        for entry in &mut catalogue.models {
            let address = match (self.file(entry), &entry.repository) {
                _ if entry.is_shipped() && self.own.as_ref().is_none_or(|(id, _)| *id != entry.id) => {
                    Some(entry.file.clone())
                }
                (Some(_), _) => Some(format!("stored/{}/{}", entry.id, entry.file)),
                (None, Some(repository)) if passes_on => Some(format!("hub/{repository}/{}", entry.file)),
                (None, Some(repository)) if !catalogue.hub.is_empty() => {
                    Some(format!("{}/{repository}/resolve/main/{}", catalogue.hub, entry.file))
                }
                (None, _) => entry.url.clone(),
            };
            entry.address = address;
        }
        catalogue
    }
}

/// `GET /models/catalogue.json`
pub async fn list(State(app): State<App>) -> Response {
    let list = app.offered().list(app.hub().is_some());
    ([(header::CACHE_CONTROL, "no-cache")], Json(list)).into_response()
}

/// `GET /models/stored/{id}/{file}`
pub async fn file(
    State(app): State<App>,
    Address((id, file)): Address<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let offered = app.offered();
    let entry = offered.catalogue.models.iter().find(|entry| entry.id == id && entry.file == file);
    match entry.and_then(|entry| offered.file(entry)) {
        Some((folder, name)) => files::respond_from(app.files(), &method, folder, &name, &headers).await,
        None => files::not_found(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_where_the_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = crate::catalogue::load(include_bytes!("../../../public/models/catalogue.json"), &[]).unwrap();
        let mut offered = Offered { catalogue, store: Store::new(folder.path().to_owned()), own: None };
        let address =
            |offered: &Offered, id: &str, passes_on| offered.list(passes_on).find(id).unwrap().address.clone().unwrap();
        assert_eq!(address(&offered, "compact", false), "compact.gguf");
        assert_eq!(
            address(&offered, "qwen3", false),
            "https://huggingface.co/Qwen/Qwen3-0.6B-GGUF/resolve/main/Qwen3-0.6B-Q8_0.gguf"
        );
        assert_eq!(address(&offered, "qwen3", true), "hub/Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf");
        for (id, bytes, here) in [("qwen3-0.6b", 3, true), ("qwen3-0.6b", 10, false), ("qwen3-8b", 3, false)] {
            let entry = offered.catalogue.models.iter_mut().find(|entry| entry.id == id).unwrap();
            entry.bytes = Some(bytes);
            let entry = entry.clone();
            let place = offered.store.place(&entry);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, "abc").unwrap();
            let stored = address(&offered, id, true).starts_with("stored/");
            assert_eq!(stored, here, "{id}: a file of another size is another file, and a server's is no page's");
        }
    }
}
