//! Ways to a gateway beside each other in one run: direct, TLS, `ssh -N` by hand, the same with a session, and
//! `openclaw tunnel`. The real OpenClaw is reached directly, as its documentation says (`ssh -N`), and through our tunnel.
//!
//! Everything is on loopback with an sshd of our own: what is measured is what each way adds, without any distance.

mod own;
mod table;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use openclaw_config::Certificate;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    client::{Conn, Identity, Target, Via, request},
    commands::timed,
    echo::Sizes,
    load::{Scale, connects, health, invoke},
    machine::Machine,
    ssh::{Channel, Server, Tunnel},
    stats::rate,
    subject::{Kind, Programs, Running},
};
use own::OwnTunnel;
pub use table::Table;

/// A way to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Direct,
    Tls,
    /// `ssh -N -L` by hand.
    SshN,
    /// `ssh -L` by hand, with a session beside: the bare tunnel at its best.
    Session,
    /// `openclaw tunnel`.
    Own,
}

/// Every pair that is measured, in the order of the table.
const WAYS: &[(Kind, Way)] = &[
    (Kind::Ours, Way::Direct),
    (Kind::Ours, Way::Tls),
    (Kind::Ours, Way::SshN),
    (Kind::Ours, Way::Session),
    (Kind::Ours, Way::Own),
    (Kind::Reference, Way::Direct),
    (Kind::Reference, Way::SshN),
    (Kind::Reference, Way::Own),
    (Kind::Echo, Way::Session),
    (Kind::Echo, Way::Own),
];

/// An answer of the echo, for the throughput.
const BULK_ANSWER_BYTES: usize = 256 * 1024;
/// A tunnel that was killed has to be back within this.
const BACK_LIMIT: Duration = Duration::from_secs(30);

/// A way that is open.
struct Open {
    kind: Kind,
    way: Way,
    target: Target,
    carrier: Carrier,
}

/// What holds a way open.
enum Carrier {
    Nothing,
    ByHand(Tunnel),
    Own(OwnTunnel),
}

/// Runs everything and returns the table.
pub async fn measure(programs: &Programs, scale: Scale, rounds: usize) -> Result<Table> {
    let mut table = Table::default();
    let sshd = Server::try_start().await.context("no sshd to go through")?;
    let mut gateways = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| programs.has(*kind)) {
        let mut programs = programs.clone();
        if kind == Kind::Echo {
            programs.sizes = Sizes { answer_bytes: BULK_ANSWER_BYTES, ..programs.sizes };
        }
        gateways.push((Way::Direct, programs.start(kind).await.with_context(|| kind.name())?));
        if kind == Kind::Ours {
            let tls = json!({ "gateway": { "tls": { "enabled": true } } });
            match programs.start_with(kind, &tls, pinned).await {
                Ok(gateway) => gateways.push((Way::Tls, gateway)),
                Err(error) => table.failed("ours with TLS", &error),
            }
        }
    }
    let mut open = Vec::new();
    for (kind, way) in WAYS {
        let place = if *way == Way::Tls { Way::Tls } else { Way::Direct };
        let Some((_, gateway)) = gateways.iter().find(|(at, gateway)| *at == place && gateway.kind == *kind) else {
            continue;
        };
        eprintln!("{}: {way:?}: opening", kind.name());
        match carry(programs, &sshd, gateway, *way).await {
            Ok(way) => open.push(way),
            Err(error) => table.failed(&format!("{} {way:?}", kind.name()), &error),
        }
    }
    for round in 0..rounds {
        let by = round % open.len().max(1);
        open.rotate_left(by);
        for way in &mut open {
            eprintln!("round {}: {}: {:?}", round + 1, way.kind.name(), way.way);
            let gateway = gateways.iter().map(|(_, gateway)| gateway).find(|gateway| gateway.kind == way.kind);
            let gateway = gateway.context("every way leads to a gateway")?;
            let found = run(programs, &sshd, gateway, way, scale, &mut table).await;
            if let Err(error) = found {
                table.failed(&format!("{} {:?}", way.kind.name(), way.way), &error);
            }
        }
    }
    drop(open);
    for (_, gateway) in gateways {
        gateway.stop().await;
    }
    Ok(table)
}

/// The report as JSON.
pub fn json(table: &Table, machine: &Machine, versions: &Value, rounds: usize) -> Value {
    json!({ "machine": machine, "versions": versions, "rounds": rounds, "ways": table.json() })
}

/// The way to a gateway with TLS, by the certificate it made.
fn pinned(target: &Target, state: &std::path::Path) -> Option<Target> {
    let certificate = Certificate::read(&state.join("gateway/tls/gateway-cert.pem")).ok()?;
    Some(Target { via: Via::Tls(certificate.fingerprint), ..target.clone() })
}

async fn carry(programs: &Programs, sshd: &Server, gateway: &Running, way: Way) -> Result<Open> {
    let (target, to) = (gateway.target.clone(), gateway.target.address);
    let by_hand = |tunnel: Tunnel| (Target { address: tunnel.local, ..target.clone() }, Carrier::ByHand(tunnel));
    let (target, carrier) = match way {
        Way::Direct | Way::Tls => (target, Carrier::Nothing),
        Way::SshN => by_hand(sshd.tunnel(to, Channel::None).await?),
        Way::Session => by_hand(sshd.tunnel(to, Channel::Session).await?),
        Way::Own => {
            let tunnel = OwnTunnel::open(programs, sshd, &target).await?;
            (Target { address: tunnel.local, ..target }, Carrier::Own(tunnel))
        }
    };
    Ok(Open { kind: gateway.kind, way, target, carrier })
}

async fn run(
    programs: &Programs,
    sshd: &Server,
    gateway: &Running,
    open: &mut Open,
    scale: Scale,
    table: &mut Table,
) -> Result<()> {
    let (key, target) = ((open.kind, open.way), open.target.clone());
    let mut add = |metric: &'static str, value: Option<f64>| table.add(key, metric, value);
    if open.kind == Kind::Echo {
        // The echo is here for the throughput: large answers, a few under way.
        let mut conn = Conn::open(&target, &Identity::backend()).await?;
        conn.pump(20, 4, |id| request(&id.to_string(), "health", &json!({}))).await?;
        let (start, count) = (Instant::now(), scale.requests / 4);
        let (_, bytes) = conn.pump(count, 4, |id| request(&id.to_string(), "health", &json!({}))).await?;
        add("bulk", Some(rate(count, start.elapsed()) * bytes as f64 / 1e6));
        conn.close().await;
        return Ok(());
    }
    connects(&target, &[Identity::backend()], 3).await?;
    let (_, samples) = connects(&target, &[Identity::backend()], scale.connects / 6).await?;
    add("connect_p50", samples.quantile_ms(0.5));
    add("connect_p90", samples.quantile_ms(0.9));
    let (_, samples) = health(&target, 1, 1, scale.requests / 8).await?;
    add("health_p50", samples.quantile_ms(0.5));
    add("health_p99", samples.quantile_ms(0.99));
    let (took, samples) = health(&target, 1, 16, scale.requests / 4).await?;
    add("health_16", Some(rate(samples.len(), took)));
    // Behind `ssh -N` each call of the reference takes 50 ms.
    let (serial, _) = invoke(open.kind, &target, scale.invokes / 8).await?;
    add("invoke_p50", serial.quantile_ms(0.5));
    if open.way != Way::Tls {
        let runs = if open.kind == Kind::Reference || scale.connects < 100 { 1 } else { 20 };
        add("cli", timed(|| command_line(programs, gateway, open), runs)?.quantile_ms(0.5));
    }
    for _ in 0..if scale.connects < 100 { 1 } else { 5 } {
        add("back", back(sshd, open).await?);
    }
    Ok(())
}

/// The command line of this subject, going this way.
fn command_line(programs: &Programs, gateway: &Running, open: &Open) -> Result<Command> {
    let mut command = gateway.cli(programs)?;
    match (&open.carrier, open.kind) {
        (Carrier::Nothing, _) => {}
        (Carrier::Own(tunnel), Kind::Ours) => tunnel.configure(&mut command),
        (Carrier::ByHand(_) | Carrier::Own(_), _) => {
            command.env("OPENCLAW_GATEWAY_URL", format!("ws://{}", open.target.address));
        }
    }
    command.arg("health");
    Ok(command)
}

/// Kills what carries the way, and takes the time until the next hello, in ms.
async fn back(sshd: &Server, open: &mut Open) -> Result<Option<f64>> {
    let start;
    match &mut open.carrier {
        Carrier::Nothing => return Ok(None),
        Carrier::ByHand(tunnel) => {
            start = Instant::now();
            sshd.start_again(tunnel).await?;
        }
        Carrier::Own(tunnel) => {
            tunnel.rested().await?;
            start = Instant::now();
            tunnel.kill_ssh()?;
        }
    }
    let connected = async {
        while Conn::open(&open.target, &Identity::backend()).await.is_err() {
            sleep(Duration::from_micros(500)).await;
        }
    };
    timeout(BACK_LIMIT, connected).await.context("the tunnel did not come back")?;
    let took = start.elapsed();
    ensure!(took > Duration::ZERO, "no time passed");
    Ok(Some(took.as_secs_f64() * 1e3))
}
