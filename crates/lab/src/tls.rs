//! What stands between a client and a gateway behind TLS: certificates of every kind, servers that show them and count what
//! comes through, and an HTTP proxy.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use openclaw_protocol::Fingerprint;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// How long a client of these servers may be silent.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest request head that is kept.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

impl Identity {
    /// Signed by itself, for this name or address.
    pub fn of_itself(name: &str) -> Self {
        Self::with_key(name, &KeyPair::generate().expect("a key"))
    }

    fn with_key(name: &str, key: &KeyPair) -> Self {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        Self { certificate: params.self_signed(key).expect("a certificate").pem(), key: key.serialize_pem() }
    }

    /// Another certificate for the same key.
    pub fn renewed(&self, name: &str) -> Self {
        Self::with_key(name, &KeyPair::from_pem(&self.key).expect("our own key"))
    }

    /// Pin of the certificate.
    pub fn pin(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("our own certificate");
        Fingerprint::of(&der).to_string()
    }

    /// Pin of the key.
    pub fn key_pin(&self) -> String {
        let key = KeyPair::from_pem(&self.key).expect("our own key");
        Fingerprint::of_key(&key.subject_public_key_info()).to_string()
    }
}

/// An authority that clients may be told to trust (`SSL_CERT_FILE`).
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM of its own certificate.
    pub certificate: String,
}

impl Authority {
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Issues a certificate for a name or address, valid in these years.
    pub fn issue(&self, name: &str, (from, until): (i32, i32)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

/// A server on loopback that reads one request head per connection, answers, and hangs up.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    heads: Vec<String>,
}

impl Server {
    /// One that shows this certificate.
    pub fn tls(identity: &Identity, answer: &str) -> Self {
        let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
        let chain: Result<Vec<_>, _> = chain.collect();
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("our own key");
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("our own chain"), key)
            .expect("a pair");
        Self::start(Some(Arc::new(config)), answer)
    }

    /// One without TLS.
    pub fn plain(answer: &str) -> Self {
        Self::start(None, answer)
    }

    fn start(config: Option<Arc<ServerConfig>>, answer: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let port = listener.local_addr().expect("it is bound").port();
        let (seen, answer): (Arc<Mutex<Seen>>, String) = (Arc::default(), answer.to_owned());
        let notes = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                lock(&notes).connections += 1;
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let head = match &config {
                    None => exchange(stream, &answer),
                    Some(config) => {
                        let session = ServerConnection::new(Arc::clone(config)).expect("a session");
                        exchange(StreamOwned::new(session, stream), &answer)
                    }
                };
                lock(&notes).heads.push(head);
            }
        });
        Self { port, seen }
    }

    /// Connections that were opened so far.
    pub fn connections(&self) -> usize {
        lock(&self.seen).connections
    }

    /// What came through on each connection that has ended: the request head, or nothing.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.seen).heads.clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a head and answers it; gives what was read, which is nothing when TLS did not come up.
fn exchange(mut stream: impl Read + Write, answer: &str) -> String {
    let head = read_head(&mut stream);
    if head.ends_with("\r\n\r\n") {
        let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
    }
    head
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A forward proxy that knows `CONNECT` and leads everything to one port of this machine, whatever name is asked for.
#[derive(Debug)]
pub struct ConnectProxy {
    pub port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Wants this `Proxy-Authorization`, if any.
    pub fn to(port: u16, authorization: Option<&str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
        let own = listener.local_addr().expect("it is bound").port();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&heads);
        let wanted = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (notes, wanted) = (Arc::clone(&notes), wanted.clone());
                thread::spawn(move || serve_connect(client, port, wanted.as_deref(), &notes));
            }
        });
        Self { port: own, heads }
    }

    /// The request heads so far.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.heads).clone()
    }
}

fn serve_connect(mut client: TcpStream, port: u16, wanted: Option<&str>, notes: &Mutex<Vec<String>>) -> Option<()> {
    let head = read_head(&mut client);
    lock(notes).push(head.clone());
    if wanted.is_some_and(|wanted| !head.contains(wanted)) {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n";
        return client.write_all(refusal).ok();
    }
    let gateway = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let back = (gateway.try_clone().ok()?, client.try_clone().ok()?);
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let other = thread::spawn(move || pump(back.0, back.1));
    pump(client, gateway);
    other.join().ok()
}
