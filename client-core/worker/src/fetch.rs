//! HTTP requests from a worker. Dropping a request, its reply or the reply's body cancels it.

use futures::StreamExt;
use futures::stream::LocalBoxStream;
use js_sys::Uint8Array;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortController, ReadableStreamDefaultReader, RequestCache, RequestInit, Response, WorkerGlobalScope};

use super::message::{describe, property};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// Absolute URL.
    pub url: &'a str,
    /// JSON to post; `None` is a GET.
    pub json: Option<String>,
    /// First byte that is wanted; 0 for all.
    pub from: u64,
}

/// A reply whose body has not been read.
#[derive(Debug)]
pub struct Reply {
    response: Response,
    guard: AbortOnDrop,
}

#[derive(Debug)]
struct AbortOnDrop(AbortController);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        // Without effect on a request that is over.
        self.0.abort();
    }
}

/// Sends a request and waits for the reply's head.
///
/// # Errors
/// There was no reply; says why in words. A status that is no success is a reply.
pub async fn send(ask: Ask<'_>) -> Result<Reply, String> {
    let words = |error: JsValue| describe(&error);
    let guard = AbortOnDrop(AbortController::new().map_err(words)?);
    let init = RequestInit::new();
    init.set_signal(Some(&guard.0.signal()));
    // State and answers are always fresh, and a model is kept by us: the HTTP cache would only hold it twice.
    init.set_cache(RequestCache::NoStore);
    let headers = web_sys::Headers::new().map_err(words)?;
    if let Some(json) = &ask.json {
        init.set_method("POST");
        init.set_body(&JsValue::from_str(json));
        headers.set("content-type", "application/json").map_err(words)?;
    }
    if ask.from > 0 {
        headers.set("range", &format!("bytes={}-", ask.from)).map_err(words)?;
    }
    init.set_headers(&headers);
    let scope: WorkerGlobalScope = js_sys::global().dyn_into().map_err(|_| "not in a worker".to_owned())?;
    // Browsers keep the cause to themselves ("Failed to fetch").
    let refused = |_| "no connection".to_owned();
    let response = JsFuture::from(scope.fetch_with_str_and_init(ask.url, &init)).await.map_err(refused)?;
    let response: Response = response.dyn_into().map_err(words)?;
    Ok(Reply { response, guard })
}

/// The text of a successful reply to a GET.
///
/// # Errors
/// No reply, or a status that is no success; says so in words.
pub async fn text(url: &str) -> Result<String, String> {
    let reply = send(Ask { url, ..Ask::default() }).await?;
    match reply.status() {
        200..=299 => reply.text().await,
        status => Err(format!("the server answered {status}")),
    }
}

/// The bytes of a successful reply to a GET, at most `limit`.
///
/// # Errors
/// As [`text`], and a body over the limit.
pub async fn bytes(url: &str, limit: usize) -> Result<Vec<u8>, String> {
    let reply = send(Ask { url, ..Ask::default() }).await?;
    if !(200..=299).contains(&reply.status()) {
        return Err(format!("the server answered {}", reply.status()));
    }
    let mut chunks = reply.chunks()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > limit {
            return Err(format!("the file is longer than {limit} bytes"));
        }
    }
    Ok(bytes)
}

impl Reply {
    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status()
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name).ok().flatten()
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// The connection broke off.
    pub async fn text(self) -> Result<String, String> {
        let words = |error: JsValue| describe(&error);
        let text = JsFuture::from(self.response.text().map_err(words)?).await.map_err(words)?;
        drop(self.guard);
        Ok(text.as_string().unwrap_or_default())
    }

    /// The body as it arrives.
    ///
    /// # Errors
    /// The reply has no body.
    pub fn chunks(self) -> Result<LocalBoxStream<'static, Result<Vec<u8>, String>>, String> {
        let body = self.response.body().ok_or("the reply has no body")?;
        let reader: ReadableStreamDefaultReader =
            body.get_reader().dyn_into().map_err(|_| "the reply's body cannot be read")?;
        let stream = futures::stream::unfold(Some((reader, self.guard)), |state| async move {
            let (reader, guard) = state?;
            match JsFuture::from(reader.read()).await {
                Err(error) => Some((Err(describe(&error)), None)),
                Ok(result) => {
                    let done = property(&result, "done").is_some_and(|done| done.is_truthy());
                    let chunk = property(&result, "value").and_then(|value| value.dyn_into::<Uint8Array>().ok());
                    if done {
                        return None;
                    }
                    Some((Ok(chunk.map(|chunk| chunk.to_vec()).unwrap_or_default()), Some((reader, guard))))
                }
            }
        });
        // Whoever asks again after the end is told that it is over.
        Ok(stream.fuse().boxed_local())
    }
}
