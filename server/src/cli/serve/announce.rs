//! Saying where the page is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fast_qr::qr::QRBuilder;

use crate::tls::{self, Identity};

/// Says where the page is. Other programs read the first line.
pub(super) fn announce(address: SocketAddr, identity: Option<&Identity>) {
    let urls = urls(address, identity.is_some(), &tls::lan_addresses());
    if let Some(first) = urls.first() {
        println!("Tandem is ready at {first}");
    }
    for url in urls.iter().skip(1) {
        println!("                or {url}");
    }
    let Some(identity) = identity else { return };
    if let Some(fingerprint) = &identity.fingerprint {
        println!("The certificate is self-signed; browsers warn once. Its SHA-256 fingerprint:\n  {fingerprint}");
    }
    // The last URL that another device can open is the one for the phone.
    let reachable = urls.iter().find(|url| !url.contains("//127.0.0.1:") && !url.contains("//[::1]:"));
    if let Some(url) = reachable
        && let Ok(code) = QRBuilder::new(url.as_str()).build()
    {
        println!("\n{}\n{url}", code.to_str());
    }
}

/// The addresses to print: the one for this machine first, then those for others.
fn urls(address: SocketAddr, has_tls: bool, lan: &[IpAddr]) -> Vec<String> {
    let scheme = if has_tls { "https" } else { "http" };
    let port = address.port();
    let url = |ip: IpAddr| format!("{scheme}://{}/", SocketAddr::new(ip, port));
    if !address.ip().is_unspecified() {
        return vec![url(address.ip())];
    }
    let is_reachable = |ip: &&IpAddr| ip.is_ipv4() || address.is_ipv6();
    std::iter::once(Ipv4Addr::LOCALHOST.into()).chain(lan.iter().filter(is_reachable).copied()).map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_for_this_machine_and_for_others() {
        let lan: [IpAddr; 2] = ["192.168.1.5".parse().unwrap(), "2001:db8::5".parse().unwrap()];
        for (address, has_tls, expect) in [
            ("127.0.0.1:8080", false, &["http://127.0.0.1:8080/"][..]),
            ("[::1]:80", false, &["http://[::1]:80/"]),
            ("0.0.0.0:8080", true, &["https://127.0.0.1:8080/", "https://192.168.1.5:8080/"]),
            ("[::]:1", true, &["https://127.0.0.1:1/", "https://192.168.1.5:1/", "https://[2001:db8::5]:1/"]),
        ] {
            assert_eq!(urls(address.parse().unwrap(), has_tls, &lan), expect, "{address}");
        }
    }
}
