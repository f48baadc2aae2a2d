//! Making a certificate: P-256, signed by itself, in the name and the place OpenClaw uses.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Duration};

use openclaw_config::{
    files::{self, FileError, FileLock},
    tls::{COMMON_NAME, Certificate, CertificateError, TlsFiles, read_pem},
};
use openclaw_protocol::Secret;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use crate::{auth::hosts::is_private_ip, bind};

/// Lifetime of a certificate, as OpenClaw's: ten years.
const DAYS: i64 = 3650;
/// A certificate is valid from a day ago: clocks differ.
const BACKDATED_DAYS: i64 = 1;
/// Addresses that are named; a machine with many containers has many.
const MAX_ADDRESSES: usize = 16;
/// How long to wait for another renewal of the same pair.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the certificate library refuses: {0}")]
    Library(#[from] rcgen::Error),
    /// It was not made by a gateway, so it is not ours to renew.
    #[error(
        "the certificate in {} was issued by somebody else; renew it with the program that got it (for example certbot \
         renew). The gateway takes the new files by itself", .0.display()
    )]
    Issued(PathBuf),
}

/// A certificate and its key in PEM form.
#[derive(Debug)]
pub struct Pair {
    pub certificate: String,
    pub key: Secret,
}

/// What a renewal changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    pub before: Certificate,
    pub after: Certificate,
}

impl Renewed {
    /// True when pins of the key still hold.
    pub fn kept_key(&self) -> bool {
        self.before.key_fingerprint == self.after.key_fingerprint
    }
}

/// The names of this machine as clients may call it: localhost, its host name, and its addresses in private networks.
pub fn names() -> Vec<String> {
    names_of(&crate::host::facts().hostname, &bind::local_addresses())
}

pub(super) fn names_of(host: &str, addresses: &[IpAddr]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = host.to_ascii_lowercase();
    let usable = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && host != "localhost";
    if usable {
        let label = host.split('.').next().unwrap_or_default();
        names.extend(BTreeSet::from([host.clone(), format!("{label}.local")]));
    }
    let link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let ours = addresses.iter().map(IpAddr::to_canonical);
    let ours: BTreeSet<_> =
        ours.filter(|a| is_private_ip(*a) && !a.is_loopback() && !link_local(a)).take(MAX_ADDRESSES).collect();
    names.extend(ours.iter().map(ToString::to_string));
    names
}

/// A new key and a certificate for it.
///
/// # Errors
/// [`MakeError::Library`].
pub fn fresh(names: &[String]) -> Result<Pair, MakeError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = sign(&key, names)?;
    Ok(Pair { certificate, key: Secret::new(key.serialize_pem()) })
}

fn sign(key: &KeyPair, names: &[String]) -> Result<String, MakeError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let midnight = |days: i64| {
        let day = today.saturating_add(jiff::Span::new().days(days));
        rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (midnight(-BACKDATED_DAYS), midnight(DAYS));
    Ok(params.self_signed(key)?.pem())
}

/// Puts a pair in its place: key first, each file whole or not at all, and never over one that is there.
///
/// # Errors
/// [`MakeError::File`]. A certificate that could not be written leaves its key behind; the next start says so.
pub fn publish(files: &TlsFiles, pair: &Pair) -> Result<(), MakeError> {
    for path in [&files.key, &files.certificate] {
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { continue };
        // A directory that is there belongs to whoever made it.
        if !parent.exists() {
            files::create_private_dir(parent)?;
        }
    }
    files::publish_private(&files.key, pair.key.expose().as_bytes())?;
    files::publish_private(&files.certificate, pair.certificate.as_bytes())?;
    Ok(())
}

/// Replaces a certificate that a gateway made by a fresh one, for the same key unless `new_key`. A running gateway takes it
/// by itself.
///
/// # Errors
/// [`MakeError::Issued`] for a certificate that is not ours; the files stay as they are.
pub fn renew(files: &TlsFiles, names: &[String], new_key: bool) -> Result<Renewed, MakeError> {
    let _lock = FileLock::acquire(&files.certificate.with_extension("lock"), PATIENCE)?;
    let before = Certificate::read(&files.certificate)?;
    if !before.self_made {
        return Err(MakeError::Issued(files.certificate.clone()));
    }
    let pair = if new_key {
        fresh(names)?
    } else {
        let pem = read_pem(&files.key)?;
        let key = KeyPair::from_pem(&String::from_utf8_lossy(&pem))?;
        Pair { certificate: sign(&key, names)?, key: Secret::new(String::new()) }
    };
    if new_key {
        // Between the two writes the pair does not match; a running gateway keeps the old one until it does.
        files::write_private_atomic(&files.key, pair.key.expose().as_bytes())?;
    }
    files::write_private_atomic(&files.certificate, pair.certificate.as_bytes())?;
    Ok(Renewed { before, after: Certificate::read(&files.certificate)? })
}
