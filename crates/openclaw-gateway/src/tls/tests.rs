use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, pki_types::ServerName, version};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::*;

/// `openssl req -x509 -newkey rsa:2048 -sha256 -days 3650 -nodes -keyout … -out … -subj /CN=openclaw-gateway`: how
/// OpenClaw 2026.9.6 makes its pair.
const REFERENCE_CERTIFICATE: &str = include_str!("../../tests/fixtures/reference-cert.pem");
const REFERENCE_KEY: &str = include_str!("../../tests/fixtures/reference-key.pem");

struct Place {
    dir: tempfile::TempDir,
    files: TlsFiles,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join("gateway").join("tls").join(name);
        let files = TlsFiles { certificate: path("gateway-cert.pem"), key: path("gateway-key.pem"), ca: None };
        Self { dir, files }
    }

    fn with(certificate: &str, key: &str) -> Self {
        let place = Self::new();
        fs::create_dir_all(place.files.key.parent().expect("parent")).expect("dir");
        place.write(certificate, key);
        place
    }

    fn write(&self, certificate: &str, key: &str) {
        fs::write(&self.files.certificate, certificate).expect("certificate");
        fs::write(&self.files.key, key).expect("key");
    }

    fn open(&self) -> Result<Tls, TlsError> {
        Tls::open(self.files.clone(), true, &make::names())
    }
}

fn texts(files: &TlsFiles) -> (String, String) {
    (fs::read_to_string(&files.certificate).expect("certificate"), fs::read_to_string(&files.key).expect("key"))
}

/// Serves one connection, and says `hello` over it.
async fn serve_once(tls: Arc<Tls>) -> (SocketAddr, tokio::task::JoinHandle<Result<(), Refused>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = accept(&tls, stream).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        Ok(())
    });
    (address, served)
}

/// Connects as a client that trusts `root` and nothing else, and reads what the server says and shows.
async fn ask(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    name: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> std::io::Result<(String, Vec<CertificateDer<'static>>)> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let server = ServerName::try_from(name.to_owned()).expect("name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok((text, stream.get_ref().1.peer_certificates().expect("certificates").to_vec()))
}

fn leaf(files: &TlsFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.certificate).expect("certificate")
}

#[tokio::test]
async fn a_pair_is_made_that_clients_can_verify() {
    let place = Place::new();
    let tls = Arc::new(place.open().expect("made"));
    for path in [&place.files.certificate, &place.files.key] {
        assert_eq!(fs::metadata(path).expect("file").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(place.dir.path().join("gateway/tls")).expect("dir").permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(place.dir.path().join("gateway/tls")).expect("dir").count(), 2, "nothing is left over");
    let now = jiff::Timestamp::now().as_second();
    let (from, until) = tls.certificate().valid_s;
    assert!(from <= now && until > now + 3_640 * 86_400 && tls.certificate().self_made);
    assert_eq!(tls.warnings(now), Vec::<String>::new());
    for name in ["localhost", "127.0.0.1", "::1"] {
        let (address, served) = serve_once(Arc::clone(&tls)).await;
        let (said, chain) = ask(address, &leaf(&place.files), name, &[&version::TLS13]).await.expect(name);
        assert_eq!((said.as_str(), chain.len()), ("hello", 1), "{name}");
        served.await.expect("task").expect("served");
    }
    // Another name, and an older TLS.
    for (name, versions) in [("example.com", &[&version::TLS13]), ("localhost", &[&version::TLS12])] {
        let (address, served) = serve_once(Arc::clone(&tls)).await;
        ask(address, &leaf(&place.files), name, versions).await.expect_err(name);
        served.await.expect("task").expect_err(name);
    }
    // The second start finds it and leaves it alone.
    let before = texts(&place.files);
    assert_eq!(place.open().expect("loaded").certificate(), tls.certificate());
    assert_eq!(texts(&place.files), before);
}

#[test]
fn names_of_a_machine() {
    let names = |host: &str, addresses: &[&str]| {
        let addresses: Vec<_> = addresses.iter().map(|a| a.parse().expect("address")).collect();
        make::names_of(host, &addresses).split_off(3)
    };
    assert_eq!(
        names("Box", &["127.0.0.1", "192.168.1.5", "100.101.102.103", "8.8.8.8", "fe80::1", "fd00::5", "192.168.1.5"]),
        ["box", "box.local", "100.101.102.103", "192.168.1.5", "fd00::5"]
    );
    assert_eq!(names("box.example.com", &[]), ["box.example.com", "box.local"]);
    assert_eq!(names("mac.local", &[]), ["mac.local"]);
    assert_eq!(names("bad name\u{e9}", &[]), Vec::<String>::new());
    assert_eq!(names("localhost", &[]), Vec::<String>::new());
}

#[test]
fn half_a_pair_is_never_completed() {
    let whole = Place::new();
    whole.open().expect("made");
    let (certificate, key) = texts(&whole.files);
    for keep_key in [false, true] {
        let place = Place::with(&certificate, &key);
        let gone = if keep_key { &place.files.certificate } else { &place.files.key };
        fs::remove_file(gone).expect("remove");
        let error = place.open().expect_err("half a pair");
        let TlsError::HalfPair { missing, present } = &error else { panic!("{error}") };
        assert_eq!((missing, gone.exists()), (gone, false));
        // The printed cure, done by hand.
        assert!(error.to_string().contains(&format!("mv '{0}' '{0}.old'", present.display())), "{error}");
        fs::rename(present, format!("{}.old", present.display())).expect("move");
        place.open().expect("a new pair");
    }
    let none = Place::new();
    let error = Tls::open(none.files.clone(), false, &[]).expect_err("not to be made");
    assert!(matches!(error, TlsError::Missing { .. }) && !none.files.key.exists());
}

#[tokio::test]
async fn the_reference_s_files_are_taken_as_they_are() {
    let place = Place::with(REFERENCE_CERTIFICATE, REFERENCE_KEY);
    let tls = Arc::new(place.open().expect("loads"));
    assert!(tls.certificate().self_made);
    let (address, served) = serve_once(Arc::clone(&tls)).await;
    // It names no host and calls itself an authority, so only a pin can trust it; see the client's tests for that.
    ask(address, &leaf(&place.files), "localhost", &[&version::TLS13]).await.expect_err("no names");
    served.await.expect("task").expect_err("refused");
    assert_eq!(texts(&place.files), (REFERENCE_CERTIFICATE.to_owned(), REFERENCE_KEY.to_owned()));
    // Its key outlives a renewal, too.
    let renewed = make::renew(&place.files, &make::names(), false).expect("renewed");
    assert!(renewed.kept_key() && renewed.after.fingerprint != renewed.before.fingerprint);
    assert!(tls.renew().expect("taken"));
    let (address, _served) = serve_once(tls).await;
    ask(address, &leaf(&place.files), "localhost", &[&version::TLS13]).await.expect("now it has names");
}

#[test]
fn renewals() {
    let place = Place::new();
    let tls = place.open().expect("made");
    assert!(!tls.renew().expect("the same files"));
    let first = tls.certificate();

    let renewed = make::renew(&place.files, &make::names(), false).expect("renewed");
    assert_eq!((renewed.before.clone(), renewed.kept_key()), (first.clone(), true));
    assert_eq!(tls.certificate(), first, "until the files are looked at");
    assert!(tls.renew().expect("taken"));
    assert_eq!(tls.certificate(), renewed.after);

    let renewed = make::renew(&place.files, &make::names(), true).expect("renewed");
    assert!(!renewed.kept_key() && tls.renew().expect("taken"));

    // Half a renewal changes nothing.
    let other = Place::new();
    other.open().expect("made");
    fs::write(&place.files.key, texts(&other.files).1).expect("key");
    assert!(matches!(tls.renew(), Err(TlsError::OtherKey { .. })));
    fs::write(&place.files.key, "garbage").expect("key");
    assert!(matches!(tls.renew(), Err(TlsError::NoKey(_))));
    fs::remove_file(&place.files.certificate).expect("remove");
    assert!(matches!(tls.renew(), Err(TlsError::Certificate(_))));
    assert_eq!(tls.certificate(), renewed.after);
}

/// An authority with a root and an intermediate, and a leaf for localhost: root, intermediate and leaf as PEM, and the
/// leaf's key.
fn issued() -> (String, String, String, String) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().expect("key"))
    };
    let (root_params, root_key) = authority("lab root");
    let root = root_params.self_signed(&root_key).expect("root");
    let issuer = Issuer::new(root_params, root_key);
    let (middle_params, middle_key) = authority("lab intermediate");
    let middle = middle_params.signed_by(&middle_key, &issuer).expect("intermediate");
    let issuer = Issuer::new(middle_params, middle_key);
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("params");
    let leaf = params.signed_by(&key, &issuer).expect("leaf");
    (root.pem(), middle.pem(), leaf.pem(), key.serialize_pem())
}

#[tokio::test]
async fn ca_path_completes_the_chain() {
    let (root, middle, leaf, key) = issued();
    let place = Place::with(&leaf, &key);
    let anchor = CertificateDer::from_pem_slice(root.as_bytes()).expect("root");
    let ca = place.dir.path().join("ca.pem");
    fs::write(&ca, format!("{root}{middle}")).expect("bundle");
    for (ca, trusted) in [(None, false), (Some(ca), true)] {
        let tls = Tls::open(TlsFiles { ca, ..place.files.clone() }, true, &[]).expect("loads");
        let (address, _served) = serve_once(Arc::new(tls)).await;
        let answer = ask(address, &anchor, "localhost", &[&version::TLS13]).await;
        // The root itself is not sent.
        assert_eq!(answer.ok().map(|(_, chain)| chain.len()), trusted.then_some(2));
    }
    let error = make::renew(&place.files, &[], false).expect_err("issued by somebody else");
    assert!(matches!(error, make::MakeError::Issued(_)), "{error}");
    let ca = Some(place.dir.path().join("none.pem"));
    let error = Tls::open(TlsFiles { ca, ..place.files.clone() }, true, &[]).expect_err("no such file");
    assert!(matches!(error, TlsError::File(_, "caPath")), "{error}");
}

#[test]
fn expiry_and_open_keys_are_named() {
    let place = Place::new();
    let tls = place.open().expect("made");
    let (from, until) = tls.certificate().valid_s;
    let check = |now: i64, expected: &str| {
        let warnings = tls.warnings(now);
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    };
    check(from - 1, "not valid before");
    check(until + 1, "expired on");
    check(until - 13 * 86_400, "expires on");
    fs::set_permissions(&place.files.key, fs::Permissions::from_mode(0o644)).expect("mode");
    check(until - 15 * 86_400, "chmod 600");
}

#[tokio::test]
async fn plain_http_is_told_what_to_ask_for() {
    let place = Place::new();
    let (address, served) = serve_once(Arc::new(place.open().expect("made"))).await;
    let mut stream = TcpStream::connect(address).await.expect("connect");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer and an end in order");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert!(head.contains("Connection: close"));
    assert_eq!(body["error"]["type"], "tls_required");
    drop(stream);
    assert!(matches!(served.await.expect("task"), Err(Refused::Plain)));
}

#[test]
fn a_key_with_a_passphrase_is_named() {
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let place = Place::with(REFERENCE_CERTIFICATE, encrypted);
    let error = place.open().expect_err("a passphrase");
    assert!(matches!(error, TlsError::NoKey(_)) && error.to_string().contains("openssl pkey"), "{error}");
    let place = Place::with(REFERENCE_CERTIFICATE, "");
    assert!(matches!(place.open(), Err(TlsError::NoKey(_))));
    assert!(place.files.key.exists(), "nothing was taken away");
}
