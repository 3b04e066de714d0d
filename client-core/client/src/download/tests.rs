//! Downloads on a simulated clock, from scripted sources into a store in memory.

use std::cell::RefCell;
use std::collections::HashMap;

use futures::future::join;
use futures::stream;

use super::*;
use crate::offload::fakes::FakeClock;
use crate::protocol::manifest::Accuracy;

const SIZE: usize = 1000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 31 % 251) as u8).collect()
}

fn wanted() -> Wanted {
    let sha256 = hex(&Sha256::digest(content()));
    let url = "http://server/models/m.gguf".to_owned();
    Wanted { url, bytes: SIZE as u64, name: sha256.clone(), sha256: Some(sha256) }
}

/// What the source does at each opening; the last entry stays.
#[derive(Clone, Debug)]
enum Serve {
    /// This many bytes, then the connection breaks.
    Cut(usize),
    /// All that is left.
    Rest,
    /// All of it, whatever was asked for.
    Whole,
    /// Other bytes.
    Other,
    /// More than was promised.
    TooMuch,
    Fail(SourceError),
    Hang,
}

struct FakeSource {
    script: RefCell<Vec<Serve>>,
    opened_from: RefCell<Vec<u64>>,
    clock: FakeClock,
}

#[async_trait(?Send)]
impl Source for FakeSource {
    async fn open(&self, _url: &str, from: u64) -> Result<Opened, SourceError> {
        self.opened_from.borrow_mut().push(from);
        let serve = {
            let mut script = self.script.borrow_mut();
            if script.len() > 1 { script.remove(0) } else { script[0].clone() }
        };
        let rest = content().split_off(from as usize);
        let (begins_at, bytes, broken) = match serve {
            Serve::Cut(count) => (from, rest[..count].to_vec(), true),
            Serve::Rest => (from, rest, false),
            Serve::Whole => (0, content(), false),
            Serve::Other => (from, vec![7; rest.len()], false),
            Serve::TooMuch => (from, vec![7; rest.len() + 1], false),
            Serve::Fail(error) => return Err(error),
            Serve::Hang => std::future::pending().await,
        };
        let mut chunks: Vec<_> = bytes.chunks(100).map(|chunk| Ok(chunk.to_vec())).collect();
        if broken {
            chunks.push(Err(SourceError::Cut("connection reset".to_owned())));
        }
        let clock = self.clock.clone();
        let body = stream::iter(chunks).then(move |chunk| {
            let clock = clock.clone();
            async move {
                clock.sleep(0.01).await;
                chunk
            }
        });
        Ok(Opened { begins_at, body: body.boxed_local() })
    }
}

#[derive(Default)]
struct FakeStore {
    files: HashMap<String, Vec<u8>>,
    open: Option<String>,
    room: Option<usize>,
    unavailable: bool,
    /// Emptied by the browser once a file has this many bytes.
    cleared_at: Option<usize>,
    /// What it says that it would still take.
    tells: Option<u64>,
    /// Takes everything and keeps only so many bytes of it.
    keeps: Option<usize>,
    /// What files held when their hashes agreed.
    verified: HashMap<String, Vec<u8>>,
    /// Bytes that were asked for.
    read: usize,
}

#[async_trait(?Send)]
impl FileStore for FakeStore {
    async fn room(&mut self) -> Option<u64> {
        self.tells
    }

    async fn size(&mut self, name: &str) -> Result<Option<u64>, FileStoreError> {
        self.check()?;
        Ok(self.files.get(name).map(|file| file.len() as u64))
    }

    async fn read(&mut self, name: &str, from: u64, len: usize) -> Result<Vec<u8>, FileStoreError> {
        self.check()?;
        self.read += len;
        let file = self.files.get(name).ok_or_else(|| FileStoreError::Unavailable("gone".to_owned()))?;
        Ok(file.iter().skip(from as usize).take(len).copied().collect())
    }

    async fn begin(&mut self, name: &str, keep: u64) -> Result<(), FileStoreError> {
        self.check()?;
        assert_eq!(self.open, None, "a file is still open");
        self.files.entry(name.to_owned()).or_default().truncate(keep as usize);
        self.open = Some(name.to_owned());
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileStoreError> {
        let name = self.open.clone().expect("a file is open");
        if self.cleared_at.is_some_and(|at| self.files.get(&name).is_some_and(|file| file.len() >= at)) {
            self.cleared_at = None;
            self.files.clear();
        }
        // What is written into a file that is gone is gone too, and nobody says so.
        let Some(file) = self.files.get_mut(&name) else { return Ok(()) };
        if self.room.is_some_and(|room| file.len() + bytes.len() > room) {
            return Err(FileStoreError::Full);
        }
        file.extend_from_slice(bytes);
        file.truncate(self.keeps.unwrap_or(usize::MAX));
        Ok(())
    }

    fn end(&mut self) {
        self.open = None;
    }

    async fn delete(&mut self, name: &str) -> Result<(), FileStoreError> {
        assert_eq!(self.open, None, "a file is still open");
        self.files.remove(name);
        Ok(())
    }

    async fn mark_verified(&mut self, name: &str) {
        self.verified.insert(name.to_owned(), self.files[name].clone());
    }

    async fn is_verified(&mut self, name: &str) -> bool {
        self.verified.get(name).is_some_and(|verified| self.files.get(name) == Some(verified))
    }
}

impl FakeStore {
    fn check(&self) -> Result<(), FileStoreError> {
        if self.unavailable { Err(FileStoreError::Unavailable("no OPFS".to_owned())) } else { Ok(()) }
    }

    fn with(part: &[u8]) -> Self {
        Self { files: [(wanted().name, part.to_vec())].into(), ..Self::default() }
    }

    fn is_marked(&self) -> bool {
        self.verified.contains_key(&wanted().name)
    }

    fn stored(&self) -> Option<usize> {
        self.files.get(&wanted().name).map(Vec::len)
    }
}

struct Seen {
    result: Result<StoredFile, DownloadError>,
    opened_from: Vec<u64>,
    progress: Vec<u64>,
}

fn play(store: &mut FakeStore, script: &[Serve], stop_at_s: Option<f64>) -> Seen {
    play_for(&wanted(), store, script, stop_at_s)
}

fn play_for(wanted: &Wanted, store: &mut FakeStore, script: &[Serve], stop_at_s: Option<f64>) -> Seen {
    let clock = FakeClock::default();
    let source =
        FakeSource { script: RefCell::new(script.to_vec()), opened_from: RefCell::default(), clock: clock.clone() };
    let stop = StopFlag::default();
    let mut progress = Vec::new();
    let result = clock.block_on(async {
        let stopper = async {
            if let Some(at_s) = stop_at_s {
                clock.sleep(at_s).await;
                stop.stop();
            }
        };
        let mut note = |received| progress.push(received);
        join(obtain(wanted, &source, store, &clock, &stop, &mut note), stopper).await.0
    });
    assert_eq!(store.open, None, "the file was closed");
    if result == whole() {
        assert_eq!(store.files.get(&wanted.name), Some(&content()), "all of it is in the store");
    }
    Seen { result, opened_from: source.opened_from.into_inner(), progress }
}

fn whole() -> Result<StoredFile, DownloadError> {
    Ok(StoredFile { memory: None, not_kept: None })
}

#[test]
fn a_quiet_download_is_stored_and_found_again_without_a_request() {
    let mut store = FakeStore::default();
    let seen = play(&mut store, &[Serve::Rest], None);
    assert_eq!((seen.result, store.stored()), (whole(), Some(SIZE)));
    assert_eq!((seen.progress.first(), seen.progress.last()), (Some(&0), Some(&1000)));
    let seen = play(&mut store, &[Serve::Fail(SourceError::Status(404))], None);
    assert_eq!((seen.result, seen.opened_from.len()), (whole(), 0));
}

#[test]
fn a_stored_file_is_hashed_once_and_again_when_it_has_changed() {
    let gone = [Serve::Fail(SourceError::Status(404))];
    let mut store = FakeStore::default();
    assert_eq!(play(&mut store, &[Serve::Rest], None).result, whole());
    assert_eq!((play(&mut store, &gone, None).result, store.read), (whole(), 0), "nothing was read for its hash");
    // Somebody wrote into it.
    store.files.get_mut(&wanted().name).expect("stored")[5] ^= 1;
    let seen = play(&mut store, &[Serve::Rest], None);
    assert_eq!((seen.result, seen.opened_from), (whole(), vec![0]));
    // A store that remembers nothing of it.
    let mut store = FakeStore::with(&content());
    assert_eq!((play(&mut store, &gone, None).result, store.read > 0), (whole(), true));
    assert_eq!((play(&mut store, &gone, None).result, store.is_marked()), (whole(), true));
    // Where nobody tells the hash there is none to look at.
    let mut store = FakeStore::with(&content());
    let unhashed = Wanted { sha256: None, ..wanted() };
    let seen = play_for(&unhashed, &mut store, &gone, None);
    assert_eq!((seen.result, store.read, store.is_marked()), (whole(), 0, false));
}

#[test]
fn a_cut_download_goes_on_where_it_was() {
    let mut store = FakeStore::default();
    let gone = Serve::Fail(SourceError::Cut("connection refused".to_owned()));
    let seen = play(&mut store, &[Serve::Cut(300), gone.clone(), Serve::Cut(0), Serve::Cut(250), Serve::Rest], None);
    assert_eq!((seen.result, seen.opened_from), (whole(), vec![0, 300, 300, 300, 550]));
    assert_eq!(store.stored(), Some(SIZE));

    let mut store = FakeStore::default();
    let seen = play(&mut store, &[Serve::Cut(300), gone], None);
    assert_eq!(seen.result, Err(DownloadError::Cut("connection refused".to_owned())));
    assert_eq!((seen.opened_from.len(), store.stored()), (5, Some(300)), "the part is kept");
    let seen = play(&mut store, &[Serve::Rest], None);
    assert_eq!((seen.result, seen.opened_from), (whole(), vec![300]));
}

#[test]
fn a_server_without_ranges_is_started_over_with() {
    let mut store = FakeStore::with(&[9; 400]);
    let seen = play(&mut store, &[Serve::Whole], None);
    assert_eq!((seen.result, seen.opened_from, store.stored()), (whole(), vec![400], Some(SIZE)));
}

#[test]
fn cancelling_keeps_the_part() {
    for (script, kept) in [(Serve::Rest, Some(400)), (Serve::Hang, None)] {
        let mut store = FakeStore::default();
        let seen = play(&mut store, &[script], Some(0.045));
        assert_eq!((seen.result, store.stored()), (Err(DownloadError::Cancelled), kept));
    }
}

#[test]
fn damage_on_the_shelf_heals_and_damage_on_the_server_does_not() {
    for part in [vec![9; 400], vec![9; SIZE], vec![9; SIZE + 5]] {
        let mut store = FakeStore::with(&part);
        let seen = play(&mut store, &[Serve::Rest], None);
        assert_eq!((seen.result, store.stored()), (whole(), Some(SIZE)), "{} bytes in the store", part.len());
    }
    for script in [Serve::Other, Serve::TooMuch] {
        let mut store = FakeStore::default();
        let seen = play(&mut store, &[script], None);
        assert_eq!((seen.result, store.stored()), (Err(DownloadError::Mismatch), None));
    }
}

#[test]
fn a_full_or_missing_shelf_means_memory() {
    let full = FakeStore { room: Some(450), ..FakeStore::default() };
    let missing = FakeStore { unavailable: true, ..FakeStore::default() };
    let unavailable = FileStoreError::Unavailable("no OPFS".to_owned());
    for (mut store, why) in [(full, FileStoreError::Full), (missing, unavailable)] {
        let seen = play(&mut store, &[Serve::Cut(600), Serve::Rest], None);
        assert_eq!(seen.result, Ok(StoredFile { memory: Some(content()), not_kept: Some(why) }));
        assert_eq!((store.stored(), seen.opened_from), (None, vec![0, 600]));
    }
}

#[test]
fn a_file_too_large_for_memory_is_refused_where_it_cannot_be_stored() {
    let large = Wanted { bytes: MOST_IN_MEMORY + 1 + SIZE as u64, ..wanted() };
    let refused = |why| Err(DownloadError::NoRoom { bytes: large.bytes, why });
    // Told before: nothing is fetched, and what is there stays.
    let little = FakeStore { tells: Some(MOST_IN_MEMORY), ..FakeStore::with(&content()[..400]) };
    let missing = FakeStore { unavailable: true, ..FakeStore::default() };
    let unavailable = FileStoreError::Unavailable("no OPFS".to_owned());
    for (mut store, why, stored) in [(little, FileStoreError::Full, Some(400)), (missing, unavailable, None)] {
        let seen = play_for(&large, &mut store, &[Serve::Rest], None);
        assert_eq!((seen.result, seen.opened_from.len(), store.stored()), (refused(why), 0, stored));
    }
    // Found out under way: what has arrived stays.
    let mut store = FakeStore { room: Some(450), tells: Some(u64::MAX), ..FakeStore::default() };
    let seen = play_for(&large, &mut store, &[Serve::Rest], None);
    assert_eq!((seen.result, store.stored()), (refused(FileStoreError::Full), Some(400)));
    // As large, and room enough: nothing is said of it.
    let mut store = FakeStore { tells: Some(large.bytes), ..FakeStore::default() };
    let seen = play_for(&large, &mut store, &[Serve::Cut(0)], None);
    assert_eq!(seen.result, Err(DownloadError::Cut("connection reset".to_owned())));
    let words = refused(FileStoreError::Full).unwrap_err().to_string();
    assert!(words.contains("1.1 GB") && words.contains("drop the file"), "{words}");
}

#[test]
fn what_the_server_says_decides_on_another_try() {
    let seen = play(&mut FakeStore::default(), &[Serve::Fail(SourceError::Status(404))], None);
    assert_eq!((seen.result, seen.opened_from.len()), (Err(DownloadError::Refused(SourceError::Status(404))), 1));
    let seen = play(&mut FakeStore::default(), &[Serve::Fail(SourceError::Status(503)), Serve::Rest], None);
    assert_eq!(seen.result, whole());
    let seen = play(&mut FakeStore::default(), &[Serve::Hang], None);
    assert_eq!(seen.result, Err(DownloadError::Cut("nothing came for 20 seconds".to_owned())));
}

#[test]
fn entries_are_checked() {
    let entry = |file: &str, sha256: &str| ModelEntry {
        id: "compact".to_owned(),
        name: String::new(),
        file: file.to_owned(),
        bytes: 1,
        sha256: sha256.to_owned(),
        parameters: 0,
        quantisation: String::new(),
        context_length: 0,
        cache_width: 0,
        accuracy: Accuracy::default(),
        hallucination: 0.0,
        licence: String::new(),
        corpus_seed: 0,
        preferred: false,
    };
    let hash = "0a".repeat(32);
    let sound = Wanted::from_entry("http://s/models/", &entry("a/compact-q4_0.gguf", &hash)).expect("sound");
    assert_eq!(sound.url, "http://s/models/a/compact-q4_0.gguf");
    let address = "https://hub.example/org/repo/resolve/main/m.gguf";
    let elsewhere = Wanted::from_entry("http://s/models/", &entry(address, &hash)).expect("an address of its own");
    assert_eq!((elsewhere.url.as_str(), &elsewhere.name), (address, &hash));
    for (file, hash) in [
        ("../x", hash.as_str()),
        ("/x", &hash),
        ("http://else/x", &hash),
        ("x", "0A"),
        ("", &hash),
        ("https://", &hash),
    ] {
        assert!(Wanted::from_entry("http://s/models/", &entry(file, hash)).is_err(), "{file} {hash}");
    }
    let huge = Wanted { bytes: u64::MAX, ..wanted() };
    let mut store = FakeStore { unavailable: true, ..FakeStore::default() };
    let seen = play_for(&huge, &mut store, &[Serve::Rest], None);
    let why = FileStoreError::Unavailable("no OPFS".to_owned());
    assert_eq!((seen.result, seen.opened_from.len()), (Err(DownloadError::NoRoom { bytes: u64::MAX, why }), 0));
}

#[test]
fn storage_that_is_cleared_under_way_means_memory() {
    for cleared_at in [100, 600] {
        let mut store = FakeStore { cleared_at: Some(cleared_at), ..FakeStore::default() };
        let seen = play(&mut store, &[Serve::Rest], None);
        let obtained = seen.result.expect("a file");
        assert_eq!(obtained.memory, Some(content()));
        assert!(obtained.not_kept.is_some_and(|why| why.to_string().contains("cleared")));
        assert_eq!(seen.opened_from, [0, 0]);
    }
}

#[test]
fn a_browser_that_drops_bytes_in_silence_means_memory() {
    let mut store = FakeStore { keeps: Some(450), ..FakeStore::default() };
    let seen = play(&mut store, &[Serve::Rest], None);
    let obtained = seen.result.expect("a file");
    assert_eq!((obtained.memory, store.stored()), (Some(content()), None));
    assert!(obtained.not_kept.is_some_and(|why| why.to_string().contains("450 of 1000")));
}

#[test]
fn a_file_without_a_known_hash_is_known_by_address_size_and_version() {
    let of = |bytes, version| Wanted::from_url("http://elsewhere/m.gguf", bytes, version, None);
    let file = of(SIZE as u64, "\"v1\"");
    assert!(file.name.starts_with(&url_prefix("http://elsewhere/m.gguf")) && !is_sha256(&file.name));
    assert!(file.name != of(SIZE as u64, "\"v2\"").name && file.name != of(1, "\"v1\"").name);
    let mut store = FakeStore::default();
    let seen = play_for(&file, &mut store, &[Serve::Cut(300), Serve::Rest], None);
    assert_eq!((seen.result, seen.opened_from), (whole(), vec![0, 300]));
    let seen = play_for(&file, &mut store, &[Serve::Hang], None);
    assert_eq!((seen.result, seen.opened_from.len()), (whole(), 0));
    let known = Wanted::from_url("http://elsewhere/m.gguf", 5, "", wanted().sha256);
    assert_eq!(known.name, wanted().name, "the same file from elsewhere");
}

#[test]
fn the_files_of_a_folder_are_known_by_the_folder() {
    let folder = "http://elsewhere/smol/";
    let of = |name: &str, version| Wanted::from_url(&format!("{folder}{name}"), 7, version, None).in_folder(folder);
    let (config, tokenizer) = (of("config.json", "a"), of("tokenizer.json", "a"));
    for file in [&config, &tokenizer] {
        assert!(file.name.starts_with(&url_prefix(folder)) && file.name.starts_with(&file_prefix(folder, &file.url)));
    }
    assert!(config.name != tokenizer.name && config.name != of("config.json", "b").name);
    // Compressed on its way: another length, and otherwise the same name.
    let longer = config.clone().of_length(90);
    let rest = longer.name.strip_prefix(&file_prefix(folder, &config.url)).expect("the same file");
    assert_eq!((rest.split('-').next(), longer.bytes, &longer.url), (Some("90"), 90, &config.url));
    assert_eq!(config.clone().of_length(7), config);
}
