//! Page, models and policies over HTTP.

use super::{Server, Setup};

const HASHED: &str = "page/web-0123456789abcdef.js";

#[tokio::test]
async fn a_page_with_all_its_headers() {
    let server = Server::start();
    server.write(
        "page/index.html",
        "<link href=/web-0123456789abcdef.js><link href='/web-0123456789abcdef_bg.wasm'><link href=/late-123456789abcdef.css>\
         <script type=module>go()</script>",
    );
    // A hash with a zero in front, and a name like one that the builder did not write down.
    server.write("page/late-123456789abcdef.css", "a{}");
    server.write("page/stray-0123456789abcdef.css", "a{}");
    server.write("page/folder/web-0123456789abcdef.js", "let c;");
    server.write("public/reports/fig.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>go()</script></svg>");
    server.write(HASHED, "let a;");
    server.write("page/web-0123456789abcdef_bg.wasm", b"\0asm");
    server.write("page/worker.js", "let b;");
    server.write("public/models/manifest.json", "{}");
    for (path, kind, cache) in [
        ("/", "text/html; charset=utf-8", "no-cache"),
        ("/web-0123456789abcdef.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/web-0123456789abcdef_bg.wasm?v=1", "application/wasm", "public, max-age=31536000, immutable"),
        ("/late-123456789abcdef.css", "text/css; charset=utf-8", "public, max-age=31536000, immutable"),
        ("/stray-0123456789abcdef.css", "text/css; charset=utf-8", "no-cache"),
        ("/folder/web-0123456789abcdef.js", "text/javascript; charset=utf-8", "no-cache"),
        ("/reports/fig.svg", "image/svg+xml", "no-cache"),
        ("/worker.js", "text/javascript; charset=utf-8", "no-cache"),
        ("/models/manifest.json", "application/json", "no-cache"),
    ] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers();
        for (name, value) in [
            ("content-type", kind),
            ("cache-control", cache),
            ("accept-ranges", "bytes"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-embedder-policy", "require-corp"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(headers[name], value, "{path} {name}");
        }
        assert!(headers.contains_key("etag"), "{path}");
        let policy = headers.get("content-security-policy").map(|value| value.to_str().unwrap().to_owned());
        match path {
            // SHA-256 of `go()`.
            "/" => assert!(policy.unwrap().contains("'sha256-5KYv+PUboo5h+0+YAtGRPbwv5d/QxzHslP4YGnUaxRw='")),
            "/reports/fig.svg" => assert!(policy.unwrap().contains("default-src 'none'")),
            _ if kind.starts_with("text/javascript") => assert!(policy.unwrap().contains("'wasm-unsafe-eval'")),
            _ => assert_eq!(policy, None),
        }
    }
}

#[tokio::test]
async fn a_cut_download_goes_on() {
    let server = Server::start();
    // Larger than the pieces that are read from disk at a time.
    let model: Vec<u8> = (0..700_000u32).map(|i| (i * 7 % 251) as u8).collect();
    server.write("public/models/full.gguf", &model);
    let whole = server.get("/models/full.gguf").send().await.unwrap();
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(whole.headers()["content-length"], "700000");
    assert_eq!(whole.bytes().await.unwrap(), model);
    for (range, if_range, status, expect) in [
        ("bytes=0-9", None, 206, &model[..10]),
        ("bytes=300000-", Some(tag.as_str()), 206, &model[300_000..]),
        ("bytes=-5", None, 206, &model[699_995..]),
        ("bytes=300000-", Some("\"another\""), 200, &model[..]),
        ("bytes=0-0,5-6", None, 200, &model[..]),
        ("bytes=700000-", None, 416, &[][..]),
    ] {
        let mut request = server.get("/models/full.gguf").header("range", range);
        if let Some(tag) = if_range {
            request = request.header("if-range", tag);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{range}");
        let content_range = response.headers().get("content-range").map(|value| value.to_str().unwrap().to_owned());
        match status {
            206 => assert!(content_range.unwrap().ends_with("/700000")),
            416 => assert_eq!(content_range.unwrap(), "bytes */700000"),
            _ => assert_eq!(content_range, None),
        }
        assert_eq!(response.bytes().await.unwrap(), expect, "{range}");
    }
    let first = server.get("/models/full.gguf").header("range", "bytes=300000-").send().await.unwrap();
    assert_eq!(first.headers()["content-range"], "bytes 300000-699999/700000");
    assert_eq!(first.headers()["content-length"], "400000");
    // A model is never compressed: what a client asks for by position has to be the file itself.
    let packed = server.get("/models/full.gguf").header("accept-encoding", "br").send().await.unwrap();
    assert!(!packed.headers().contains_key("content-encoding"));
}

#[tokio::test]
async fn text_is_compressed_and_checked_by_tag() {
    let server = Server::start();
    let text = "tandem ".repeat(2000);
    server.write(HASHED, &text);
    let get = || server.get("/web-0123456789abcdef.js");
    let mut tags = Vec::new();
    for (accept, encoding) in [("gzip, br", Some("br")), ("gzip", Some("gzip")), ("identity", None)] {
        let response = get().header("accept-encoding", accept).send().await.unwrap();
        assert_eq!(response.headers().get("content-encoding").map(|value| value.to_str().unwrap()), encoding);
        assert_eq!(response.headers()["vary"], "accept-encoding");
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let body = response.bytes().await.unwrap();
        assert_eq!(body.len(), length);
        match encoding {
            Some(_) => assert!(length < 500, "{encoding:?}: {length} bytes"),
            None => assert_eq!(body, text),
        }
        let request = get().header("accept-encoding", accept).header("if-none-match", format!("\"x\", W/{tag}"));
        let again = request.send().await.unwrap();
        assert_eq!((again.status().as_u16(), again.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
        assert!(again.bytes().await.unwrap().is_empty());
        tags.push(tag);
    }
    tags.dedup();
    assert_eq!(tags.len(), 3, "each encoding is a representation of its own");
    // A range is a range of the plain file.
    let part = get().header("accept-encoding", "br").header("range", "bytes=7-12").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "tandem"));
    // A new build is seen at once.
    server.write(HASHED, "short");
    let fresh = get().header("accept-encoding", "identity").header("if-none-match", &tags[2]).send().await.unwrap();
    assert_eq!((fresh.status().as_u16(), fresh.text().await.unwrap().as_str()), (200, "short"));
}

#[tokio::test]
async fn without_a_page_the_server_says_how_to_build_one() {
    let server = Server::start();
    let response = server.get("/").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert!(response.text().await.unwrap().contains("cargo xtask demo"));
    server.write("page/index.html", "built");
    assert_eq!(server.get("/").send().await.unwrap().text().await.unwrap(), "built");
    server.write("public/index.html", "not this one");
    assert_eq!(server.get("/index.html").send().await.unwrap().text().await.unwrap(), "built");
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let server = Server::start();
    server.write("public/models/a.gguf", [7; 1234]);
    server.write("page/a.css", "a{} ".repeat(100));
    for path in ["/models/a.gguf", "/a.css"] {
        let url = format!("{}{path}", server.url);
        let head = server.client.head(&url).header("accept-encoding", "br").send().await.unwrap();
        let get = server.client.get(&url).header("accept-encoding", "br").send().await.unwrap();
        assert_eq!(head.status(), 200);
        for name in ["content-length", "etag", "content-type"] {
            assert_eq!(head.headers()[name], get.headers()[name], "{path} {name}");
        }
        assert!(head.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn nothing_outside_the_folders_is_served() {
    let server = Server::start();
    server.write("secret.txt", "secret");
    server.write("page/.hidden", "secret");
    server.write("page/folder/x.txt", "fine");
    // By hand: a client library would tidy the path first.
    for path in
        ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/.hidden", "/folder", "//secret.txt", "/no.js"]
    {
        let answer =
            server.by_hand(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("\r\n\r\nsecret"), "{path}: {answer}");
    }
    assert_eq!(server.get("/folder/x.txt").send().await.unwrap().text().await.unwrap(), "fine");
}

#[cfg(unix)]
#[tokio::test]
async fn links_that_lead_out_of_a_folder_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let server = Server::start();
    server.write("secret.txt", "secret");
    server.write("outside/x.txt", "secret");
    server.write("page/real.txt", "fine");
    let at = |path: &str| server.folder.path().join(path);
    symlink(at("secret.txt"), at("page/link.txt")).unwrap();
    symlink("../secret.txt", at("public/link2.txt")).unwrap();
    symlink(at("outside"), at("page/folder")).unwrap();
    symlink("real.txt", at("page/alias.txt")).unwrap();
    for path in ["/link.txt", "/link2.txt", "/folder/x.txt"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert!(!response.text().await.unwrap().contains("secret"), "{path}");
    }
    assert_eq!(server.get("/alias.txt").send().await.unwrap().text().await.unwrap(), "fine");
}

#[tokio::test]
async fn files_of_one_size_and_time_are_two_files_and_a_rebuilt_one_is_another() {
    let server = Server::start();
    let text = |letter: &str| letter.repeat(5000);
    let day = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    let write = |name: &str, letter: &str| {
        server.write(&format!("page/{name}"), text(letter));
        let file = std::fs::File::options().append(true).open(server.folder.path().join("page").join(name)).unwrap();
        file.set_modified(day).unwrap();
    };
    let unpacked = async |path: &str| {
        let response = server.get(path).header("accept-encoding", "gzip").send().await.unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        let mut body = String::new();
        let bytes = response.bytes().await.unwrap();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut body).unwrap();
        (tag, body)
    };
    write("a.js", "a");
    write("b.js", "b");
    let (a, b) = (unpacked("/a.js").await, unpacked("/b.js").await);
    assert!(a.1 == text("a") && b.1 == text("b") && a.0 != b.0);
    write("a.js", "c");
    let request = server.get("/a.js").header("accept-encoding", "gzip").header("if-none-match", &a.0);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert!(unpacked("/a.js").await.1 == text("c"));
}

#[tokio::test]
async fn only_named_origins_may_use_the_api() {
    let origins = vec!["https://page.example".to_owned()];
    let server = Server::with(Setup { cors_origins: origins, ..Setup::default() });
    for (origin, allowed) in [("https://page.example", Some("https://page.example")), ("https://other.example", None)] {
        let response = server.get("/health").header("origin", origin).send().await.unwrap();
        let header = response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!(header, allowed);
        let url = format!("{}/v1/chat/completions", server.url);
        let preflight = server
            .client
            .request(reqwest::Method::OPTIONS, url)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "content-type,x-stainless-lang,x-stainless-retry-count,openai-beta",
            )
            .send()
            .await
            .unwrap();
        let text = |name: &str| preflight.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(text("access-control-allow-origin").as_deref(), allowed);
        let asked = text("access-control-allow-headers").unwrap_or_default();
        assert!(
            allowed.is_none() || asked.contains("x-stainless-retry-count") && asked.contains("openai-beta"),
            "{asked}"
        );
    }
    let closed = Server::start();
    let response = closed.get("/health").header("origin", "https://page.example").send().await.unwrap();
    assert!(!response.headers().contains_key("access-control-allow-origin"));
}
