//! Another OpenAI-compatible engine writes the answers: vLLM, llama.cpp server, or a second Tandem.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`request`] | what the engine is asked: what our client asked for, and no more |
//! | [`answer`] | what it answers, as our events |
//! | `chunk` | the JSON of that, of which only what is used is kept |
//! | [`trouble`] | its errors, in its own words and ours |
//!
//! Every request goes out as a stream, also where our own client wants one answer in a piece: when that client leaves,
//! the connection to the engine is closed, and the engine stops. Events are read and written anew, not copied, so that
//! the engine's answer looks the same to a client whichever engine it is, and is counted in our metrics.
//!
//! An engine is somebody else's program: how much is read of it, and where it may send us, is bounded. So is how much is
//! asked of it at once: what goes beyond waits here, where a client that leaves costs nothing.
//!
//! Deliberately absent: retries (a half-written answer cannot be repeated unseen; a client that wants to retry knows
//! better) and balancing over several engines.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use client::protocol::health::HostKind;
use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, mpsc};

use super::retry::Pace;
use super::{Generation, GenerationStream, Host, HostError, Load, ModelCard, Prompt};

pub mod answer;
mod chunk;
pub mod request;
pub mod trouble;

use trouble::{Trouble, checked, read_bounded, transport};

/// Events that may wait for a slow client before the engine is held back by TCP; one may have a megabyte.
const EVENT_BUFFER: usize = 4;
/// Most of a list of models that is read.
const MAX_LIST_BYTES: usize = 4 << 20;
/// Most redirects that are followed, all on the engine's own origin.
const MAX_REDIRECTS: usize = 5;
/// An engine that did not say which models it has is not asked again before.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Longest time that [`Host::model_now`] takes.
const AT_A_GLANCE: Duration = Duration::from_millis(20);

/// Where the engine is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Base URL, with or without `/v1`.
    pub url: String,
    /// Model name to ask for; the first that the engine lists where none is given.
    pub model: Option<String>,
    /// Bearer token.
    pub api_key: Option<String>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence, the one before the first token included.
    pub read_timeout: Duration,
    /// Requests that the engine gets at the same time.
    pub slots: usize,
    /// Requests that may wait here.
    pub queue: usize,
}

/// A [`Host`] that hands everything on.
#[derive(Debug)]
pub struct UpstreamHost {
    client: reqwest::Client,
    base: reqwest::Url,
    config: UpstreamConfig,
    discovered: OnceCell<ModelCard>,
    /// When and why the engine last did not say which models it has.
    failed: Mutex<Option<(Instant, HostError)>>,
    /// Fields that we send of ourselves and that this engine has refused.
    refused: Mutex<Vec<&'static str>>,
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    pace: Arc<Mutex<Pace>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl UpstreamHost {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// [`HostError::Invalid`] when the URL is none, or TLS cannot be set up.
    pub fn new(config: UpstreamConfig) -> Result<Self, HostError> {
        let invalid = |why: String| HostError::Invalid(format!("upstream URL {:?}: {why}", config.url));
        // Parsed as it stands first: "http://" with a path behind it would be taken for a host of that name.
        reqwest::Url::parse(&config.url).map_err(|error| invalid(error.to_string()))?;
        let trimmed = config.url.trim_end_matches('/').trim_end_matches("/v1");
        let base = reqwest::Url::parse(&format!("{trimmed}/v1/")).map_err(|error| invalid(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(invalid("it has to begin with http:// or https://".into()));
        }
        // A prompt goes where the owner of this server sent it, and nowhere else.
        let origin = base.origin();
        let at_home = reqwest::redirect::Policy::custom(move |attempt| {
            match attempt.url().origin() == origin && attempt.previous().len() <= MAX_REDIRECTS {
                true => attempt.follow(),
                false => attempt.stop(),
            }
        });
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.read_timeout)
            .redirect(at_home)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "http" {
            // No certificate is looked at; a machine without a certificate store can still reach a plain engine.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        crate::tls::install_provider();
        let client = builder.build().map_err(|error| invalid(trouble::chain(&error)))?;
        let places = Arc::new(Semaphore::new(config.slots.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Self {
            client,
            base,
            config,
            discovered: OnceCell::new(),
            failed: Mutex::default(),
            refused: Mutex::default(),
            places,
            waiting: AtomicUsize::new(0),
            pace: Arc::default(),
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> Result<reqwest::RequestBuilder, HostError> {
        let url = self.base.join(path).map_err(|error| HostError::Upstream(error.to_string()))?;
        let request = self.client.request(method, url);
        Ok(match &self.config.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        })
    }

    /// Asks the engine which models it has, once it answers; the result is kept.
    ///
    /// # Errors
    /// When the engine does not answer or lists no model.
    pub async fn discover(&self) -> Result<ModelCard, HostError> {
        let ask = || async {
            // Those who waited for the last attempt need none of their own.
            if let Some((when, error)) = &*lock(&self.failed)
                && when.elapsed() < ASK_AGAIN
            {
                return Err(error.clone());
            }
            let asked = self.ask_for_models().await;
            if let Err(error) = &asked {
                *lock(&self.failed) = Some((Instant::now(), error.clone()));
            }
            asked
        };
        self.discovered.get_or_try_init(ask).await.cloned()
    }

    async fn ask_for_models(&self) -> Result<ModelCard, HostError> {
        let response = self
            .request(reqwest::Method::GET, "models")?
            .timeout(self.config.connect_timeout)
            .send()
            .await
            .map_err(|error| transport(&error))?;
        let wanted = self.config.model.as_deref();
        let list: Value = match checked(response).await.map_err(|trouble| trouble.error) {
            Ok(response) => {
                let bytes = read_bounded(Vec::new(), response, MAX_LIST_BYTES).await?;
                serde_json::from_slice(&bytes)
                    .map_err(|_| HostError::Upstream("its list of models is not JSON".to_owned()))?
            }
            // An engine without such a list still answers to the name that it was started with.
            Err(HostError::Upstream(_)) if wanted.is_some() => Value::Null,
            Err(error) => return Err(error),
        };
        let models = list["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        let entry = match wanted {
            Some(name) => models.iter().find(|model| model["id"] == name),
            None => models.first(),
        };
        let id = match (entry.and_then(|model| model["id"].as_str()), wanted) {
            (Some(id), _) => id.to_owned(),
            // Some engines list one name and answer to another.
            (None, Some(name)) => name.to_owned(),
            (None, None) => return Err(HostError::Upstream("it lists no model; name one".into())),
        };
        // vLLM says `max_model_len`, Tandem `context_length`, llama.cpp `meta.n_ctx`; older ones of it only what the model
        // was trained for.
        let context_length = entry.and_then(|model| {
            let meta = &model["meta"];
            [&model["max_model_len"], &model["context_length"], &meta["n_ctx"], &meta["n_ctx_train"]]
                .into_iter()
                .find_map(Value::as_u64)
        });
        Ok(ModelCard {
            // A path (llama.cpp's default name) is no name for people.
            name: id.rsplit(['/', '\\']).next().unwrap_or(&id).to_owned(),
            id,
            context_length: context_length.and_then(|length| usize::try_from(length).ok()),
            parameters: entry.and_then(|model| model["meta"]["n_params"].as_u64()),
        })
    }

    fn unknown_model(&self) -> ModelCard {
        let id = self.config.model.clone().unwrap_or_else(|| "upstream".into());
        ModelCard { name: id.clone(), id, context_length: None, parameters: None }
    }

    /// Waits for a place at the engine.
    async fn place(&self) -> Result<Place, HostError> {
        let place = |permit| Place { _permit: permit, pace: Arc::clone(&self.pace), begun: Instant::now() };
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place(permit));
        }
        let _waiting = Waiting::enter(&self.waiting, self.config.queue).map_err(|waiting| HostError::Busy {
            waiting,
            retry_after_s: lock(&self.pace).retry_after_s(waiting, self.config.slots),
        })?;
        // It is never closed.
        Arc::clone(&self.places).acquire_owned().await.map(place).map_err(|_| HostError::ShuttingDown)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response, Trouble> {
        let sent = async {
            let request = self.request(reqwest::Method::POST, path)?.json(body);
            request.send().await.map_err(|error| transport(&error))
        };
        checked(sent.await?).await
    }
}

#[async_trait]
impl Host for UpstreamHost {
    fn kind(&self) -> HostKind {
        HostKind::Upstream
    }

    async fn model(&self) -> ModelCard {
        match self.discover().await {
            Ok(card) => card,
            Err(error) => {
                tracing::warn!(%error, "the upstream engine does not say which model it has");
                self.unknown_model()
            }
        }
    }

    async fn known_model(&self) -> Result<ModelCard, HostError> {
        self.discover().await
    }

    async fn model_now(&self) -> ModelCard {
        match tokio::time::timeout(AT_A_GLANCE, self.discover()).await {
            Ok(Ok(card)) => card,
            _ => self.unknown_model(),
        }
    }

    fn load(&self) -> Load {
        let slots = self.config.slots.max(1);
        Load {
            slots,
            active: slots.saturating_sub(self.places.available_permits()),
            waiting: self.waiting.load(Ordering::Relaxed),
            capacity: self.config.queue,
        }
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        let model = self.discover().await?.id;
        let place = self.place().await?;
        let (path, is_chat) = match generation.prompt {
            Prompt::Chat { .. } => ("chat/completions", true),
            Prompt::Text(_) | Prompt::Controlled(_) | Prompt::Tokens(_) => ("completions", false),
        };
        let asked = answer::Asked { is_chat, scores: generation.sampling.logprobs.is_some() };
        let mut body = request::body(&model, generation);
        for field in lock(&self.refused).iter() {
            request::without(&mut body, field);
        }
        let response = match self.post(path, &body).await {
            Ok(response) => response,
            Err(trouble) => {
                // A strict engine: what we added of ourselves it does not get again.
                let refused: Vec<_> = request::OWN.into_iter().filter(|field| trouble.is_about(field, &body)).collect();
                if refused.is_empty() {
                    return Err(trouble.error);
                }
                for field in &refused {
                    request::without(&mut body, field);
                }
                let response = self.post(path, &body).await.map_err(|again| again.error)?;
                lock(&self.refused).extend(refused);
                response
            }
        };
        let (sender, receiver) = mpsc::channel(EVENT_BUFFER);
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                // The client is gone: dropping the response closes the connection, and the engine stops.
                () = sender.closed() => {}
                () = answer::relay(response, asked, &sender) => {}
            }
        });
        Ok(receiver)
    }
}

/// A place at the engine, given back when it is dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    pace: Arc<Mutex<Pace>>,
    begun: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.pace).took(self.begun.elapsed());
    }
}

/// One that waits for a place.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Counts one more, unless there are as many as may be; then how many there are.
    fn enter(waiting: &'a AtomicUsize, capacity: usize) -> Result<Self, usize> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < capacity).then_some(now + 1))
            .map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Result<UpstreamHost, HostError> {
        let wait = Duration::from_secs(1);
        UpstreamHost::new(UpstreamConfig {
            url: url.into(),
            model: None,
            api_key: None,
            connect_timeout: wait,
            read_timeout: wait,
            slots: 1,
            queue: 0,
        })
    }

    #[test]
    fn base_urls_with_and_without_v1() {
        for url in ["http://127.0.0.1:9", "http://127.0.0.1:9/", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/"] {
            assert_eq!(upstream(url).unwrap().base.as_str(), "http://127.0.0.1:9/v1/");
        }
        assert_eq!(upstream("http://h/api/v1").unwrap().base.as_str(), "http://h/api/v1/");
        for url in ["", "127.0.0.1:9", "ftp://h", "http://"] {
            assert!(matches!(upstream(url), Err(HostError::Invalid(_))), "{url}");
        }
    }
}
