//! Command lines, whole process, and what is on disk.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    load::Values,
    stats::Samples,
    subject::{Kind, Programs, Running},
};

const COMMANDS: &[(&str, &[&str])] = &[
    ("cli_version", &["--version"]),
    ("cli_health", &["health"]),
    ("cli_gateway_status", &["gateway", "status"]),
    ("cli_gateway_probe", &["gateway", "probe"]),
];

/// Wall time of commands against a running gateway; the echo's figure is a process that does nothing.
pub fn wall(programs: &Programs, gateway: &Running, runs: usize) -> Result<Values> {
    let mut found = Values::new();
    if gateway.kind == Kind::Echo {
        let nothing = timed(|| Ok(Command::new("/bin/true")), runs)?;
        found.extend(nothing.quantile_ms(0.5).map(|ms| ("cli_version", ms)));
        return Ok(found);
    }
    for (key, args) in COMMANDS {
        let samples = timed(
            || {
                let mut command = gateway.cli(programs)?;
                command.args(*args);
                Ok(command)
            },
            runs,
        );
        match samples {
            Ok(samples) => found.extend(samples.quantile_ms(0.5).map(|ms| (*key, ms))),
            Err(error) => eprintln!("{}: {}: {error:#}", gateway.kind.name(), args.join(" ")),
        }
    }
    Ok(found)
}

pub fn timed(make: impl Fn() -> Result<Command>, runs: usize) -> Result<Samples> {
    let mut samples = Samples::default();
    for run in 0..=runs {
        let mut command = make()?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took: Duration = start.elapsed();
        ensure!(status.success(), "{status}");
        // The first run reads the program from disk.
        if run > 0 {
            samples.push(took);
        }
    }
    Ok(samples)
}

/// What has to be on disk to run a subject, MB: our one file; the reference's packages and Node.
pub fn size_on_disk(programs: &Programs, kind: Kind) -> Option<f64> {
    let bytes = match kind {
        Kind::Ours => fs::metadata(programs.ours.as_ref()?).ok()?.len(),
        Kind::Reference => {
            let (node, script) = programs.reference.as_ref()?;
            bytes_below(script.parent()?.parent()?) + fs::metadata(node).ok()?.len()
        }
        Kind::Echo => return None,
    };
    Some(bytes as f64 / 1e6)
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) if meta.is_file() => meta.len(),
            _ => 0,
        })
        .sum()
}
