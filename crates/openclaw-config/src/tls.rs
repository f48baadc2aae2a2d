//! The certificate and key of this profile's TLS listener: where they are, and what the certificate says.
//!
//! Clients read the certificate only, to know what the gateway of this machine will show them.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use openclaw_protocol::Fingerprint;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    files::{FileError, read_limited},
    gateway::GatewayConfig,
    paths::Paths,
};

/// Name in a certificate made by a gateway, of this program or of OpenClaw.
pub const COMMON_NAME: &str = "openclaw-gateway";
/// Largest PEM file that is read: 64 KiB, as OpenClaw.
pub const MAX_PEM_BYTES: u64 = 64 * 1024;

/// Files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `gateway.tls.certPath`, or `gateway-cert.pem` in [`Paths::tls_dir`]: the certificate, then its chain.
    pub certificate: PathBuf,
    /// `gateway.tls.keyPath`, or `gateway-key.pem` in [`Paths::tls_dir`].
    pub key: PathBuf,
    /// `gateway.tls.caPath`: authorities that complete the chain.
    pub ca: Option<PathBuf>,
}

impl TlsFiles {
    pub fn of(config: &GatewayConfig, paths: &Paths) -> Self {
        let (tls, dir) = (&config.tls, paths.tls_dir());
        let path = |given: &Option<String>| given.as_deref().map(|text| paths.expand(text));
        Self {
            certificate: path(&tls.cert_path).unwrap_or_else(|| dir.join("gateway-cert.pem")),
            key: path(&tls.key_path).unwrap_or_else(|| dir.join("gateway-key.pem")),
            ca: path(&tls.ca_path),
        }
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoPem(PathBuf),
    #[error("the certificate in {} is damaged", .0.display())]
    Malformed(PathBuf),
}

/// What a leaf certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Pin of this certificate.
    pub fingerprint: Fingerprint,
    /// Pin of its key.
    pub key_fingerprint: Fingerprint,
    /// Seconds since 1970 of the first and last second it is valid.
    pub valid_s: (i64, i64),
    /// Signed by itself, in the name of [`COMMON_NAME`]: made by a gateway rather than issued by an authority.
    pub self_made: bool,
}

impl Certificate {
    /// Reads the first certificate of a PEM file.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        let pem = read_pem(path)?;
        let leaf = CertificateDer::from_pem_slice(&pem).map_err(|_| CertificateError::NoPem(path.to_owned()))?;
        Self::parse(&leaf).ok_or_else(|| CertificateError::Malformed(path.to_owned()))
    }

    /// Reads a certificate in DER form. Only for files of this machine: what a peer shows is parsed by the TLS library.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let fields = Fields::read(der)?;
        let (from, after) = Element::read(fields.validity)?;
        let (until, _) = Element::read(after)?;
        let named = fields.subject.windows(COMMON_NAME.len()).any(|part| part == COMMON_NAME.as_bytes());
        Some(Self {
            fingerprint: Fingerprint::of(fields.whole),
            key_fingerprint: Fingerprint::of_key(fields.key),
            valid_s: (from.time()?, until.time()?),
            self_made: named && fields.issuer == fields.subject,
        })
    }
}

/// Parts of a certificate, as they stand in its DER.
pub struct Fields<'a> {
    whole: &'a [u8],
    /// The name of who signed it, as one element.
    pub issuer: &'a [u8],
    validity: &'a [u8],
    /// The name of whom it is for, as one element.
    pub subject: &'a [u8],
    key: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Splits a certificate; `None` when it is damaged.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        let (whole, _) = Element::read(der)?;
        let (signed, _) = Element::read(whole.inside(SEQUENCE)?)?;
        let mut rest = signed.inside(SEQUENCE)?;
        let mut next = |tag: u8| {
            let (element, after) = Element::read(rest)?;
            rest = after;
            (element.tag == tag).then_some(element)
        };
        // Absent in version 1, and then the serial number comes first. No such certificate can be served.
        next(VERSION)?;
        next(INTEGER)?; // serial number
        next(SEQUENCE)?; // algorithm of the signature
        let issuer = next(SEQUENCE)?.whole;
        let validity = next(SEQUENCE)?.content;
        let subject = next(SEQUENCE)?.whole;
        let key = next(SEQUENCE)?.whole;
        Some(Self { whole: whole.whole, issuer, validity, subject, key })
    }
}

/// Reads a PEM file of at most [`MAX_PEM_BYTES`]. Links are followed: certificates are often installed as such.
///
/// # Errors
/// As the system reports it, or [`FileError::TooLarge`].
pub fn read_pem(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source: io::Error| FileError::Io { action: "open", path: path.to_owned(), source };
    read_limited(File::open(path).map_err(failed)?, path, MAX_PEM_BYTES)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`.
const VERSION: u8 = 0xa0;

/// One DER element.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// The element at the start and what follows it.
    fn read(der: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&tag, after) = der.split_first()?;
        let (&first, after) = after.split_first()?;
        let (length, header) = if first < 0x80 {
            (usize::from(first), 2)
        } else {
            let digits = usize::from(first & 0x7f);
            if !(1..=4).contains(&digits) {
                return None;
            }
            let length = after.get(..digits)?.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
            (length, 2 + digits)
        };
        let end = header.checked_add(length)?;
        Some((Self { tag, content: der.get(header..end)?, whole: der.get(..end)? }, der.get(end..)?))
    }

    fn inside(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    /// Seconds since 1970 of `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ` (RFC 5280 section 4.1.2.5).
    fn time(self) -> Option<i64> {
        let text = std::str::from_utf8(self.content).ok()?.strip_suffix('Z')?;
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number = |from: usize, len: usize| text.get(from..from + len)?.parse::<i64>().ok();
        let (year, rest) = match self.tag {
            UTC_TIME if text.len() == 12 => (number(0, 2).map(|y| if y < 50 { 2000 + y } else { 1900 + y })?, 2),
            GENERALIZED_TIME if text.len() == 14 => (number(0, 4)?, 4),
            _ => return None,
        };
        let part = |index: usize| number(rest + 2 * index, 2);
        let (month, day) = (part(0)?, part(1)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        Some(((days_since_1970(year, month, day) * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
    }
}

/// Days of a date of the proleptic Gregorian calendar. Years are counted from March, so the leap day comes last.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Env, Profile};

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -sha256 -days 3650 -nodes -subj
    /// /CN=openclaw-gateway`, and what `openssl x509` and `openssl dgst` say of it.
    const PEM: &str = include_str!("../tests/fixtures/openclaw-gateway.pem");
    const FACTS: &str = include_str!("../tests/fixtures/openclaw-gateway.txt");

    #[test]
    fn a_certificate_as_openssl_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        std::fs::write(&path, PEM).unwrap();
        let fact = |name: &str| FACTS.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let certificate = Certificate::read(&path).unwrap();
        assert_eq!(certificate.fingerprint.colons(), fact("sha256 Fingerprint="));
        assert_eq!(certificate.key_fingerprint.to_string(), format!("key-sha256:{}", fact("key=")));
        let valid = (fact("from="), fact("until="));
        assert_eq!((certificate.valid_s.0.to_string(), certificate.valid_s.1.to_string()), valid);
        assert!(certificate.self_made);

        std::fs::write(&path, "no certificate").unwrap();
        assert!(matches!(Certificate::read(&path), Err(CertificateError::NoPem(_))));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(Certificate::read(&path), Err(CertificateError::Malformed(_))));
        assert!(matches!(Certificate::read(&dir.path().join("none")), Err(CertificateError::File(_))));
    }

    #[test]
    fn no_cut_of_a_certificate_is_read_beyond_its_end() {
        let der = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap();
        assert!(Certificate::parse(&der).is_some());
        for end in 0..der.len() {
            assert!(Certificate::parse(&der[..end]).is_none(), "{end}");
        }
    }

    #[test]
    fn dates() {
        for (date, days) in [((1970, 1, 1), 0), ((2000, 3, 1), 11_017), ((2024, 2, 29), 19_782), ((2050, 1, 1), 29_220)]
        {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
        let time = |tag, text: &str| Element { tag, content: text.as_bytes(), whole: &[] }.time();
        assert_eq!(time(UTC_TIME, "700101000001Z"), Some(1));
        assert_eq!(time(GENERALIZED_TIME, "20500101000000Z"), Some(29_220 * 86_400));
        for bad in ["", "Z", "7001010000Z", "700101000000", "701301000000Z", "70010100000+Z"] {
            assert_eq!(time(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn files_of_a_listener() {
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", "/s"), ("HOME", "/h")]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        let files = |text: &str| {
            let config = GatewayConfig::read(&Document::from_text(text, &paths, &env).unwrap()).unwrap();
            TlsFiles::of(&config, &paths)
        };
        let made = files("{}");
        assert_eq!(made.certificate, Path::new("/s/gateway/tls/gateway-cert.pem"));
        assert_eq!((made.key, made.ca), ("/s/gateway/tls/gateway-key.pem".into(), None));
        let given = files("{gateway:{tls:{certPath:'~/c.pem',keyPath:'/k.pem',caPath:'/ca.pem'}}}");
        assert_eq!(given.certificate, Path::new("/h/c.pem"));
        assert_eq!((given.key, given.ca), ("/k.pem".into(), Some("/ca.pem".into())));
    }
}
