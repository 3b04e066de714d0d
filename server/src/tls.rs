//! TLS for the local network: WebGPU needs a secure context, and a phone only gets one over HTTPS.
//!
//! A certificate is made once and kept under the data folder, so that a phone that has accepted it does not ask again; it
//! is made anew when the machine's addresses are no longer all in it, or when it is about to expire.
//!
//! Deliberately absent: a certificate authority of our own. Installing one on a phone is more than a demo may ask; who
//! wants no warning passes `--cert` and `--key`.

use std::io::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Browsers refuse certificates that are valid for longer than 398 days.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate that is older is made anew.
const RENEW_AFTER: Duration = Duration::from_secs(330 * 24 * 3600);

/// Makes *ring* the process's cryptography. Safe to call any number of times.
pub fn install_provider() {
    // The only error is that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate chain.
    pub cert_pem: Vec<u8>,
    /// Private key.
    pub key_pem: Vec<u8>,
    /// SHA-256 of the certificate, as browsers show it, when we made it.
    pub fingerprint: Option<String>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

impl Identity {
    /// Reads a given certificate.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self { cert_pem: read(cert)?, key_pem: read(key)?, fingerprint: None })
    }

    /// The kept self-signed certificate, or a new one when it does not cover `addresses` or is too old.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn kept_or_new(folder: &Path, addresses: &[IpAddr], now: SystemTime) -> Result<Self, TlsError> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(addresses.iter().map(ToString::to_string));
        let (cert, key, note) = (folder.join("cert.pem"), folder.join("key.pem"), folder.join("about.json"));
        if let Some(about) = std::fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<About>(&bytes).ok())
            && about.covers(&names, now)
            && let (Ok(cert_pem), Ok(key_pem)) = (read(&cert), read(&key))
        {
            return Ok(Self { cert_pem, key_pem, fingerprint: Some(about.fingerprint) });
        }
        let (identity, about) = make(names, now)?;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| TlsError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        // The note comes last: without it the other two are made again.
        let _ = std::fs::remove_file(&note);
        write(&key, &identity.key_pem, 0o600).map_err(at(&key))?;
        write(&cert, &identity.cert_pem, 0o644).map_err(at(&cert))?;
        let json = serde_json::to_vec_pretty(&about).map_err(|error| at(&note)(error.into()))?;
        write(&note, &json, 0o644).map_err(at(&note))?;
        Ok(identity)
    }
}

/// What is known of the kept certificate without reading it.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    names: Vec<String>,
    made_unix_s: u64,
    fingerprint: String,
}

impl About {
    fn covers(&self, names: &[String], now: SystemTime) -> bool {
        let made = UNIX_EPOCH + Duration::from_secs(self.made_unix_s);
        // A clock that ran backwards makes a new one, too.
        let is_fresh = now.duration_since(made).is_ok_and(|age| age < RENEW_AFTER);
        is_fresh && names.iter().all(|name| self.names.contains(name))
    }
}

fn make(names: Vec<String>, now: SystemTime) -> Result<(Identity, About), TlsError> {
    let mut params = rcgen::CertificateParams::new(names.clone())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Tandem on the local network");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    // Phones' clocks are off by minutes, not by days.
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID_FOR).into();
    let key = rcgen::KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    let hash = Sha256::digest(cert.der());
    let fingerprint = hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let made_unix_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let identity = Identity {
        cert_pem: cert.pem().into_bytes(),
        key_pem: key.serialize_pem().into_bytes(),
        fingerprint: Some(fingerprint.clone()),
    };
    Ok((identity, About { names, made_unix_s, fingerprint }))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// Writes a file and waits until the disk has it: the note says of the others that they are whole. A key is for its owner's
/// eyes.
fn write(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// This machine's addresses on the networks that it would use, IPv4 first. No packet is sent: a UDP socket that is
/// *connected* to a documentation address tells which of our addresses the route begins at.
#[must_use]
pub fn lan_addresses() -> Vec<IpAddr> {
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .filter_map(|(local, remote)| {
            let socket = UdpSocket::bind(local).ok()?;
            socket.connect(remote).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_no_longer_fits() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let (home, office): (IpAddr, IpAddr) = ("192.168.1.5".parse().unwrap(), "10.0.0.7".parse().unwrap());
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let first = Identity::kept_or_new(&folder, &[home], now).unwrap();
        let same = |addresses: &[IpAddr], now| {
            Identity::kept_or_new(&folder, addresses, now).unwrap().cert_pem == first.cert_pem
        };
        assert!(same(&[home], now + 10 * DAY));
        assert!(same(&[], now), "fewer addresses are covered");
        std::fs::copy(folder.join("cert.pem"), folder.join("first.pem")).unwrap();
        assert!(!same(&[home, office], now), "a new address is not");
        let second = Identity::kept_or_new(&folder, &[home], now).unwrap();
        assert!(!same(&[home], now + 331 * DAY), "an old one is made anew");
        assert_ne!(second.fingerprint, first.fingerprint);
        std::fs::write(folder.join("about.json"), "{").unwrap();
        assert!(Identity::kept_or_new(&folder, &[home], now).is_ok(), "a damaged note is no obstacle");
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        Identity::kept_or_new(folder.path(), &[], SystemTime::now()).unwrap();
        let mode = std::fs::metadata(folder.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Identity::from_files(Path::new("no-such-cert.pem"), Path::new("k")).unwrap_err();
        assert!(error.to_string().contains("no-such-cert.pem"));
    }
}
