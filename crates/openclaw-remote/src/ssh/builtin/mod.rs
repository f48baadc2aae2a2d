//! An ssh client inside this program, for machines that have none (feature `builtin-ssh`).
//!
//! It honours what it can and refuses what it cannot: host keys have to be in `known_hosts` (none is learned here), logins
//! are by the agent or by a key without a passphrase, and a config that sends this host through another one, or that
//! decides by `Match`, ends with a line that says so.

mod login;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use russh::{
    ChannelMsg, ChannelOpenFailure, Disconnect, Preferred,
    client::{self, Handle},
    keys::{
        PrivateKeyWithHashAlg, PublicKeyOrCertificate,
        agent::{AgentIdentity, client::AgentClient},
        load_secret_key,
    },
};
use tokio::{
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    Effective, Output, RemoteCommand, SshFailure, SshFailureKind, SshSpec, SshTarget,
    forward::{BEAT, Forward, HEARTBEAT, Learned, MAX_BEATS, Near, Pulse, SILENT_SESSION, Wishes},
};
use crate::deadline::Deadline;
use login::Login;

/// ssh's own sign of life, for accounts without a session: three of them unanswered end the connection.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Most that is kept of a command's output.
const MAX_OUTPUT_BYTES: usize = 1024 * 1024;
/// Longest line of the far account that is looked at.
const MAX_LINE_BYTES: usize = 256;

/// Judges the host's key; what it found wrong is told here, because the library's error does not say it.
struct Judge {
    login: Login,
    verdict: Arc<Mutex<Option<SshFailure>>>,
}

impl client::Handler for Judge {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let verdict = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.login.judge(key),
            PublicKeyOrCertificate::Certificate(_) => {
                Some(SshFailure::new(SshFailureKind::HostUnknown, "the host shows a certificate"))
            }
        };
        let accepted = verdict.is_none();
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
        Ok(accepted)
    }
}

/// Connects and logs in.
async fn log_in(spec: &SshSpec, home: &Path) -> Result<Handle<Judge>, SshFailure> {
    let login = Login::plan(spec, home)?;
    let stream = TcpStream::connect((login.host.as_str(), login.port)).await.map_err(|error| of_io(&error))?;
    let _ = stream.set_nodelay(true);
    let mut preferred = Preferred::DEFAULT;
    let known = login.known_algorithms();
    if !known.is_empty() {
        // Asks for the kinds of key that are on record, as ssh does.
        preferred.key = known.into();
    }
    let config = client::Config {
        preferred,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 3,
        ..client::Config::default()
    };
    let verdict = Arc::new(Mutex::new(None));
    let judge = Judge { login: login.clone(), verdict: Arc::clone(&verdict) };
    let mut session = match client::connect_stream(Arc::new(config), stream, judge).await {
        Ok(session) => session,
        Err(error) => {
            let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
            return Err(verdict.unwrap_or_else(|| of_russh(&error)));
        }
    };
    authenticate(&mut session, &login).await?;
    Ok(session)
}

async fn authenticate(session: &mut Handle<Judge>, login: &Login) -> Result<(), SshFailure> {
    let rsa = session.best_supported_rsa_hash().await.map_err(|error| of_russh(&error))?.flatten();
    if login.agent
        && let Ok(mut agent) = AgentClient::connect_env().await
    {
        for identity in agent.request_identities().await.unwrap_or_default() {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            let hash = if key.algorithm().is_rsa() { rsa } else { None };
            // An agent that declines one key may sign with the next.
            let answer = session.authenticate_publickey_with(&login.user, key, hash, &mut agent).await;
            if answer.is_ok_and(|answer| answer.success()) {
                return Ok(());
            }
        }
    }
    let mut unusable = None;
    for file in login.keys.iter().filter(|file| file.exists()) {
        let key = match load_secret_key(file, None) {
            Ok(key) => key,
            Err(error) => {
                unusable = Some(format!("{}: {error}", file.display()));
                continue;
            }
        };
        let hash = if key.algorithm().is_rsa() { rsa } else { None };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let answer = session.authenticate_publickey(&login.user, key).await.map_err(|error| of_russh(&error))?;
        if answer.success() {
            return Ok(());
        }
    }
    Err(match unusable {
        Some(why) => SshFailure::new(SshFailureKind::Identity, why),
        None if login.missing_key() => SshFailure::new(SshFailureKind::Identity, "there is no such file"),
        None => SshFailure::new(SshFailureKind::AuthRefused, "no key was accepted (publickey)"),
    })
}

/// [`super::effective`] without a program.
pub(super) fn effective(target: &SshTarget, home: &Path) -> Result<Effective, SshFailure> {
    let login = Login::plan(&SshSpec::new(target.clone()), home)?;
    Ok(Effective {
        host: login.host,
        port: Some(login.port),
        user: Some(login.user),
        proxy_jump: None,
        identity_files: login.keys,
        known_hosts: vec![login.known_hosts],
    })
}

/// [`Forward::open`] without a program.
pub(super) async fn open(spec: &SshSpec, home: &Path, near: Near, deadline: Deadline) -> Result<Forward, SshFailure> {
    let work = async {
        let session = log_in(spec, home).await?;
        let local = |error: io::Error| SshFailure::new(SshFailureKind::Local, error.to_string());
        let listener = crate::tunnel::bind_socket(&near.0).map_err(local)?;
        let (publish, pulse) = watch::channel(Pulse::default());
        let wishes = Arc::new(Wishes::default());
        let carrier =
            Carrier { spec: spec.clone(), session: Arc::new(session), publish, beats: VecDeque::new(), count: 0 };
        let task = tokio::spawn(carrier.run(listener, Arc::clone(&wishes)));
        // Whoever gives up from here on drops it, and the task with it.
        let mut forward = Forward::new(spec.clone(), near, pulse, wishes, task);
        let mut pulse = forward.pulse();
        let echoed = pulse.wait_for(|pulse| pulse.last_echo.is_some() || pulse.ended.is_some());
        let seen = timeout(SILENT_SESSION, echoed).await.ok().and_then(Result::ok).map(|pulse| pulse.clone());
        if let Some(failure) = seen.as_ref().and_then(|pulse| pulse.ended.clone()) {
            return Err(failure);
        }
        forward.learn(Learned { no_session: seen.is_none(), ..Learned::default() });
        Ok(forward)
    };
    match timeout(deadline.left(), work).await {
        Ok(done) => done.map_err(|failure: SshFailure| failure.about(spec)),
        Err(_) => Err(SshFailure::timed_out(deadline.budget()).about(spec)),
    }
}

/// [`super::run_once`] without a program.
pub(super) async fn run_once(
    spec: &SshSpec,
    home: &Path,
    remote: &RemoteCommand,
    stdin: &[u8],
) -> Result<Output, SshFailure> {
    let failed = |error: russh::Error| of_russh(&error).about(spec);
    let session = log_in(spec, home).await.map_err(|failure| failure.about(spec))?;
    let mut channel = session.channel_open_session().await.map_err(failed)?;
    channel.exec(true, remote.line()).await.map_err(failed)?;
    let writer = channel.make_writer();
    let feed = async move {
        let mut writer = writer;
        // A command that does not read its input is no failure.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, stdin).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
    };
    let read = async {
        let (mut code, mut stdout, mut stderr) = (None, Vec::new(), Vec::new());
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => keep(&mut stdout, &data),
                ChannelMsg::ExtendedData { data, .. } => keep(&mut stderr, &data),
                ChannelMsg::ExitStatus { exit_status } => code = i32::try_from(exit_status).ok(),
                ChannelMsg::Failure => break,
                _ => {}
            }
        }
        (code, stdout, stderr)
    };
    tokio::pin!(feed, read);
    let (code, stdout, stderr) = tokio::select! {
        done = &mut read => done,
        () = &mut feed => read.await,
    };
    let _ = session.disconnect(Disconnect::ByApplication, "", "").await;
    let lost = || SshFailure::new(SshFailureKind::Other, "the account ran no command to its end").about(spec);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Ok(Output { code: code.ok_or_else(lost)?, stdout, stderr })
}

fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    let room = MAX_OUTPUT_BYTES.saturating_sub(kept.len()).min(more.len());
    kept.extend_from_slice(&more[..room]);
}

/// The task that is the tunnel.
struct Carrier {
    spec: SshSpec,
    session: Arc<Handle<Judge>>,
    publish: watch::Sender<Pulse>,
    /// Beats on their way: number and when sent.
    beats: VecDeque<(u64, Instant)>,
    count: u64,
}

impl Carrier {
    async fn run(mut self, listener: UnixListener, wishes: Arc<Wishes>) {
        let mut channel = self.session.channel_open_session().await.ok();
        if let Some(session) = &channel
            && session.exec(true, "cat").await.is_err()
        {
            channel = None;
        }
        let mut clock = interval(HEARTBEAT);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut line = Vec::new();
        let failure = loop {
            let message = async {
                match &mut channel {
                    Some(channel) => channel.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wishes.end.notified() => {
                    let _ = self.session.disconnect(Disconnect::ByApplication, "", "").await;
                    break SshFailure::new(SshFailureKind::Lost, "closed by this program");
                }
                message = message => match message {
                    Some(ChannelMsg::Data { data }) => self.echo(&mut line, &data),
                    // The account gives no session; the tunnel goes on without.
                    None | Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::ExitStatus { .. }) => {
                        channel = None;
                    }
                    Some(_) => {}
                },
                accepted = listener.accept() => if let Ok((near, _)) = accepted {
                    self.carry(near);
                },
                _ = clock.tick() => self.beat(&mut channel).await,
                () = wishes.beat.notified() => self.beat(&mut channel).await,
            }
            if self.session.is_closed() {
                break SshFailure::new(SshFailureKind::Lost, "the connection ended");
            }
        };
        self.publish.send_modify(|pulse| pulse.ended = Some(failure.about(&self.spec)));
    }

    async fn beat(&mut self, channel: &mut Option<russh::Channel<client::Msg>>) {
        let Some(session) = channel else { return };
        if self.beats.len() >= MAX_BEATS {
            return;
        }
        self.count += 1;
        self.beats.push_back((self.count, Instant::now()));
        if session.data_bytes(format!("\n{BEAT}{}\n", self.count).into_bytes()).await.is_err() {
            *channel = None;
        }
    }

    fn echo(&mut self, line: &mut Vec<u8>, data: &[u8]) {
        for byte in data {
            if *byte != b'\n' {
                if line.len() < MAX_LINE_BYTES {
                    line.push(*byte);
                }
                continue;
            }
            let text = String::from_utf8_lossy(line).into_owned();
            line.clear();
            let Some(number) = text.strip_prefix(BEAT).and_then(|digits| digits.parse().ok()) else { continue };
            let mut sent = None;
            while let Some((_, at)) = self.beats.pop_front_if(|(beat, _)| *beat <= number) {
                sent = Some(at);
            }
            let Some(sent) = sent else { continue };
            let now = Instant::now();
            self.publish.send_modify(|pulse| {
                // The first one waited for the far shell as well.
                if pulse.last_echo.replace(now).is_some() {
                    pulse.round_trip = Some(now.duration_since(sent));
                }
            });
        }
    }

    /// One connection through a channel of its own. It ends with the session.
    fn carry(&self, mut near: UnixStream) {
        let (session, publish, spec) = (Arc::clone(&self.session), self.publish.clone(), self.spec.clone());
        tokio::spawn(async move {
            let port = u32::from(spec.gateway_port);
            match session.channel_open_direct_tcpip("127.0.0.1", port, "127.0.0.1", 0).await {
                Ok(channel) => {
                    let mut far = channel.into_stream();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
                Err(error) => publish.send_modify(|pulse| pulse.refuse(of_russh(&error).about(&spec))),
            }
        });
    }
}

fn of_io(error: &io::Error) -> SshFailure {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused => SshFailureKind::Refused,
        io::ErrorKind::TimedOut => SshFailureKind::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => SshFailureKind::Unreachable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => SshFailureKind::Handshake,
        // The resolver's errors have no kind of their own.
        _ => SshFailureKind::Name,
    };
    SshFailure::new(kind, error.to_string())
}

fn of_russh(error: &russh::Error) -> SshFailure {
    let kind = match error {
        russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => SshFailureKind::GatewayDown,
        russh::Error::ChannelOpenFailure(_) => SshFailureKind::ForwardRefused,
        russh::Error::IO(error) => return of_io(error),
        russh::Error::NoCommonAlgo { .. } => SshFailureKind::Negotiation,
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError => SshFailureKind::Handshake,
        _ => SshFailureKind::Other,
    };
    SshFailure::new(kind, error.to_string())
}
