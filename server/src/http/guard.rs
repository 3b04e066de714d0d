//! Who may ask: the names that this server answers to, and the pages that may change something here.
//!
//! A browser runs pages of anybody, and lets them send requests to this machine. Two checks keep them out:
//! - **Host.** A page whose own name is made to resolve to this address (DNS rebinding) is of the same origin as this
//!   server, but its requests still bear that name. Only loopback names, numeric addresses and the names that `--host`
//!   gives are answered. Numeric ones are safe: a browser that sends one was pointed at this very address.
//! - **Origin.** What changes something, or makes this server download something, is taken from its own pages and from
//!   those that `--cors-origin` names. Programs that are no browsers send neither `Origin` nor `Sec-Fetch-Site`.
//!
//! Deliberately absent: who a person is. That is a proxy's affair.

use std::net::{IpAddr, Ipv6Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::App;
use super::error::ApiError;

/// The names that a server answers to.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Lower case, without ports; `*` for all.
    names: Vec<String>,
    /// The numeric address that it listens on; `None` for all of the machine's.
    listen: Option<IpAddr>,
}

impl Hosts {
    /// Loopback names, the address that is listened on (an unspecified one stands for all), and `names`.
    #[must_use]
    pub fn new(listen: IpAddr, names: &[String]) -> Self {
        let names = names.iter().map(|name| bare(name.trim())).collect();
        Self { names, listen: (!listen.is_unspecified()).then_some(listen) }
    }

    fn allow(&self, authority: &str) -> bool {
        let name = bare(authority);
        if name.is_empty() {
            return false;
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return true;
        }
        if self.names.iter().any(|known| known == "*" || *known == name) {
            return true;
        }
        match numeric(&name) {
            Some(address) if address.is_loopback() => true,
            Some(address) => self.listen.is_none_or(|listen| listen == address),
            None => false,
        }
    }
}

/// A host without its port, in lower case, without the dot that ends a full name.
fn bare(authority: &str) -> String {
    let host = match authority.strip_prefix('[') {
        // Nothing but a port may follow; what else does is no name that anybody has.
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if port.is_empty() || port.starts_with(':') => address,
            _ => "",
        },
        // An IPv6 address as `--host` may give it, without brackets.
        None if authority.matches(':').count() > 1 => authority,
        None => match authority.split_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) => "",
            None => authority,
        },
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn numeric(name: &str) -> Option<IpAddr> {
    let address: IpAddr = name.parse().ok()?;
    Some(match address {
        IpAddr::V6(six) => six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4),
        four => four,
    })
}

/// The group of addresses that counts as one visitor: an IPv6 network of 64 bits is usually one household.
#[must_use]
pub fn visitor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => IpAddr::V4(four),
            None => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        },
        four => four,
    }
}

/// What a request says of where it comes from.
enum Requester {
    /// A program, or a page of this server's own.
    Own,
    /// A page of another origin; which, where it says so.
    Other(String),
}

fn asker(headers: &HeaderMap, authority: &str, cors_origins: &[String]) -> Requester {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if cors_origins.iter().any(|origin| origin == "*") {
        return Requester::Own;
    }
    // Several of them are nobody's, and must not pass by the first.
    if headers.get_all(header::ORIGIN).iter().count() > 1 {
        return Requester::Other("several origins".to_owned());
    }
    match (text("origin"), text("sec-fetch-site")) {
        (Some(origin), _) => {
            let named = cors_origins.iter().any(|known| known.trim_end_matches('/').eq_ignore_ascii_case(origin));
            if named || same(origin, authority) { Requester::Own } else { Requester::Other(origin.to_owned()) }
        }
        (None, None | Some("same-origin" | "none")) => Requester::Own,
        (None, Some(site)) => Requester::Other(format!("{site} page")),
    }
}

/// Whether an origin (`http://host:port`) is that of a request to this host. The scheme is not compared: a proxy that does
/// TLS hides it.
fn same(origin: &str, authority: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let short = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    // Where there is no Host, nothing is the same as it.
    !host.is_empty() && short(host) == short(authority)
}

/// Whether a request changes something, or makes the server fetch something. A WebSocket is opened by a GET of any page, and a
/// browser sends it without asking the server first.
fn acts(method: &Method, path: &str) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    !reads || path.starts_with("/models/hub/") || path.starts_with("/ws/")
}

fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    // HTTP/2, and HTTP/1 in the form for proxies, name it in the address; that counts before the header.
    if let Some(authority) = uri.authority() {
        let text = authority.as_str();
        return Ok(Some(text.rsplit('@').next().unwrap_or(text).to_owned()));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => match host.to_str() {
            Ok(host) => Ok(Some(host.to_owned())),
            Err(_) => Err(ApiError::invalid("The header 'Host' is not readable.")),
        },
        (None, _) if version == Version::HTTP_10 || version == Version::HTTP_09 => Ok(None),
        (None, _) => Err(ApiError::invalid("The header 'Host' is missing.")),
        (Some(_), Some(_)) => Err(ApiError::invalid("The request has several headers 'Host'.")),
    }
}

/// Lets a request pass, or says why not.
pub async fn check(State(app): State<App>, request: Request, next: Next) -> Response {
    match refusal(&app, &request) {
        None => next.run(request).await,
        Some(error) => error.into_response(),
    }
}

fn refusal(app: &App, request: &Request) -> Option<ApiError> {
    let authority = match authority(request.version(), request.uri(), request.headers()) {
        Ok(Some(authority)) if app.0.parts.hosts.allow(&authority) => authority,
        Ok(Some(authority)) => return Some(ApiError::wrong_host(&bare(&authority))),
        // HTTP/1.0, which no browser of the last 25 years speaks. A page that sends something all the same is of no name here.
        Ok(None) => String::new(),
        Err(error) => return Some(error),
    };
    if !acts(request.method(), request.uri().path()) {
        return None;
    }
    match asker(request.headers(), &authority, &app.0.parts.cors_origins) {
        Requester::Own => None,
        Requester::Other(origin) => Some(ApiError::wrong_origin(&origin)),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn names_that_are_answered() {
        let names = ["Tandem.Example".to_owned(), "2001:db8::7".to_owned()];
        let one = Hosts::new("192.168.1.5".parse().unwrap(), &names);
        let all = Hosts::new("0.0.0.0".parse().unwrap(), &[]);
        let any = Hosts::new("127.0.0.1".parse().unwrap(), &["*".to_owned()]);
        for (host, by_one, by_all) in [
            ("localhost", true, true),
            ("LOCALHOST:8080", true, true),
            ("localhost.:8080", true, true),
            ("me.localhost:1", true, true),
            ("127.0.0.1:8080", true, true),
            ("127.8.9.1", true, true),
            ("[::1]:8080", true, true),
            ("[::ffff:127.0.0.1]", true, true),
            ("192.168.1.5:8080", true, true),
            ("192.168.1.6", false, true),
            ("tandem.example", true, false),
            ("tandem.example.:443", true, false),
            ("[2001:db8::7]:1", true, true),
            ("[::1]evil.example", false, false),
            ("[::1", false, false),
            ("localhost:8080@evil.example", false, false),
            ("evil.example", false, false),
            ("evil.example:8080", false, false),
            ("localhost.evil.example", false, false),
            ("notlocalhost", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("", false, false),
            (":8080", false, false),
        ] {
            assert_eq!(one.allow(host), by_one, "{host}");
            assert_eq!(all.allow(host), by_all, "{host} on all addresses");
            assert_eq!(any.allow(host), !bare(host).is_empty(), "{host}");
        }
    }

    #[test]
    fn origins_that_may_act() {
        let named = ["https://page.example/".to_owned()];
        for (origin, site, own) in [
            (None, None, true),
            (None, Some("same-origin"), true),
            (None, Some("none"), true),
            (None, Some("cross-site"), false),
            (None, Some("same-site"), false),
            (Some("http://localhost:8080"), None, true),
            (Some("https://localhost:8080"), Some("same-origin"), true),
            (Some("http://localhost"), None, false),
            (Some("http://localhost:8081"), None, false),
            (Some("http://evil.example"), None, false),
            (Some("null"), None, false),
            (Some("https://page.example"), Some("cross-site"), true),
            (Some("file://localhost:8080"), None, false),
            (Some("\u{fc}"), None, false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [("origin", origin), ("sec-fetch-site", site)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
                }
            }
            let got = matches!(asker(&headers, "LocalHost:8080", &named), Requester::Own);
            assert_eq!(got, own, "{origin:?} {site:?}");
            assert!(matches!(asker(&headers, "LocalHost:8080", &["*".to_owned()]), Requester::Own));
        }
        assert!(same("http://h", "h:80") && same("https://h:443", "h") && !same("https://h", "h:80"));
        let mut two = HeaderMap::new();
        two.append("origin", HeaderValue::from_static("http://localhost:8080"));
        two.append("origin", HeaderValue::from_static("http://evil.example"));
        assert!(matches!(asker(&two, "localhost:8080", &[]), Requester::Other(_)));
    }

    #[test]
    fn a_household_is_one_visitor() {
        let visitor = |text: &str| visitor(text.parse().unwrap()).to_string();
        assert_eq!(visitor("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!((visitor("::ffff:10.0.0.1"), visitor("10.0.0.1")), ("10.0.0.1".to_owned(), "10.0.0.1".to_owned()));
    }
}
