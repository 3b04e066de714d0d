//! A hub, or any other address that files come from, as it is asked: by whom, with which token, and where it may send us.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, ETAG, HeaderMap, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use super::HubError;

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Longest entity tag that is kept, letters.
const MAX_TAG: usize = 128;
/// When to come back where a site that has too much to do does not say it, seconds.
const USUAL_WAIT_S: u64 = 30;
/// No site is taken at its word for longer than this.
const MOST_WAIT_S: u64 = 86_400;

/// Where files come from.
#[derive(Clone, Debug)]
pub struct Site {
    base: Url,
    /// Hosts beside the base's own that it may redirect to; `*` for all.
    hosts: Vec<String>,
    /// Bearer token for the base's own host.
    token: Option<String>,
    client: reqwest::Client,
    silence: Duration,
}

/// What of a file is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest<'a> {
    /// First byte; 0 for all of it.
    pub(super) from: u64,
    /// Only if the file still has this entity tag; empty where none is known.
    pub(super) tag: &'a str,
}

/// What a site answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// With its body unread.
    pub(super) response: Response,
    /// The file's version, without quotes; a redirect's goes before that of where it led.
    pub(super) tag: String,
    /// Whether only a part was asked for.
    is_part: bool,
}

impl Answer {
    /// The file's SHA-256 where its version is one, as on hubs that keep large files elsewhere.
    pub(super) fn sha256(&self) -> Option<String> {
        let is_sha256 = self.tag.len() == 64 && self.tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sha256.then(|| self.tag.to_lowercase())
    }

    /// The file, or the part of it that was asked for.
    ///
    /// # Errors
    /// The site gives none; `name` is what the file is called in the words.
    pub(super) fn granted(self, name: &str) -> Result<Self, HubError> {
        let name = name.to_owned();
        match self.response.status() {
            StatusCode::OK => Ok(self),
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if self.is_part => Ok(self),
            StatusCode::NOT_FOUND => Err(HubError::NotFound(name)),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(HubError::Refused { name, status: status.as_u16() })
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let told = header(self.response.headers(), RETRY_AFTER.as_str()).and_then(|told| told.parse().ok());
                Err(HubError::Later { retry_after_s: told.unwrap_or(USUAL_WAIT_S).min(MOST_WAIT_S) })
            }
            status => Err(HubError::Upstream(format!("it answered {status}"))),
        }
    }
}

impl Site {
    /// A site by its address. Nothing is asked yet.
    ///
    /// # Errors
    /// It is no HTTP address.
    pub fn new(base: &str, hosts: Vec<String>, token: Option<String>, silence: Duration) -> Result<Self, HubError> {
        let base = format!("{}/", base.trim_end_matches('/'));
        let base = Url::parse(&base).map_err(|error| HubError::Config(format!("{base}: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(HubError::Config(format!("{base} is no http:// or https:// address")));
        }
        // Each redirect is looked at before it is followed.
        crate::tls::install_provider();
        let mut client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(silence)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| HubError::Config(error.to_string()))?;
        Ok(Self { base, hosts, token, client, silence })
    }

    /// Its address, with a slash at the end.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Asks for what is at `address`, relative to the base. Nothing of the body is read.
    ///
    /// # Errors
    /// There is no answer, or it leads where it may not.
    pub(super) async fn ask(&self, address: &str, rest: Rest<'_>) -> Result<Answer, HubError> {
        let late = |_| HubError::Upstream("it does not answer in time".into());
        tokio::time::timeout(self.silence, self.follow(address, rest)).await.map_err(late)?
    }

    async fn follow(&self, address: &str, rest: Rest<'_>) -> Result<Answer, HubError> {
        let mut url = self.base.join(address).map_err(|error| HubError::Config(error.to_string()))?;
        let mut linked = None;
        let mut redirects = 0;
        let response = loop {
            // Lengths and ranges are those of the file itself.
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| url.origin() == self.base.origin()) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if rest.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", rest.from));
            }
            // The tag is that of the redirect; where it led, another one may be in use.
            if rest.from > 0 && !rest.tag.is_empty() && linked.is_none() {
                request = request.header(IF_RANGE, format!("\"{}\"", rest.tag));
            }
            let response = request.send().await.map_err(|error| HubError::Upstream(words(&error)))?;
            // Hubs that keep large files elsewhere name their checksum in the redirect only.
            linked = linked.or_else(|| header(response.headers(), "x-linked-etag"));
            if !response.status().is_redirection() {
                break response;
            }
            redirects += 1;
            let location = header(response.headers(), LOCATION.as_str());
            let next = location.and_then(|location| url.join(&location).ok());
            url =
                next.filter(|_| redirects <= MAX_REDIRECTS).ok_or_else(|| HubError::Upstream("it redirects".into()))?;
            if !self.allows(&url) {
                return Err(HubError::Redirect(url.host_str().unwrap_or_default().to_owned()));
            }
        };
        let tag = linked.or_else(|| header(response.headers(), ETAG.as_str())).unwrap_or_default();
        let tag = tag.trim_start_matches("W/").trim_matches('"').chars().filter(is_tag).take(MAX_TAG).collect();
        Ok(Answer { response, tag, is_part: rest.from > 0 })
    }

    /// Whether it may send us there: not from an encrypted to an open connection, and to named hosts only.
    fn allows(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let named = self.hosts.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host));
        (url.scheme() == "https" || url.scheme() == self.base.scheme()) && (url.origin() == self.base.origin() || named)
    }
}

/// A header's value.
pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
}

fn is_tag(letter: &char) -> bool {
    letter.is_ascii_graphic() && *letter != '"'
}

/// What went wrong, without the address: it may hold a signature.
pub(super) fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "it does not answer in time".to_owned()
    } else if error.is_connect() {
        "it cannot be reached".to_owned()
    } else {
        "the connection broke off".to_owned()
    }
}
