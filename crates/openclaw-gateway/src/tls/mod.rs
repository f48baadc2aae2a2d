//! The TLS listener: which certificate it shows, and how that changes while connections last.
//!
//! The files are OpenClaw's, in its places and with its rules: TLS 1.3 or nothing, a missing pair is made, half a pair is
//! an error. A renewal is taken when the whole of it is valid; until then the certificate in use stays.

mod accept;
pub mod make;
pub mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use openclaw_config::{
    files::FileError,
    tls::{Certificate, CertificateError, Fields, TlsFiles, read_pem},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

pub use accept::{Refused, accept};

/// A certificate is named in the log when it ends within two weeks.
const EXPIRES_SOON_S: i64 = 14 * 24 * 60 * 60;
/// Longest chain that is served.
const MAX_CHAIN: usize = 8;

/// Why there is no TLS listener.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "gateway.tls: {} is missing although {} is there. Half a pair is never completed, since clients may have pinned \
         the other half.\nFix: put the missing file back, or let a new pair be made: mv '{}' '{}.old'",
        missing.display(), present.display(), present.display(), present.display()
    )]
    HalfPair { present: PathBuf, missing: PathBuf },
    #[error(
        "gateway.tls.enabled is true, but {} and {} are missing and gateway.tls.autoGenerate is false.\n\
         Fix: openclaw config set gateway.tls.autoGenerate true, or put the files there",
        files.certificate.display(), files.key.display()
    )]
    Missing { files: TlsFiles },
    #[error("gateway.tls: {0}\nFix: openclaw config set gateway.tls.certPath <file>, with a file this user may read")]
    Certificate(#[from] CertificateError),
    #[error("gateway.tls: {0}\nFix: let this user read it, or name another file in gateway.tls.{key}", key = .1)]
    File(FileError, &'static str),
    #[error(
        "gateway.tls: {} holds no private key in PEM form without a passphrase.\nFix: write one without: openssl pkey -in \
         '{}' -out '{}'", .0.display(), .0.display(), .0.display()
    )]
    NoKey(PathBuf),
    #[error(
        "gateway.tls: the key in {} does not belong to the certificate in {}.\nFix: for a pair the gateway made itself: \
         openclaw gateway cert renew --new-key; otherwise install certificate and key of the same issue",
        files.key.display(), files.certificate.display()
    )]
    OtherKey { files: TlsFiles },
    #[error("gateway.tls: the certificate in {} cannot be served: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error("gateway.tls: no certificate could be made: {0}")]
    Make(#[from] make::MakeError),
}

/// The certificate in use and how it is served.
#[derive(Debug)]
struct Material {
    config: Arc<ServerConfig>,
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
}

/// The TLS side of the gateway's listeners.
#[derive(Debug)]
pub struct Tls {
    pub files: TlsFiles,
    material: ArcSwap<Material>,
}

impl Tls {
    /// Loads the pair; makes it first when both files are missing and `auto_generate` allows it. `names` go into a
    /// certificate that is made.
    ///
    /// # Errors
    /// See [`TlsError`]. Nothing is ever overwritten.
    pub fn open(files: TlsFiles, auto_generate: bool, names: &[String]) -> Result<Self, TlsError> {
        match (files.certificate.exists(), files.key.exists()) {
            (true, true) => {}
            (false, false) if auto_generate => make::publish(&files, &make::fresh(names)?)?,
            (false, false) => return Err(TlsError::Missing { files }),
            (true, false) => return Err(TlsError::HalfPair { present: files.certificate, missing: files.key }),
            (false, true) => return Err(TlsError::HalfPair { present: files.key, missing: files.certificate }),
        }
        let material = ArcSwap::from_pointee(load(&files)?);
        Ok(Self { files, material })
    }

    /// Takes what the files hold now; false when that is what is served already.
    ///
    /// # Errors
    /// See [`TlsError`]; the certificate in use stays.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let fresh = load(&self.files)?;
        if fresh.chain == self.material.load().chain {
            return Ok(false);
        }
        self.material.store(Arc::new(fresh));
        Ok(true)
    }

    /// The certificate shown to clients from now on.
    pub fn certificate(&self) -> Certificate {
        self.material.load().certificate.clone()
    }

    /// How the next connection is served.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.material.load().config)
    }

    /// What an owner should know before a client complains.
    pub fn warnings(&self, now_s: i64) -> Vec<String> {
        let (from, until) = self.certificate().valid_s;
        let file = self.files.certificate.display();
        let mut warnings = Vec::new();
        if now_s < from {
            warnings.push(format!("the certificate in {file} is not valid before {}", date(from)));
        } else if now_s > until {
            warnings.push(format!(
                "the certificate in {file} expired on {}; only clients that pin it connect",
                date(until)
            ));
        } else if until - now_s < EXPIRES_SOON_S {
            warnings.push(format!("the certificate in {file} expires on {}", date(until)));
        }
        if is_open_to_all(&self.files.key) {
            let key = self.files.key.display();
            warnings.push(format!("every user of this machine can read the key; take that away: chmod 600 '{key}'"));
        }
        warnings
    }
}

/// `2036-11-18`, in UTC.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.strftime("%Y-%m-%d").to_string())
}

fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o007 != 0)
}

fn load(files: &TlsFiles) -> Result<Material, TlsError> {
    let certificate = Certificate::read(&files.certificate)?;
    let mut chain = certificates(&files.certificate, "certPath")?;
    if let Some(ca) = &files.ca {
        complete(&mut chain, certificates(ca, "caPath")?);
    }
    let key = read_pem(&files.key).map_err(|error| TlsError::File(error, "keyPath"))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::NoKey(files.key.clone()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain.clone(), key));
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::OtherKey { files: files.clone() },
        other => TlsError::Unusable { path: files.certificate.clone(), reason: other.to_string() },
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would show no certificate, so a renewal would go unseen; and tickets are packets nobody asked for.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Material { config: Arc::new(config), certificate, chain })
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read_pem(path).map_err(|error| TlsError::File(error, key))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(CertificateError::NoPem(path.to_owned()).into()),
    }
}

/// Appends the authorities that lead upwards from the end of the chain. The root is left out: a client trusts its own copy
/// of it or none.
fn complete(chain: &mut Vec<CertificateDer<'static>>, authorities: Vec<CertificateDer<'static>>) {
    while chain.len() < MAX_CHAIN {
        let Some(last) = chain.last().and_then(|last| Fields::read(last)) else { return };
        let next = authorities.iter().find(|authority| {
            Fields::read(authority)
                .is_some_and(|fields| fields.subject == last.issuer && fields.subject != fields.issuer)
        });
        match next.cloned() {
            Some(next) if !chain.contains(&next) => chain.push(next),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
