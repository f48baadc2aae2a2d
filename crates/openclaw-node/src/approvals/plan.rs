//! What was shown to a person, kept until it runs or expires.
//!
//! ```text
//! system.run.prepare ──> bind: words, directory, environment, files ──> remembered, shown by the gateway
//! system.run approved ─> bind again, from what is about to run ──> the same? not used yet? policy unchanged? ──> runs
//! ```
//!
//! A plan is this process's memory and nobody else's word: an approval for something that was never prepared here, or
//! before a restart, is refused and has to be asked for again.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_protocol::method::exec::FileOperand;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    analysis::{Analysis, Part},
    policy,
};
use crate::{
    exec::argv::{CommandLine, base_name},
    sha256_hex,
};

/// How long a plan is good. The reference lets approvals live 30 minutes; the rest is for the way.
pub const PLAN_LIFE: Duration = Duration::from_secs(35 * 60);
/// Plans kept; the oldest goes.
const MAX_PLANS: usize = 256;
/// Approval ids remembered as used.
const MAX_USED: usize = 1024;
/// Files of a plan.
const MAX_FILES: usize = 64;
/// Files up to this size are bound by their content, larger ones by what the file system says of them. 64 MiB.
const MAX_HASHED_BYTES: u64 = 64 << 20;

/// Programs that run a file given as an argument.
const INTERPRETERS: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "ash",
    "fish",
    "node",
    "nodejs",
    "deno",
    "bun",
    "tsx",
    "ts-node",
    "ruby",
    "perl",
    "php",
    "lua",
    "luajit",
    "Rscript",
    "osascript",
    "tclsh",
    "wish",
    "expect",
    "awk",
    "gawk",
    "mawk",
    "sed",
    "make",
    "gmake",
    "java",
    "julia",
    "elixir",
    "erl",
    "pwsh",
    "groovy",
    "scala",
    "racket",
    "guile",
    "sbcl",
    "swift",
    "go",
];
/// Options by which they load code that nobody was shown.
const CODE_LOADING: &[&str] = &["-m", "-r", "--require", "--import", "--loader", "--experimental-loader", "--preload"];

/// Everything an approval covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub argv: Vec<String>,
    pub cwd: PathBuf,
    /// Device and inode: the directory itself, not its name.
    cwd_id: (u64, u64),
    pub env: BTreeMap<String, String>,
    pub agent: Option<String>,
    pub session: Option<String>,
    /// Programs and scripts: real path and content.
    files: BTreeMap<PathBuf, String>,
    /// The first script among the arguments, as the reference's plans name it.
    pub script: Option<FileOperand>,
}

/// Why a command cannot be bound, or an approval does not hold. The texts follow the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("SYSTEM_RUN_DENIED: approval requires an existing canonical cwd")]
    NoDirectory,
    #[error("SYSTEM_RUN_DENIED: approval requires a stable executable path")]
    NoProgram,
    #[error("SYSTEM_RUN_DENIED: approval cannot safely bind this interpreter/runtime command")]
    CodeLoading,
    #[error("SYSTEM_RUN_DENIED: approval cannot bind that many files")]
    TooManyFiles,
    #[error("SYSTEM_RUN_DENIED: approval requires a readable script operand")]
    Unreadable,
    #[error("SYSTEM_RUN_DENIED: this command was not prepared on this node, or too long ago; request approval again")]
    Unknown,
    #[error("SYSTEM_RUN_DENIED: approval cwd changed before execution")]
    Directory,
    #[error("SYSTEM_RUN_DENIED: approval does not cover this environment")]
    Environment,
    #[error("SYSTEM_RUN_DENIED: approval script operand changed before execution")]
    Files,
    #[error("SYSTEM_RUN_DENIED: exec approval policy changed; request approval again")]
    Policy,
    #[error("SYSTEM_RUN_DENIED: this approval was used already; request approval again")]
    Used,
}

impl Binding {
    /// Takes down what a command would run, now.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be told for certain.
    pub fn new(
        line: &CommandLine,
        analysis: &Analysis,
        cwd: &Path,
        env: &BTreeMap<String, String>,
        agent: Option<&str>,
        session: Option<&str>,
    ) -> Result<Self, Refusal> {
        let cwd = std::fs::canonicalize(cwd).map_err(|_| Refusal::NoDirectory)?;
        let meta = std::fs::metadata(&cwd).map_err(|_| Refusal::NoDirectory)?;
        if !meta.is_dir() {
            return Err(Refusal::NoDirectory);
        }
        let mut binding = Self {
            argv: line.argv.clone(),
            cwd_id: (meta.dev(), meta.ino()),
            env: env.clone(),
            agent: agent.map(str::to_owned),
            session: session.map(str::to_owned),
            files: BTreeMap::new(),
            script: None,
            cwd,
        };
        if !analysis.shell {
            // The program's real path in the place of a name, so that the search path has no say later on.
            let program = analysis.parts.first().and_then(|part| part.program.as_ref()).ok_or(Refusal::NoProgram)?;
            if let Some(first) = binding.argv.first_mut() {
                *first = program.path.to_string_lossy().into_owned();
            }
        }
        for (at, part) in analysis.parts.iter().enumerate() {
            binding.add_part(part, !analysis.shell && at == 0)?;
        }
        if let (false, Some(text)) = (analysis.understood, &line.shell) {
            // Whatever looks like a file of this machine in a line nobody could take apart.
            let breaks = |c: char| c.is_whitespace() || ";|&<>()\"'`$={}".contains(c);
            for word in text.split(breaks).filter(|word| !word.is_empty()) {
                binding.add_file(word)?;
            }
        }
        Ok(binding)
    }

    fn add_part(&mut self, part: &Part, direct: bool) -> Result<(), Refusal> {
        if let Some(program) = &part.program {
            let content = identity(&program.real).ok_or(Refusal::NoProgram)?;
            self.files.insert(program.real.clone(), content);
        }
        let Some((program, arguments)) = part.argv.split_first() else { return Ok(()) };
        let name = base_name(program);
        let real = part.program.as_ref().and_then(|program| program.real.file_name()?.to_str().map(str::to_owned));
        let interprets =
            |name: &str| INTERPRETERS.contains(&name) || name.starts_with("python") || name.starts_with("pypy");
        if !part.opaque && !interprets(name) && !real.as_deref().is_some_and(interprets) {
            return Ok(());
        }
        let loads = |argument: &String| {
            CODE_LOADING.iter().any(|option| {
                argument == option || argument.strip_prefix(option).is_some_and(|rest| rest.starts_with('='))
            })
        };
        // Where options end a script begins, and its arguments are its own.
        let options = arguments.iter().take_while(|argument| argument.starts_with('-'));
        if !part.opaque && options.clone().any(loads) {
            return Err(Refusal::CodeLoading);
        }
        for (at, word) in arguments.iter().enumerate() {
            let added = self.add_file(word)?;
            if let (Some((path, sha256)), true, None) = (added, direct, &self.script) {
                let path = path.to_string_lossy().into_owned();
                self.script = Some(FileOperand { argv_index: at as u64 + 1, path, sha256 });
            }
        }
        Ok(())
    }

    /// Binds a word if it names a file.
    fn add_file(&mut self, word: &str) -> Result<Option<(PathBuf, String)>, Refusal> {
        let path = self.cwd.join(word);
        if !std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
            return Ok(None);
        }
        let real = std::fs::canonicalize(&path).map_err(|_| Refusal::Unreadable)?;
        let content = identity(&real).ok_or(Refusal::Unreadable)?;
        self.files.insert(real.clone(), content.clone());
        if self.files.len() > MAX_FILES { Err(Refusal::TooManyFiles) } else { Ok(Some((real, content))) }
    }

    /// SHA-256 over all of it, each part with its length before it.
    pub fn digest(&self) -> String {
        let mut subject = Vec::new();
        let mut add = |bytes: &[u8]| {
            subject.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            subject.extend_from_slice(bytes);
        };
        add(b"openclaw exec approval 1");
        add(&(self.argv.len() as u64).to_be_bytes());
        self.argv.iter().for_each(|word| add(word.as_bytes()));
        add(self.cwd.as_os_str().as_encoded_bytes());
        add(&self.cwd_id.0.to_be_bytes());
        add(&self.cwd_id.1.to_be_bytes());
        add(&(self.env.len() as u64).to_be_bytes());
        for (name, value) in &self.env {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for text in [&self.agent, &self.session] {
            add(&[u8::from(text.is_some())]);
            add(text.as_deref().unwrap_or_default().as_bytes());
        }
        for (path, content) in &self.files {
            add(path.as_os_str().as_encoded_bytes());
            add(content.as_bytes());
        }
        sha256_hex(&subject)
    }
}

/// The content of a file, or for a huge one what would change with it.
fn identity(file: &Path) -> Option<String> {
    let meta = std::fs::metadata(file).ok()?;
    if meta.len() > MAX_HASHED_BYTES {
        let (dev, ino, len) = (meta.dev(), meta.ino(), meta.len());
        return Some(format!("stat:{dev}:{ino}:{len}:{}:{}", meta.mtime(), meta.mtime_nsec()));
    }
    Some(sha256_hex(&std::fs::read(file).ok()?))
}

struct Plan {
    binding: Binding,
    digest: String,
    snapshot: Value,
    at: Instant,
    /// How often it may still run: once for each time it was prepared.
    left: u32,
}

/// The plans of this process.
#[derive(Default)]
pub struct Ledger {
    plans: Vec<Plan>,
    /// Approval ids that were used, oldest first.
    used: Vec<String>,
}

impl Ledger {
    /// Remembers a plan and the policy under which it was shown.
    pub fn remember(&mut self, binding: Binding, snapshot: Value, now: Instant) {
        self.plans.retain(|plan| now.saturating_duration_since(plan.at) < PLAN_LIFE);
        let digest = binding.digest();
        match self.plans.iter_mut().find(|plan| plan.digest == digest && plan.snapshot == snapshot) {
            Some(plan) => (plan.at, plan.left) = (now, plan.left.saturating_add(1)),
            None => {
                if self.plans.len() >= MAX_PLANS {
                    self.plans.remove(0);
                }
                self.plans.push(Plan { binding, digest, snapshot, at: now, left: 1 });
            }
        }
    }

    /// Uses an approval for what is about to run. `approval` is the id under which it was given, if the gateway says.
    ///
    /// # Errors
    /// [`Refusal`]; the plan is as it was then.
    pub fn redeem(
        &mut self,
        binding: &Binding,
        approval: Option<&str>,
        snapshot: &Value,
        now: Instant,
    ) -> Result<(), Refusal> {
        if approval.is_some_and(|id| self.used.iter().any(|used| used == id)) {
            return Err(Refusal::Used);
        }
        let mut same: Vec<&mut Plan> = self
            .plans
            .iter_mut()
            .filter(|plan| now.saturating_duration_since(plan.at) < PLAN_LIFE)
            .filter(|plan| {
                let (then, now) = (&plan.binding, binding);
                (&then.argv, &then.cwd, &then.agent, &then.session) == (&now.argv, &now.cwd, &now.agent, &now.session)
            })
            .collect();
        // Each test keeps what passes it, so that the refusal names the first thing no plan agrees with.
        type Test<'a> = &'a dyn Fn(&Plan) -> bool;
        let tests: [(Test<'_>, Refusal); 6] = [
            (&|_| true, Refusal::Unknown),
            (&|plan| plan.binding.cwd_id == binding.cwd_id, Refusal::Directory),
            (&|plan| plan.binding.env == binding.env, Refusal::Environment),
            (&|plan| plan.binding.files == binding.files, Refusal::Files),
            (&|plan| policy::is_current(&plan.snapshot, snapshot), Refusal::Policy),
            (&|plan| plan.left > 0, Refusal::Used),
        ];
        for (test, refusal) in tests {
            same.retain(|plan| test(plan));
            if same.is_empty() {
                return Err(refusal);
            }
        }
        let digest = binding.digest();
        let plan = same.into_iter().find(|plan| plan.digest == digest).ok_or(Refusal::Unknown)?;
        plan.left -= 1;
        if let Some(id) = approval {
            if self.used.len() >= MAX_USED {
                self.used.remove(0);
            }
            self.used.push(id.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{approvals::analysis, exec::argv};
    use serde_json::json;

    struct Bench {
        dir: tempfile::TempDir,
        ledger: Ledger,
        policy: Value,
    }

    impl Bench {
        fn new() -> Self {
            let policy = json!({"security": "allowlist", "ask": "on-miss", "askFallback": "deny",
                                "autoAllowSkills": false, "allowlistRules": []});
            Self { dir: tempfile::tempdir().unwrap(), ledger: Ledger::default(), policy }
        }

        fn bind(&self, words: &[&str], env: &[(&str, &str)]) -> Result<Binding, Refusal> {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            let line = argv::resolve(&words, None).unwrap();
            let analysis = analysis::analyse(&line, self.dir.path(), "/usr/bin:/bin");
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Binding::new(&line, &analysis, self.dir.path(), &env, Some("main"), None)
        }

        fn prepare(&mut self, words: &[&str], env: &[(&str, &str)]) {
            let binding = self.bind(words, env).unwrap();
            self.ledger.remember(binding, self.policy.clone(), Instant::now());
        }

        fn redeem(&mut self, words: &[&str], env: &[(&str, &str)], id: Option<&str>) -> Result<(), Refusal> {
            let binding = self.bind(words, env)?;
            self.ledger.redeem(&binding, id, &self.policy.clone(), Instant::now())
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }
    }

    #[test]
    fn an_approval_is_for_these_words_once() {
        let mut bench = Bench::new();
        assert_eq!(bench.redeem(&["echo", "hi"], &[], None), Err(Refusal::Unknown), "nothing was prepared");
        bench.prepare(&["echo", "hi"], &[]);
        assert_eq!(bench.redeem(&["echo", "ho"], &[], None), Err(Refusal::Unknown));
        assert_eq!(bench.redeem(&["echo", "hi"], &[("TERM", "x")], None), Err(Refusal::Environment));
        assert_eq!(bench.redeem(&["echo", "hi"], &[], Some("a1")), Ok(()));
        assert_eq!(bench.redeem(&["echo", "hi"], &[], Some("a2")), Err(Refusal::Used));
        bench.prepare(&["echo", "hi"], &[]);
        assert_eq!(bench.redeem(&["echo", "hi"], &[], Some("a1")), Err(Refusal::Used), "the id was used before");
        assert_eq!(bench.redeem(&["echo", "hi"], &[], Some("a2")), Ok(()));
    }

    #[test]
    fn scripts_are_bound_by_content() {
        let mut bench = Bench::new();
        let rows: &[&[&str]] = &[
            &["sh", "run.sh", "x"],
            &["/bin/sh", "-c", "ls && sh run.sh"],
            &["/bin/sh", "-c", "A=1; . ./run.sh"],
            &["env", "B=1", "sh", "run.sh"],
        ];
        for words in rows {
            bench.write("run.sh", "echo good");
            bench.prepare(words, &[]);
            bench.write("run.sh", "echo evil");
            assert_eq!(bench.redeem(words, &[], None), Err(Refusal::Files), "{words:?}");
            bench.write("run.sh", "echo good");
            assert_eq!(bench.redeem(words, &[], None), Ok(()), "{words:?}");
        }
        // A file that is merely read is none of it.
        bench.write("notes", "1");
        bench.prepare(&["cat", "notes"], &[]);
        bench.write("notes", "2");
        assert_eq!(bench.redeem(&["cat", "notes"], &[], None), Ok(()));
    }

    #[test]
    fn a_script_run_by_name_is_bound_too() {
        use std::os::unix::fs::PermissionsExt as _;
        let mut bench = Bench::new();
        bench.write("tool", "#!/bin/sh\necho good\n");
        let file = bench.dir.path().join("tool");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        bench.prepare(&["./tool"], &[]);
        bench.write("tool", "#!/bin/sh\necho evil\n");
        assert_eq!(bench.redeem(&["./tool"], &[], None), Err(Refusal::Files));
    }

    #[test]
    fn the_plan_names_the_program_and_the_script() {
        let bench = Bench::new();
        bench.write("run.sh", "x");
        let binding = bench.bind(&["sh", "-e", "run.sh"], &[]).unwrap();
        assert_eq!(binding.argv[0], "/usr/bin/sh");
        let script = binding.script.unwrap();
        let path = std::fs::canonicalize(bench.dir.path()).unwrap().join("run.sh");
        assert_eq!(
            (script.argv_index, script.path.as_str(), script.sha256),
            (2, path.to_str().unwrap(), sha256_hex(b"x"))
        );
        assert_eq!(bench.bind(&["no-such-program"], &[]), Err(Refusal::NoProgram));
        // A shell's line stays as it was shown.
        assert_eq!(bench.bind(&["/bin/sh", "-c", "echo hi"], &[]).unwrap().argv, ["/bin/sh", "-c", "echo hi"]);
    }

    #[test]
    fn code_nobody_was_shown() {
        let bench = Bench::new();
        for words in [&["perl", "-r", "x"][..], &["/bin/sh", "-c", "perl --require=x y"]] {
            assert_eq!(bench.bind(words, &[]), Err(Refusal::CodeLoading), "{words:?}");
        }
        assert!(bench.bind(&["perl", "x", "-r"], &[]).is_ok(), "a script's own option");
    }

    #[test]
    fn a_directory_in_its_place_is_another() {
        let mut bench = Bench::new();
        bench.prepare(&["ls"], &[]);
        let path = bench.dir.path().to_owned();
        let moved = path.with_extension("moved");
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        let outcome = bench.redeem(&["ls"], &[], None);
        std::fs::remove_dir(&moved).unwrap();
        assert_eq!(outcome, Err(Refusal::Directory));
    }

    #[test]
    fn a_stricter_policy_ends_what_was_approved() {
        let mut bench = Bench::new();
        bench.prepare(&["ls"], &[]);
        bench.policy["security"] = json!("deny");
        assert_eq!(bench.redeem(&["ls"], &[], None), Err(Refusal::Policy));
        bench.policy["security"] = json!("allowlist");
        bench.policy["allowlistRules"] = json!([{"pattern": "/bin/cat"}]);
        assert_eq!(bench.redeem(&["ls"], &[], None), Ok(()), "more rules are no reason");
    }

    #[tokio::test(start_paused = true)]
    async fn plans_expire() {
        let mut bench = Bench::new();
        bench.prepare(&["ls"], &[]);
        tokio::time::advance(PLAN_LIFE).await;
        assert_eq!(bench.redeem(&["ls"], &[], None), Err(Refusal::Unknown));
    }

    #[test]
    fn the_digest_tells_everything_apart() {
        let bench = Bench::new();
        let one = bench.bind(&["echo", "a", "b"], &[]).unwrap();
        let changed = |change: &dyn Fn(&mut Binding)| {
            let mut other = one.clone();
            change(&mut other);
            other.digest()
        };
        let digests = [
            one.digest(),
            changed(&|b| b.argv = vec![one.argv[0].clone(), "ab".into(), String::new()]),
            changed(&|b| b.argv[1] = "a\0b".into()),
            changed(&|b| b.cwd = "/elsewhere".into()),
            changed(&|b| b.cwd_id.1 += 1),
            changed(&|b| drop(b.env.insert("TERM".into(), String::new()))),
            changed(&|b| b.agent = None),
            changed(&|b| b.session = Some(String::new())),
            changed(&|b| drop(b.files.insert("/x".into(), "1".into()))),
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
