//! A checkpoint in a folder of some server. Such folders have no list of their files: each is asked for by name.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures::StreamExt;

use super::EngineWorker;
use super::models::{LoadError, Remote, Span};
use crate::checkpoint::{CheckpointFiles, index, storage};
use crate::file::ModelFile;
use crate::opfs::OpfsStore;
use client::download::{DownloadError, FileStore, Wanted, url_prefix};
use client::offload::run::unless_stopped;
use client::offload::signal::StopFlag;
use client::protocol::engine::StoreAs;
use client::protocol::worker::ModelState;
use client::verdict::{LONGEST_HEAD, ModelFootprint};
use engine::assemble::WeightStream;
use engine::safetensors::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, Index, TOKENIZER, TOKENIZER_CONFIG, TensorFile, WEIGHTS,
    header_bytes,
};

/// Bytes that are first read of a stored file.
const FIRST_READ: usize = 64 << 10;

/// A file that is there: on the server, or stored whole from before where the server is away.
struct Found {
    wanted: Wanted,
    remote: Option<Remote>,
}

impl Found {
    /// Its first bytes, until `enough` says so of them; all of it where that never happens.
    async fn head(self, enough: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, String> {
        let store = OpfsStore::default();
        if store.stored(&self.wanted.name).await == self.wanted.bytes
            && let Ok(Some(file)) = store.file(&self.wanted.name).await
        {
            let file = ModelFile::Blob(file.into());
            let mut head = Vec::new();
            while !enough(&head) && (head.len() as u64) < self.wanted.bytes {
                let before = head.len();
                head = file.read(0, (2 * before).max(FIRST_READ)).await?;
                if head.len() == before {
                    break;
                }
            }
            return Ok(head);
        }
        let remote = self.remote.ok_or("what was stored has been cleared; try again")?;
        let mut chunks = remote.reply.chunks()?;
        let mut head = Vec::new();
        while !enough(&head) {
            let Some(chunk) = chunks.next().await.transpose()? else { break };
            head.extend_from_slice(&chunk);
        }
        Ok(head)
    }

    /// All of a file that is no tensor. It may be longer than its server says: that is what a compressed one has.
    async fn all(self) -> Result<Vec<u8>, String> {
        let url = self.wanted.url.clone();
        let all = self.head(|head| head.len() > LONGEST_HEAD).await?;
        match all.len() <= LONGEST_HEAD {
            true => Ok(all),
            false => Err(format!("{url} has more than {LONGEST_HEAD} bytes")),
        }
    }
}

impl EngineWorker {
    /// The file called `name`, kept as one of the folder's; `None` where there is none.
    async fn find_in(&self, folder: &str, name: &str) -> Result<Option<Found>, String> {
        let url = format!("{folder}{name}");
        match self.look_if_there(&url, None).await {
            Ok(Some(remote)) => {
                Ok(Some(Found { wanted: remote.wanted.clone().in_folder(folder), remote: Some(remote) }))
            }
            Ok(None) => Ok(None),
            // What is stored of it is as good, and a folder that is stored at all need not have all of the optional ones.
            Err(problem) => match self.stored_version(&url, Some(folder)).await {
                Some(wanted) => Ok(Some(Found { wanted, remote: None })),
                None if self.stored_of(folder).await > 0 => Ok(None),
                None => Err(problem),
            },
        }
    }

    async fn require_in(&self, folder: &str, name: &str) -> Result<Found, String> {
        let found = self.find_in(folder, name).await?;
        found.ok_or_else(|| match name {
            CONFIG => format!(
                "there is no {CONFIG}, so this is no safetensors checkpoint (or the server passes no hub's files on); a GGUF \
                 file is named with its repository: organisation/repository/file.gguf"
            ),
            name => format!("the file {name} is missing there, without which the model cannot be loaded"),
        })
    }

    /// Bytes that are stored of a folder's files.
    async fn stored_of(&self, folder: &str) -> u64 {
        let (store, prefix) = (OpfsStore::default(), url_prefix(folder));
        let mut bytes = 0;
        for name in store.names().await.into_iter().filter(|name| name.starts_with(&prefix)) {
            bytes += store.stored(&name).await;
        }
        bytes
    }

    /// What a folder's checkpoint will take, the size of its files, and how much of them is here. No tensor is read.
    pub(super) async fn inspect_folder(
        &self,
        url: &str,
        store_as: StoreAs,
    ) -> Result<(ModelFootprint, u64, u64), String> {
        let folder = self.absolute(url)?;
        let config = self.require_in(&folder, CONFIG).await?.all().await?;
        let mut words_bytes = config.len() as u64;
        for name in [TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE] {
            let found = match name {
                TOKENIZER => Some(self.require_in(&folder, name).await?),
                name => self.find_in(&folder, name).await?,
            };
            words_bytes += found.map_or(0, |found| found.wanted.bytes);
        }
        let (names, tensor_bytes): (BTreeSet<String>, u64) = match self.find_in(&folder, INDEX).await? {
            Some(found) => {
                let index = Index::parse(&found.all().await?).map_err(|error| error.to_string())?;
                let bytes = index
                    .total_bytes
                    .ok_or_else(|| format!("the file {INDEX} does not say how large the others are"))?;
                (index.tensors, bytes)
            }
            None => {
                let found = self.require_in(&folder, WEIGHTS).await?;
                let bytes = found.wanted.bytes;
                let whole = |head: &[u8]| match (head.len() < 8, header_bytes(head)) {
                    (true, _) => false,
                    (_, Ok(len)) => head.len() >= len,
                    (_, Err(_)) => true,
                };
                let mut head = found.head(whole).await?;
                head.truncate(header_bytes(&head).map_err(|error| error.to_string())?);
                let header = TensorFile::parse_header(&head, bytes).map_err(|error| error.to_string())?;
                (header.names().map(str::to_owned).collect(), bytes)
            }
        };
        let footprint = || {
            let weights = WeightStream::from_names(&config, names, storage(store_as))?;
            ModelFootprint::of_checkpoint(name_of(url), &weights, words_bytes)
        };
        let file_bytes = words_bytes + tensor_bytes;
        let here_bytes = self.stored_of(&folder).await.min(file_bytes);
        Ok((footprint().map_err(|error| error.to_string())?, file_bytes, here_bytes))
    }

    /// Brings a folder's files onto this device, one after the other; also says what becomes of them when the model leaves
    /// the memory.
    pub(super) async fn fetch_folder(
        self: &Rc<Self>,
        id: &str,
        url: &str,
        store_as: StoreAs,
        stop: &StopFlag,
    ) -> Result<(CheckpointFiles, ModelState), LoadError> {
        let folder = self.absolute(url)?;
        let mut arriving =
            Arriving { engine_worker: self, id, folder: &folder, stop, files: BTreeMap::new(), kept: true, bytes: 0 };
        for name in [CONFIG, TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, GENERATION_CONFIG, INDEX] {
            arriving.text(name).await?;
        }
        let index = index(&arriving.files).await.map_err(|error| LoadError::Other(error.to_string()))?;
        let shards = index.as_ref().map_or_else(|| vec![WEIGHTS.to_owned()], |index| index.files.clone());
        let expected = arriving.bytes + index.and_then(|index| index.total_bytes).unwrap_or(0);
        for name in &shards {
            arriving.tensors(name, expected).await?;
        }
        let afterwards = if arriving.kept { ModelState::Cached } else { ModelState::Absent };
        let files = CheckpointFiles::among(arriving.files, store_as).await;
        Ok((files.map_err(|error| LoadError::Other(error.to_string()))?, afterwards))
    }
}

/// A folder's files on their way.
struct Arriving<'a> {
    engine_worker: &'a Rc<EngineWorker>,
    id: &'a str,
    folder: &'a str,
    stop: &'a StopFlag,
    files: BTreeMap<String, ModelFile>,
    /// Whether all of them are in the store.
    kept: bool,
    /// Bytes of them together.
    bytes: u64,
}

impl Arriving<'_> {
    /// What a load that was stopped leaves; `total` are the bytes of all files, as far as that is known.
    async fn stopped(&self, total: u64) -> LoadError {
        let received = self.engine_worker.stored_of(self.folder).await;
        let partial = ModelState::Partial { received, total: total.max(received) };
        LoadError::Stopped(if received > 0 { partial } else { ModelState::Absent })
    }

    /// Fetches a file that is no tensor, if it is there or has to be.
    async fn text(&mut self, name: &str) -> Result<(), LoadError> {
        let fetch = async {
            let found = match name {
                CONFIG | TOKENIZER => Some(self.engine_worker.require_in(self.folder, name).await?),
                name => self.engine_worker.find_in(self.folder, name).await?,
            };
            let Some(found) = found else { return Ok(None) };
            let wanted = found.wanted.clone();
            Ok::<_, String>(Some((wanted, found.all().await?)))
        };
        let Some(fetched) = unless_stopped(self.stop, fetch).await else { return Err(self.stopped(self.bytes).await) };
        let Some((wanted, bytes)) = fetched? else { return Ok(()) };
        self.bytes += bytes.len() as u64;
        let file = match keep(&wanted.of_length(bytes.len() as u64), &bytes).await {
            Some(file) => file,
            None => {
                self.kept = false;
                ModelFile::Memory(Rc::new(bytes))
            }
        };
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    /// Fetches a file with tensors; `expected` are the bytes of all files, as far as that is known.
    async fn tensors(&mut self, name: &str, expected: u64) -> Result<(), LoadError> {
        let Found { wanted, remote } = self.engine_worker.require_in(self.folder, name).await?;
        // Its body has not been read: whoever fetches asks for what is missing.
        drop(remote);
        let bytes = wanted.bytes;
        let span = Span { before: self.bytes, total: expected.max(self.bytes + bytes) };
        let (file, afterwards) = match self.engine_worker.fetch_file(self.id, wanted, Some(span), self.stop).await {
            Err(LoadError::Download(DownloadError::Cancelled, _)) => return Err(self.stopped(span.total).await),
            fetched => fetched?,
        };
        self.kept &= afterwards == ModelState::Cached;
        self.bytes += bytes;
        self.files.insert(name.to_owned(), file);
        Ok(())
    }
}

/// Puts a small file into the store; `None` where that cannot be done.
async fn keep(wanted: &Wanted, bytes: &[u8]) -> Option<ModelFile> {
    let mut store = OpfsStore::default();
    if store.stored(&wanted.name).await != wanted.bytes {
        store.begin(&wanted.name, 0).await.ok()?;
        let written = store.append(bytes);
        store.end();
        written.ok()?;
    }
    let file = store.file(&wanted.name).await.ok()??;
    Some(ModelFile::Blob(file.into())).filter(|file| file.size() == wanted.bytes)
}

/// What a folder is called.
fn name_of(url: &str) -> &str {
    let path = url.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}
