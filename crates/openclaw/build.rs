//! Records the commit this binary is built from, or `unknown` outside a git checkout.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=OPENCLAW_COMMIT");
    let given = std::env::var("OPENCLAW_COMMIT").ok().filter(|commit| is_commit(commit));
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=OPENCLAW_COMMIT={commit}");
}

fn is_commit(text: &str) -> bool {
    (7..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn from_git() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    // HEAD changes with a checkout, the log of HEAD with every commit.
    let dir = git(&["rev-parse", "--absolute-git-dir"])?;
    for file in ["HEAD", "logs/HEAD"] {
        let path = Path::new(&dir).join(file);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "--short=7", "HEAD"]).filter(|commit| is_commit(commit))
}
