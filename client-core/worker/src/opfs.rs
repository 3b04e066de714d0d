//! Files in the origin private file system, above all models: it can append, so that a cut download goes on where it was.
//!
//! A file that another tab is writing cannot be opened for writing here; the download then goes to memory.

use async_trait::async_trait;
use js_sys::{Array, ArrayBuffer, AsyncIterator, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    File, FileSystemDirectoryHandle, FileSystemFileHandle, FileSystemGetDirectoryOptions, FileSystemGetFileOptions,
    FileSystemReadWriteOptions, FileSystemSyncAccessHandle, WorkerGlobalScope,
};

use super::message::{describe, error_name, property};
use client::download::{FileStore, FileStoreError};

/// Folder of the model files.
const MODELS: &str = "models";
/// Folder of what is remembered of files whose hashes agree: under a file's name its size, and when it was last written.
const VERIFIED: &str = "verified";
/// Longest such text, bytes.
const MAX_VERSION: usize = 64;

/// The store; opened anew for each use, since a browser may take its storage away at any time.
#[derive(Debug)]
pub struct OpfsStore {
    folder: &'static str,
    writing: Option<(FileSystemSyncAccessHandle, f64)>,
}

impl Default for OpfsStore {
    /// The store of the model files.
    fn default() -> Self {
        Self::of(MODELS)
    }
}

impl OpfsStore {
    /// The store in a folder of this name.
    pub fn of(folder: &'static str) -> Self {
        Self { folder, writing: None }
    }

    async fn open(&self) -> Result<FileSystemDirectoryHandle, FileStoreError> {
        let missing = || FileStoreError::Unavailable("the browser has no private file system for this page".to_owned());
        let scope: WorkerGlobalScope = js_sys::global().dyn_into().map_err(|_| missing())?;
        // Not there on pages that are not secure, and in older browsers; web-sys would throw past us.
        let storage = property(&scope.navigator(), "storage").ok_or_else(missing)?;
        let open: js_sys::Function =
            property(&storage, "getDirectory").and_then(|open| open.dyn_into().ok()).ok_or_else(missing)?;
        let root = open.apply(&storage, &Array::new()).map_err(shelf_error)?;
        let root = JsFuture::from(root.unchecked_into::<js_sys::Promise>()).await.map_err(shelf_error)?;
        let root: FileSystemDirectoryHandle = root.unchecked_into();
        let options = FileSystemGetDirectoryOptions::new();
        options.set_create(true);
        let folder = JsFuture::from(root.get_directory_handle_with_options(self.folder, &options)).await;
        Ok(folder.map_err(shelf_error)?.unchecked_into())
    }

    /// Bytes that are there of a file; 0 for none, and where nothing can be stored.
    pub async fn stored(&self, name: &str) -> u64 {
        match self.file(name).await {
            Ok(Some(file)) => file.size() as u64,
            _ => 0,
        }
    }

    /// The names of all files; none where nothing can be stored.
    pub async fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let Ok(folder) = self.open().await else { return names };
        let keys: AsyncIterator = folder.keys();
        while let Ok(promise) = keys.next() {
            let Ok(step) = JsFuture::from(promise).await else { break };
            let Some(name) = property(&step, "value").and_then(|value| value.as_string()) else { break };
            names.push(name);
        }
        names
    }

    /// Forgets that a file's hash agrees: it is written anew, goes, or does not load. Browsers that keep files in memory alone do
    /// not say when one was last written.
    pub async fn unmark(&self, name: &str) {
        if self.folder == MODELS {
            // A mark that cannot be removed is one of another size or time as soon as the file is written.
            let _ = Self::of(VERIFIED).delete(name).await;
        }
    }

    /// A file's size and when it was last written; `None` where there is none.
    async fn version(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.file(name).await.ok()??;
        Some(format!("{} {}", file.size(), file.last_modified()).into_bytes())
    }

    /// A file as the browser hands it out; `None` where there is none. Its content is read when it is asked for.
    ///
    /// # Errors
    /// Nothing can be stored here.
    pub async fn file(&self, name: &str) -> Result<Option<File>, FileStoreError> {
        let folder = self.open().await?;
        match JsFuture::from(folder.get_file_handle(name)).await {
            Ok(handle) => {
                let handle: FileSystemFileHandle = handle.unchecked_into();
                let file = JsFuture::from(handle.get_file()).await.map_err(shelf_error)?;
                Ok(Some(file.unchecked_into()))
            }
            Err(error) if error_name(&error) == "NotFoundError" => Ok(None),
            Err(error) => Err(shelf_error(error)),
        }
    }
}

#[async_trait(?Send)]
impl FileStore for OpfsStore {
    async fn room(&mut self) -> Option<u64> {
        free_bytes().await
    }

    async fn size(&mut self, name: &str) -> Result<Option<u64>, FileStoreError> {
        Ok(self.file(name).await?.map(|file| file.size() as u64))
    }

    async fn read(&mut self, name: &str, from: u64, len: usize) -> Result<Vec<u8>, FileStoreError> {
        let gone = || FileStoreError::Unavailable("what was stored is gone".to_owned());
        let file = self.file(name).await?.ok_or_else(gone)?;
        let slice = file.slice_with_f64_and_f64(from as f64, from as f64 + len as f64).map_err(shelf_error)?;
        let buffer = JsFuture::from(slice.array_buffer()).await.map_err(shelf_error)?;
        Ok(Uint8Array::new(buffer.unchecked_ref::<ArrayBuffer>()).to_vec())
    }

    async fn begin(&mut self, name: &str, keep: u64) -> Result<(), FileStoreError> {
        self.end();
        self.unmark(name).await;
        let folder = self.open().await?;
        let options = FileSystemGetFileOptions::new();
        options.set_create(true);
        let handle = JsFuture::from(folder.get_file_handle_with_options(name, &options)).await.map_err(shelf_error)?;
        // Older browsers have the file system but not this way of writing.
        if property(&handle, "createSyncAccessHandle").is_none() {
            return Err(FileStoreError::Unavailable("the browser cannot write such files".to_owned()));
        }
        let handle: FileSystemFileHandle = handle.unchecked_into();
        let access = JsFuture::from(handle.create_sync_access_handle()).await.map_err(shelf_error)?;
        let access: FileSystemSyncAccessHandle = access.unchecked_into();
        if let Err(error) = access.truncate_with_f64(keep as f64) {
            access.close();
            return Err(shelf_error(error));
        }
        self.writing = Some((access, keep as f64));
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileStoreError> {
        let Some((access, end)) = &mut self.writing else {
            return Err(FileStoreError::Unavailable("no file is open".to_owned()));
        };
        let options = FileSystemReadWriteOptions::new();
        options.set_at_f64(*end);
        let written = access.write_with_u8_array_and_options(bytes, &options).map_err(shelf_error)?;
        if written < bytes.len() as f64 {
            return Err(FileStoreError::Full);
        }
        *end += written;
        Ok(())
    }

    fn end(&mut self) {
        if let Some((access, _)) = self.writing.take() {
            // What cannot be flushed is found to be missing by the next reader.
            let _ = access.flush();
            access.close();
        }
    }

    async fn delete(&mut self, name: &str) -> Result<(), FileStoreError> {
        self.end();
        self.unmark(name).await;
        match JsFuture::from(self.open().await?.remove_entry(name)).await {
            Ok(_) => Ok(()),
            Err(error) if error_name(&error) == "NotFoundError" => Ok(()),
            Err(error) => Err(shelf_error(error)),
        }
    }

    async fn mark_verified(&mut self, name: &str) {
        let mut marks = Self::of(VERIFIED);
        if let Some(version) = self.version(name).await
            && marks.begin(name, 0).await.is_ok()
        {
            // A text that was cut is none that agrees.
            let _ = marks.append(&version);
        }
    }

    async fn is_verified(&mut self, name: &str) -> bool {
        let mark = Self::of(VERIFIED).read(name, 0, MAX_VERSION).await;
        let version = self.version(name).await;
        version.is_some_and(|version| mark.is_ok_and(|mark| mark == version))
    }
}

impl Drop for OpfsStore {
    fn drop(&mut self) {
        self.end();
    }
}

/// What this origin has stored and what it may store; `None` where the browser does not tell.
pub async fn storage() -> (Option<u64>, Option<u64>) {
    let estimate = async {
        let scope: WorkerGlobalScope = js_sys::global().dyn_into().ok()?;
        let storage = property(&scope.navigator(), "storage")?;
        let estimate: js_sys::Function = property(&storage, "estimate")?.dyn_into().ok()?;
        let promise: js_sys::Promise = estimate.apply(&storage, &Array::new()).ok()?.dyn_into().ok()?;
        let estimate = JsFuture::from(promise).await.ok()?;
        let bytes = |name| property(&estimate, name)?.as_f64().map(|bytes| bytes as u64);
        Some((bytes("usage"), bytes("quota")))
    };
    estimate.await.unwrap_or_default()
}

/// What this origin may still store; `None` where the browser does not tell.
pub async fn free_bytes() -> Option<u64> {
    let (stored, quota) = storage().await;
    quota.map(|quota| quota.saturating_sub(stored.unwrap_or(0)))
}

fn shelf_error(error: JsValue) -> FileStoreError {
    match error_name(&error).as_str() {
        "QuotaExceededError" => FileStoreError::Full,
        "NoModificationAllowedError" => {
            FileStoreError::Unavailable("another tab of this page is writing the same file".to_owned())
        }
        _ => FileStoreError::Unavailable(describe(&error)),
    }
}
