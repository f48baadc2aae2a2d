//! What a test needs from the machine, and how it says so when the machine has not got it.
//!
//! A test that cannot run here must not pass in silence. It prints `SKIPPED <test>: <why>` and returns; `tests/run`
//! collects these lines and shows them at the end. With `OPENCLAW_TEST_REQUIRE_ALL` set, such a test fails instead.
//!
//! ```no_run
//! # use lab::{require, require::program};
//! let sshd = require!(program("sshd"));
//! ```

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

/// The file `tests/run` collects skipped tests in, one line each.
const SKIPS_VAR: &str = "OPENCLAW_TEST_SKIPS";
/// Makes a missing capability a failure.
const REQUIRE_ALL_VAR: &str = "OPENCLAW_TEST_REQUIRE_ALL";

/// What a test needs: the value, or why this machine cannot give it.
pub type Capability<T> = Result<T, String>;

/// Yields the value of a [`Capability`], or says that the test is skipped, and why, and returns from it.
#[macro_export]
macro_rules! require {
    ($capability:expr) => {
        match $capability {
            Ok(value) => value,
            Err(why) => return $crate::require::skipped(&why),
        }
    };
}

/// Says that the calling test is skipped.
///
/// # Panics
/// If `OPENCLAW_TEST_REQUIRE_ALL` is set.
pub fn skipped(why: &str) {
    let name = std::env::var("NEXTEST_TEST_NAME")
        .ok()
        .or_else(|| std::thread::current().name().map(str::to_owned))
        .unwrap_or_else(|| "a test".to_owned());
    let line = format!("SKIPPED {name}: {}", why.replace('\n', " "));
    assert!(std::env::var_os(REQUIRE_ALL_VAR).is_none(), "{line} ({REQUIRE_ALL_VAR} is set)");
    eprintln!("{line}");
    if let Some(file) = std::env::var_os(SKIPS_VAR) {
        let written = OpenOptions::new().create(true).append(true).open(&file).and_then(|mut f| writeln!(f, "{line}"));
        if let Err(error) = written {
            eprintln!("cannot note it in {}: {error}", file.display());
        }
    }
}

/// A program by its name, looked for on `PATH` and where system programs live.
///
/// # Errors
/// If it is not installed.
pub fn program(name: &str) -> Capability<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed; run tests/setup"))
}

/// Root, as the owner of network namespaces and system services needs to be.
///
/// # Errors
/// If this is another user.
pub fn root() -> Capability<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("needs root".to_owned()) }
}

/// Network namespaces that this process may make, and iproute2 to wire them.
///
/// # Errors
/// If the kernel or the sandbox does not let it.
pub fn network_namespaces() -> Capability<()> {
    root()?;
    program("ip")?;
    let unshare = program("unshare")?;
    let made = Command::new(unshare).args(["--net", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match made {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("this sandbox allows no network namespaces".to_owned()),
        Err(error) => Err(format!("unshare does not start: {error}")),
    }
}

/// What `tests/netlab` needs: namespaces, pairs of virtual cables, bridges, and NAT.
///
/// # Errors
/// Which of them is missing.
pub fn netlab() -> Capability<()> {
    network_namespaces()?;
    program("nft")?;
    let wires = "ip link add lab0 type veth peer name lab1 && ip link add lab2 type bridge";
    let made = Command::new(program("unshare")?).args(["--net", "sh", "-c", wires]).output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("no virtual networks here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("unshare does not start: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_remedy() {
        assert!(program("sh").is_ok());
        assert_eq!(
            program("no-such-program-anywhere").unwrap_err(),
            "no-such-program-anywhere is not installed; run tests/setup"
        );
    }
}
