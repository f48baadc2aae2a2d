//! The machine a measurement was made on.

use std::fs;

use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    /// Load average of the last minute before the run and after it.
    pub load: (f64, f64),
}

impl Machine {
    pub fn read() -> Self {
        let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let memory = field("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
        let uname = rustix::system::uname();
        let load = load_average();
        Self {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib / 1024.0 / 1024.0).round(),
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            load: (load, load),
        }
    }

    pub fn finish(&mut self) {
        self.load.1 = load_average();
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let Self { cpu, cores, memory_gib, kernel, load: (before, after) } = self;
        format!("{cores} × {cpu}, {memory_gib} GiB, {kernel}; load before {before:.1}, after {after:.1}")
    }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
