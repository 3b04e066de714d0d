//! Downloads from a site with the troubles of real ones, in this process.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as At, State};
use axum::http::{HeaderMap, StatusCode, header as names};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::*;

const SIZE: usize = 300_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 31 % 251) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Default)]
struct Asked {
    count: Arc<AtomicUsize>,
    /// First bytes that were asked for.
    from: Arc<Mutex<Vec<u64>>>,
}

/// What is sent depends on the file's name and on how often it was asked for.
async fn file(State(asked): State<Asked>, At(name): At<String>, headers: HeaderMap) -> Response {
    let nth = asked.count.fetch_add(1, Ordering::SeqCst);
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let from: usize = text(names::RANGE).trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or_default();
    asked.from.lock().unwrap().push(from as u64);
    let whole = if name == "changes.gguf" && nth > 0 { vec![9; SIZE] } else { content() };
    let tag = match name.as_str() {
        "changes.gguf" => format!("v{}", nth.min(1)),
        "hashed.gguf" => sha256(&whole),
        _ => "v1".to_owned(),
    };
    let if_range = text(names::IF_RANGE);
    let from = if if_range.is_empty() || if_range == format!("\"{tag}\"") { from } else { 0 };
    match name.as_str() {
        "401.gguf" => return StatusCode::UNAUTHORIZED.into_response(),
        "403.gguf" => return StatusCode::FORBIDDEN.into_response(),
        "private.gguf" if text(names::AUTHORIZATION) != "Bearer key" => return StatusCode::FORBIDDEN.into_response(),
        "500.gguf" => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "429.gguf" if nth == 0 => return (StatusCode::TOO_MANY_REQUESTS, [(names::RETRY_AFTER, "1")]).into_response(),
        "429-long.gguf" => return (StatusCode::TOO_MANY_REQUESTS, [(names::RETRY_AFTER, "900")]).into_response(),
        // More seconds than can be added up.
        "429-ever.gguf" => {
            return (StatusCode::TOO_MANY_REQUESTS, [(names::RETRY_AFTER, "18446744073709551615")]).into_response();
        }
        "none.gguf" => return StatusCode::NOT_FOUND.into_response(),
        "endless.gguf" => {
            return Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>()).into_response();
        }
        _ => {}
    }
    // A third at a time, then the connection breaks off.
    let cuts = matches!(name.as_str(), "cut.gguf" | "changes.gguf" | "ignores.gguf");
    let ignores = name == "ignores.gguf";
    let from = if ignores { 0 } else { from };
    let end = if cuts && !(ignores && nth > 0) { (from + SIZE / 3).min(SIZE) } else { SIZE };
    let hangs = name == "hangs.gguf";
    let end = if hangs { from + 1000 } else { end };
    let sent = Bytes::from(whole[from..end].to_vec());
    let pieces = futures::stream::unfold(Some(sent), move |sent| async move {
        match sent {
            Some(sent) => Some((Ok(sent), None)),
            None if hangs => std::future::pending().await,
            None if end < SIZE => {
                // What was sent before should arrive before the break is noticed.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(std::io::Error::other("cut")), None))
            }
            None => None,
        }
    });
    // One error ends the body.
    let body = Body::from_stream(pieces);
    let mut out = HeaderMap::new();
    out.insert(names::CONTENT_LENGTH, (SIZE - from).into());
    out.insert(names::ETAG, format!("\"{tag}\"").parse().unwrap());
    if from == 0 {
        return (out, body).into_response();
    }
    out.insert(names::CONTENT_RANGE, format!("bytes {from}-{}/{SIZE}", SIZE - 1).parse().unwrap());
    (StatusCode::PARTIAL_CONTENT, out, body).into_response()
}

struct Fixture {
    site: Site,
    asked: Asked,
    folder: tempfile::TempDir,
    stop: Stop,
}

impl Fixture {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let router = Router::new().route("/{name}", get(file)).with_state(asked.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let site = Site::new(&base, vec!["*".to_owned()], None, Duration::from_secs(5)).unwrap();
        Self { site, asked, folder: tempfile::tempdir().unwrap(), stop: Stop::default() }
    }

    fn to(&self) -> PathBuf {
        self.folder.path().join("org/repo/m.gguf")
    }

    async fn fetch(&self, address: &str, bytes: Option<u64>, sha256: Option<&str>) -> Result<u64, HubError> {
        let wanted = Wanted { name: "the model", address, bytes, sha256 };
        download(&self.site, &wanted, &self.to(), &self.stop, &mut |_, _| {}).await
    }

    fn from(&self) -> Vec<u64> {
        self.asked.from.lock().unwrap().clone()
    }

    fn part(&self) -> u64 {
        std::fs::metadata(part_path(&self.to())).map_or(0, |meta| meta.len())
    }
}

#[tokio::test]
async fn a_file_arrives_under_its_name_with_its_checksum_beside_it() {
    let fixture = Fixture::start().await;
    let sum = sha256(&content());
    let mut told = Vec::new();
    let wanted = Wanted { name: "m", address: "good.gguf", bytes: Some(SIZE as u64), sha256: Some(&sum) };
    let mut report = |received: u64, total: u64| told.push((received, total));
    let total = download(&fixture.site, &wanted, &fixture.to(), &fixture.stop, &mut report).await.unwrap();
    assert_eq!((total, std::fs::read(fixture.to()).unwrap()), (SIZE as u64, content()));
    assert_eq!((told.first(), told.last()), (Some(&(0, SIZE as u64)), Some(&(SIZE as u64, SIZE as u64))));
    assert!(told.is_sorted());
    let left: Vec<_> = std::fs::read_dir(fixture.to().parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "the file and its tag: {left:?}");
    assert_eq!(std::fs::read_to_string(tag_path(&fixture.to())).unwrap(), sum);
}

#[tokio::test]
async fn a_cut_download_goes_on_where_it_was() {
    let fixture = Fixture::start().await;
    fixture.fetch("cut.gguf", None, Some(&sha256(&content()))).await.unwrap();
    assert_eq!(std::fs::read(fixture.to()).unwrap(), content());
    let from = fixture.from();
    assert!(from.len() >= 3 && from.is_sorted() && from[1] > 0, "{from:?}");
}

#[tokio::test]
async fn what_an_earlier_process_left_is_gone_on_with() {
    let fixture = Fixture::start().await;
    std::fs::create_dir_all(fixture.to().parent().unwrap()).unwrap();
    std::fs::write(part_path(&fixture.to()), &content()[..1234]).unwrap();
    fixture.fetch("good.gguf", None, Some(&sha256(&content()))).await.unwrap();
    assert_eq!((fixture.from(), std::fs::read(fixture.to()).unwrap()), (vec![1234], content()));
    // All of it was here, but for its name.
    std::fs::remove_file(fixture.to()).unwrap();
    std::fs::write(part_path(&fixture.to()), content()).unwrap();
    fixture.fetch("good.gguf", Some(SIZE as u64), Some(&sha256(&content()))).await.unwrap();
    assert_eq!((fixture.from().len(), fixture.to().is_file()), (1, true), "nothing was asked for");
}

#[tokio::test]
async fn half_of_another_version_is_not_gone_on_with() {
    let fixture = Fixture::start().await;
    // The site has another file from the second request on.
    fixture.fetch("changes.gguf", None, Some(&sha256(&[9; SIZE]))).await.unwrap();
    assert_eq!(std::fs::read(fixture.to()).unwrap(), [9; SIZE]);
}

#[tokio::test]
async fn a_site_without_ranges_is_started_over_with() {
    let fixture = Fixture::start().await;
    fixture.fetch("ignores.gguf", None, Some(&sha256(&content()))).await.unwrap();
    assert_eq!(std::fs::read(fixture.to()).unwrap(), content());
    assert_eq!(fixture.from().len(), 2);
}

#[tokio::test]
async fn another_file_is_refused_before_or_after_it_has_come() {
    let fixture = Fixture::start().await;
    let other = sha256(b"something else");
    for (address, bytes, said, asked) in [
        ("good.gguf", None, "what arrived", 1),
        // The site itself says what it has.
        ("hashed.gguf", None, "there is", 2),
        ("good.gguf", Some(7), "300000 bytes there, not 7", 3),
    ] {
        let error = fixture.fetch(address, bytes, Some(&other)).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, HubError::Differs { .. }) && text.contains(said), "{text}");
        assert_eq!((fixture.to().exists(), fixture.part(), fixture.from().len()), (false, 0, asked), "{text}");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let fixture = Fixture::start().await;
    for (address, said) in [
        ("401.gguf", "accept its licence"),
        ("403.gguf", "HF_TOKEN"),
        ("none.gguf", "no file the model"),
        ("429-long.gguf", "try again in 900 s"),
        ("429-ever.gguf", "try again in 86400 s"),
        ("500.gguf", "500"),
        ("endless.gguf", "how large"),
    ] {
        let text = fixture.fetch(address, None, None).await.unwrap_err().to_string();
        assert!(text.contains(said), "{address}: {text}");
        assert!(!fixture.to().exists());
    }
    let site = Site::new(fixture.site.base().as_str(), Vec::new(), Some("key".into()), Duration::from_secs(5)).unwrap();
    let wanted = Wanted { name: "m", address: "private.gguf", bytes: None, sha256: None };
    download(&site, &wanted, &fixture.to(), &fixture.stop, &mut |_, _| {}).await.unwrap();
    let gone = Site::new("http://127.0.0.1:9", Vec::new(), None, Duration::from_secs(5)).unwrap();
    let error = download(&gone, &wanted, &fixture.to(), &fixture.stop, &mut |_, _| {}).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_site_that_says_when_to_come_back_is_waited_for() {
    let fixture = Fixture::start().await;
    let start = std::time::Instant::now();
    fixture.fetch("429.gguf", None, Some(&sha256(&content()))).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_person_stops_it_and_what_has_come_is_kept() {
    let fixture = Fixture::start().await;
    let stop = Arc::clone(&fixture.stop);
    let wanted = Wanted { name: "m", address: "hangs.gguf", bytes: None, sha256: None };
    let mut report = |received: u64, _: u64| stop.store(received == 1000, Ordering::Relaxed);
    let error = download(&fixture.site, &wanted, &fixture.to(), &fixture.stop, &mut report).await.unwrap_err();
    assert_eq!((error, fixture.part()), (HubError::Stopped, 1000));
    fixture.stop.store(false, Ordering::Relaxed);
    fixture.fetch("good.gguf", None, Some(&sha256(&content()))).await.unwrap();
    assert_eq!(fixture.from().last(), Some(&1000));
}

#[tokio::test]
async fn a_file_on_this_machine_is_taken_in() {
    let fixture = Fixture::start().await;
    let source = fixture.folder.path().join("mine.gguf");
    std::fs::write(&source, content()).unwrap();
    let other = sha256(b"something else");
    for (sum, whole) in [(&other, false), (&sha256(&content()), true)] {
        let wanted = Wanted { name: "m", address: "", bytes: None, sha256: Some(sum) };
        let taken = take_in(&source, &wanted, &fixture.to(), &fixture.stop, &mut |_, _| {}).await;
        assert_eq!((taken.is_ok(), fixture.to().is_file(), fixture.part()), (whole, whole, 0), "{taken:?}");
    }
    let wanted = Wanted { name: "m", address: "", bytes: None, sha256: None };
    let none = take_in(&source.with_extension("x"), &wanted, &fixture.to(), &fixture.stop, &mut |_, _| {}).await;
    assert!(none.unwrap_err().to_string().contains("mine.x"));
}

#[tokio::test]
async fn only_one_process_writes_a_file() {
    let fixture = Fixture::start().await;
    std::fs::create_dir_all(fixture.to().parent().unwrap()).unwrap();
    let other = std::fs::File::create(part_path(&fixture.to())).unwrap();
    other.lock().unwrap();
    assert_eq!(fixture.fetch("good.gguf", None, None).await, Err(HubError::Taken("the model".into())));
    drop(other);
    fixture.fetch("good.gguf", None, None).await.unwrap();
}

/// `/dev/full` takes no byte, as a full disk does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let fixture = Fixture::start().await;
    std::fs::create_dir_all(fixture.to().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", part_path(&fixture.to())).unwrap();
    let error = fixture.fetch("good.gguf", None, None).await.unwrap_err();
    assert_eq!(error, HubError::DiskFull { name: "the model".into(), left: SIZE as u64 });
    assert!(error.to_string().contains("the same command goes on"), "{error}");
}

#[test]
fn ranges_are_read() {
    for (text, range) in
        [("bytes 5-9/10", Some((5, 10))), ("bytes 5-9/*", None), ("bytes */10", None), ("5-9/10", None), ("", None)]
    {
        assert_eq!(range_of(text), range, "{text}");
    }
}
