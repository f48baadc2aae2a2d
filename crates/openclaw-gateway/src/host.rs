//! Facts about the machine the gateway runs on.

/// What `system.info` and presence tell.
#[derive(Clone, Debug)]
pub struct HostFacts {
    pub hostname: String,
    /// Kernel name, e.g. `Linux`.
    pub system: String,
    pub release: String,
    pub cpus: usize,
    /// 1, 5 and 15 minutes; empty where the system does not tell.
    pub load_average: Vec<f64>,
    pub memory_total_bytes: u64,
    pub memory_free_bytes: u64,
}

/// Reads the facts now. Nothing here fails: what is unknown is empty or 0.
pub fn facts() -> HostFacts {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let (memory_total_bytes, memory_free_bytes) = memory();
    HostFacts {
        hostname: text(uname.nodename()),
        system: text(uname.sysname()),
        release: text(uname.release()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        load_average: load_average(),
        memory_total_bytes,
        memory_free_bytes,
    }
}

#[cfg(target_os = "linux")]
fn load_average() -> Vec<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).filter_map(|n| n.parse().ok()).collect()
}

#[cfg(not(target_os = "linux"))]
fn load_average() -> Vec<f64> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    (field("MemTotal").unwrap_or(0), field("MemAvailable").unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn memory() -> (u64, u64) {
    (0, 0)
}
