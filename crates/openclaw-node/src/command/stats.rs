//! How this machine is doing: payload of the event `node.host.stats`.

use std::path::Path;

use serde_json::{Value, json};

/// A sample; `None` where this system tells no memory.
pub fn sample(home: Option<&Path>) -> Option<Value> {
    let (total, free) = memory()?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).clamp(1, 4096);
    let mut stats = json!({ "cpuCount": cpus });
    if let Some(load) = load().filter(|load| load.iter().any(|value| *value != 0.0)) {
        stats["loadAverage"] = json!(load);
    }
    stats["memoryTotalBytes"] = json!(total);
    stats["memoryFreeBytes"] = json!(free.min(total));
    if let Some((total, available)) = home.and_then(disk) {
        stats["diskTotalBytes"] = json!(total);
        stats["diskAvailableBytes"] = json!(available.min(total));
    }
    Some(stats)
}

/// Averages over 1, 5 and 15 minutes.
fn load() -> Option<[f64; 3]> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
    let load = [numbers.next()?, numbers.next()?, numbers.next()?];
    Some(load.map(|value| value.clamp(0.0, 100_000.0)))
}

/// Total and available memory, in bytes.
fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("MemTotal")?, field("MemAvailable").or_else(|| field("MemFree"))?))
}

/// Size of the file system below `path`, and what an ordinary user may still write.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_captured_keys() {
        // Elsewhere there may be nothing to read.
        let stats = sample(Some(Path::new("/")));
        let stats = if cfg!(target_os = "linux") { stats.unwrap() } else { stats.unwrap_or_default() };
        if stats.is_null() {
            return;
        }
        let number = |key: &str| stats[key].as_u64();
        assert!(number("cpuCount").is_some_and(|count| count > 0));
        for (part, whole) in [("memoryFreeBytes", "memoryTotalBytes"), ("diskAvailableBytes", "diskTotalBytes")] {
            assert!(number(part) <= number(whole) && number(whole) > Some(0), "{stats}");
        }
    }
}
