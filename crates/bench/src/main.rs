//! Measures this gateway beside the real OpenClaw and beside a bare WebSocket echo, interleaved in one run.
//!
//! ```sh
//! cargo build --release -p openclaw -p bench
//! target/release/bench            # everything, three rounds, about half an hour
//! target/release/bench load       # one part: lifecycle, load, nodes, agent, stored, cli, ssh
//! target/release/bench tunnel     # ways to a gateway beside each other: a table of its own
//! ```
//!
//! Absolute times belong to the machine; ratios and medians are what is worth quoting. See `docs/benchmarks.md`.

mod agent;
mod client;
mod commands;
mod echo;
mod load;
mod machine;
mod nodes;
mod process;
mod report;
mod sse;
mod ssh;
mod stats;
mod stored;
mod subject;
mod tunnel;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    load::{Scale, Shape},
    machine::Machine,
    report::Report,
    subject::{Kind, Programs, Running},
};

#[derive(Parser)]
#[command(about = "Measures this gateway beside the real OpenClaw and beside a bare WebSocket echo")]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Interleaved rounds; the medians are reported
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// Only these load shapes
    #[arg(long, global = true, value_enum)]
    only: Vec<Shape>,
    /// Small numbers: shows that everything works, measures nothing
    #[arg(long, global = true)]
    quick: bool,
    /// Our binary [default: openclaw beside this program]
    #[arg(long, global = true)]
    ours: Option<PathBuf>,
    /// Leave the real OpenClaw out
    #[arg(long, global = true)]
    no_reference: bool,
    /// Leave our gateway out
    #[arg(long, global = true)]
    no_ours: bool,
    /// Print JSON instead of the table
    #[arg(long, global = true)]
    json: bool,
    /// Write the JSON, every round in it, to this file as well
    #[arg(long, global = true)]
    save: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum What {
    /// Everything (the default)
    All,
    /// Start, memory at rest, memory per idle connection
    Lifecycle,
    /// Connects, requests, broadcasts, node calls; memory afterwards
    Load,
    /// Hundreds of nodes
    Nodes,
    /// Turns, streamed tokens, many conversations at once
    Agent,
    /// Thousands of stored conversations: memory, lists, search
    Stored,
    /// Command lines and size on disk
    Cli,
    /// Connecting through `ssh -N`
    Ssh,
    /// Ways to a gateway beside each other: direct, TLS, ssh, our tunnel (a table of its own, not part of "all")
    Tunnel,
    /// Serve the bare echo (started by the other parts)
    #[command(hide = true)]
    Echo {
        #[arg(long)]
        listen: SocketAddr,
        #[command(flatten)]
        sizes: echo::Sizes,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    process::raise_open_files();
    let what = args.what.unwrap_or(What::All);
    if let What::Echo { listen, sizes } = what {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(echo::serve(listen, sizes))?;
        return Ok(ExitCode::SUCCESS);
    }
    // One thread: the meter must not take the core that the gateway needs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(measure(args, what)))
}

async fn measure(args: &Args, what: What) -> Result<ExitCode> {
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let scale = if args.quick { Scale::QUICK } else { Scale::FULL };
    let mut programs = Programs {
        ours: subject::find_ours(args.ours.clone()).filter(|_| !args.no_ours),
        reference: subject::find_reference().filter(|_| !args.no_reference),
        sizes: echo::Sizes { hello_bytes: 16_000, answer_bytes: 1_400, event_bytes: 850 },
    };
    if programs.ours.is_none() && !args.no_ours {
        eprintln!("our gateway is missing: cargo build --release -p openclaw -p bench");
    }
    if programs.reference.is_none() && !args.no_reference {
        eprintln!("the real OpenClaw is not measured: install it with tests/setup");
    }
    if what == What::Tunnel {
        return ways(args, &programs, scale).await;
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| programs.has(*kind)).collect();
    let (mut machine, mut report) = (Machine::read(), Report::default());
    let wants = |part| what == What::All || what == part;
    if programs.has(Kind::Ours) {
        // The echo carries the same bytes as ours.
        let gateway = programs.start(Kind::Ours).await?;
        programs.sizes = load::frame_sizes(&gateway.target).await?;
        gateway.stop().await;
    }
    if wants(What::Lifecycle) {
        for round in 0..args.rounds {
            for kind in in_turn(&kinds, round) {
                let found = lifecycle(&programs, kind, scale, &mut report).await;
                report.take(kind, "lifecycle", found.map(|()| Vec::new()));
            }
        }
    }
    fresh(args, what, scale, &programs, &kinds, &mut report).await;
    if wants(What::Load) || wants(What::Cli) || wants(What::Ssh) {
        let mut gateways = Vec::new();
        for kind in &kinds {
            gateways.push(programs.start(*kind).await.with_context(|| kind.name())?);
        }
        rounds(args, what, scale, &programs, &gateways, &mut report).await;
        for gateway in gateways {
            gateway.stop().await;
        }
    }
    for kind in kinds.iter().filter(|_| wants(What::Cli)) {
        report.add(*kind, commands::size_on_disk(&programs, *kind).map(|size| ("size", size)).into_iter().collect());
    }
    machine.finish();
    let versions = versions(&programs);
    let frames = format!("frames of ours, copied by the echo: {:?}", programs.sizes);
    let text = || format!("{}\n{versions}\n{}\n{frames}", machine.text(), report.table());
    print(args, &report.json(&machine, &versions, args.rounds), text)?;
    Ok(if report.missed() > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// The part with a table of its own.
async fn ways(args: &Args, programs: &Programs, scale: Scale) -> Result<ExitCode> {
    let mut machine = Machine::read();
    let table = tunnel::measure(programs, scale, args.rounds).await?;
    machine.finish();
    let versions = versions(programs);
    let text = || format!("{}\n{versions}\n{}", machine.text(), table.text());
    print(args, &tunnel::json(&table, &machine, &versions, args.rounds), text)?;
    Ok(if table.missed() > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn print(args: &Args, json: &Value, text: impl FnOnce() -> String) -> Result<()> {
    let json = format!("{json:#}");
    if let Some(file) = &args.save {
        std::fs::write(file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{}", if args.json { json } else { text() });
    Ok(())
}

/// The subjects, starting with another one each round.
fn in_turn(kinds: &[Kind], round: usize) -> Vec<Kind> {
    let mut kinds = kinds.to_vec();
    let by = round % kinds.len().max(1);
    kinds.rotate_left(by);
    kinds
}

/// Start, memory at rest, memory per idle connection, of a fresh process each time.
async fn lifecycle(programs: &Programs, kind: Kind, scale: Scale, report: &mut Report) -> Result<()> {
    eprintln!("{}: start and rest", kind.name());
    let gateway = programs.start(kind).await?;
    report.add(kind, vec![("first_hello", gateway.first_hello.as_secs_f64() * 1e3)]);
    sleep(scale.settle).await;
    report.add(kind, vec![("pss_fresh", gateway.process.usage().pss_mb())]);
    let idle = load::idle(&gateway, scale).await;
    report.take(kind, "idle connections", idle);
    gateway.stop().await;
    Ok(())
}

/// Parts that need a gateway of their own each time. The echo has nothing to compare.
async fn fresh(args: &Args, what: What, scale: Scale, programs: &Programs, kinds: &[Kind], report: &mut Report) {
    let wants = |part| what == What::All || what == part;
    for round in 0..args.rounds {
        for kind in in_turn(kinds, round).into_iter().filter(|kind| *kind != Kind::Echo) {
            if wants(What::Nodes) {
                eprintln!("round {}: {}: nodes", round + 1, kind.name());
                let found = match programs.start(kind).await {
                    Ok(gateway) => nodes::measure(&gateway, scale).await,
                    Err(error) => Err(error),
                };
                report.take(kind, "nodes", found);
            }
            if wants(What::Agent) {
                eprintln!("round {}: {}: agent", round + 1, kind.name());
                agent::measure(programs, kind, scale, report).await;
            }
            if wants(What::Stored) && kind == Kind::Ours {
                eprintln!("round {}: {}: stored conversations", round + 1, kind.name());
                report.take(kind, "stored conversations", stored::measure(programs, scale).await);
            }
        }
    }
}

async fn rounds(args: &Args, what: What, scale: Scale, programs: &Programs, gateways: &[Running], report: &mut Report) {
    let wants = |part| what == What::All || what == part;
    let sshd = if wants(What::Ssh) { ssh::Server::start().await } else { None };
    let kinds: Vec<Kind> = gateways.iter().map(|gateway| gateway.kind).collect();
    for round in 0..args.rounds {
        let order = in_turn(&kinds, round);
        let order = || order.iter().filter_map(|kind| gateways.iter().find(|gateway| gateway.kind == *kind));
        let chosen = |shape: &Shape| wants(What::Load) && (args.only.is_empty() || args.only.contains(shape));
        for shape in Shape::ALL.into_iter().filter(chosen) {
            for gateway in order() {
                eprintln!("round {}: {}: {shape:?}", round + 1, gateway.kind.name());
                report.take(gateway.kind, &format!("{shape:?}"), shape.run(gateway, scale).await);
            }
        }
        for gateway in order().filter(|_| wants(What::Cli)) {
            eprintln!("round {}: {}: command lines", round + 1, gateway.kind.name());
            let runs = if gateway.kind == Kind::Reference || args.quick { 1 } else { 20 };
            report.take(gateway.kind, "command lines", commands::wall(programs, gateway, runs));
        }
        for gateway in order() {
            if let Some(sshd) = &sshd {
                eprintln!("round {}: {}: ssh -N", round + 1, gateway.kind.name());
                let found = sshd.handshakes(gateway, scale.connects / 6).await;
                report.take(gateway.kind, "ssh -N", found);
            }
        }
    }
    if wants(What::Load) {
        sleep(scale.settle).await;
        for gateway in gateways {
            report.add(gateway.kind, vec![("pss_loaded", gateway.process.usage().pss_mb())]);
        }
    }
}

fn versions(programs: &Programs) -> Value {
    let version = |kind| {
        let output = programs.cli(kind).ok()?.arg("--version").env("HOME", std::env::temp_dir()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let known = |kind| if programs.has(kind) { version(kind) } else { None };
    json!({ "ours": known(Kind::Ours), "reference": known(Kind::Reference) })
}
