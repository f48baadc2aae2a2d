//! Processes: started in a group of their own, weighed over their whole tree, ended with it (Linux only).

use std::{
    collections::HashMap,
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::sleep;

/// A started process and everything it starts; all of it ends when this is dropped.
pub struct Process {
    child: Child,
    pub started: Instant,
}

impl Process {
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, started })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks `ready` until it says yes.
    ///
    /// # Errors
    /// When the process ends first or `limit` passes.
    pub async fn wait_for(&mut self, limit: Duration, mut ready: impl AsyncFnMut() -> bool) -> Result<Duration> {
        while self.started.elapsed() < limit {
            if ready().await {
                return Ok(self.started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended early: {status}");
            }
            sleep(Duration::from_micros(500)).await;
        }
        bail!("the process was not ready within {limit:?}")
    }

    /// SIGTERM, and SIGKILL for what is left after 15 s.
    pub async fn stop(mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(15) && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL to the whole group, now.
    pub fn kill(&mut self) {
        if let Some(group) = self.pid() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Processes of its tree with this short name, longest-running first.
    pub fn named(&self, name: &str) -> Vec<u32> {
        let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let mut found: Vec<u32> = tree(self.id()).into_iter().filter(|pid| comm(pid).trim() == name).collect();
        found.sort_by_key(|pid| started(*pid));
        found
    }

    /// Memory and CPU of the process tree.
    pub fn usage(&self) -> Usage {
        Usage::of_tree(self.id())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.id()).ok()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process tree uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Proportional set size, KiB.
    pub pss_kib: u64,
    /// CPU time, ns.
    pub cpu_ns: u64,
}

impl Usage {
    /// The sum over `root` and all its descendants.
    pub fn of_tree(root: u32) -> Self {
        let mut sum = Self::default();
        for pid in tree(root) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            sum.pss_kib += pss.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let on_cpu = schedstat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
                sum.cpu_ns += on_cpu.unwrap_or(0);
            }
        }
        sum
    }

    /// Proportional set size in MB (10⁶ bytes).
    pub fn pss_mb(self) -> f64 {
        self.pss_kib as f64 * 1024.0 / 1e6
    }
}

fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and parentheses; the fields start after the last one.
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

/// Clock ticks after boot at which a process started.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(19)?.parse().ok()
}

/// Ends one process without warning.
pub fn kill_one(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Raises the limit of open files to what the system allows.
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
