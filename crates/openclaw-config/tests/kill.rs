//! A writer killed at any instant leaves a config that loads, and nothing it said it had written is lost.
//!
//! The test starts itself again as the writer, which sets `gateway.port` to 1, 2, 3 … and prints each number once it
//! is written, and kills it with SIGKILL after a random time.

#![allow(clippy::unwrap_used)] // A test may stop at the first surprise.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use openclaw_config::{
    Document, Env, Paths, Profile, identity,
    write::{Edit, Editor, Options, SetMode},
};

const NAME: &str = "a_killed_writer_leaves_a_config_that_loads";
const ROUNDS: u32 = 100;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write-into", dir] => write(Path::new(dir)),
        // What test runners ask for.
        args if args.contains(&"--list") => {
            if !args.contains(&"--ignored") {
                println!("{NAME}: test");
            }
        }
        _ => kill_rounds(),
    }
}

fn machine(dir: &Path) -> (Env, Paths) {
    let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.to_str().unwrap())]);
    let paths = Paths::resolve(&env, Profile::Default).unwrap();
    (env, paths)
}

fn port(doc: &Document) -> i64 {
    doc.get("gateway.port").map_or(0, |node| node.as_i64().unwrap())
}

fn write(dir: &Path) {
    let (env, paths) = machine(dir);
    identity::load_or_create(&paths).unwrap();
    let editor = Editor::new(&paths, &env);
    let first = port(&Document::load(&paths, &env).unwrap()) + 1;
    for n in first..60_000 {
        let edit = Edit::Set { path: "gateway.port".parse().unwrap(), value: n.into(), mode: SetMode::Set };
        editor.apply(&[edit], &Options::default()).unwrap();
        if n % 7 == 0 {
            // Back and forth: the swap has its own instants to be killed at.
            editor.undo(&Options::default()).unwrap();
            editor.undo(&Options::default()).unwrap();
        }
        println!("{n}");
        std::io::stdout().flush().unwrap();
    }
}

fn kill_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let (env, paths) = machine(dir.path());
    std::fs::write(&paths.config_file, "// kept\n{ gateway: { auth: { token: 'a-long-token' } } }\n").unwrap();
    let mut written = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("write-into")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The first line proves that it started where the last one was killed; then it lives for a moment.
        let mut acknowledged: i64 = lines.next().unwrap().unwrap().parse().unwrap();
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let end = Instant::now() + Duration::from_micros(u64::from(u16::from_le_bytes(random)) / 8);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            acknowledged = line.unwrap().parse().unwrap_or(acknowledged);
        }
        let doc = Document::load(&paths, &env).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = port(&doc);
        // A later write may have landed without being said; an undo under way shows the version before it.
        assert!(found >= acknowledged, "round {round}: {acknowledged} was acknowledged, {found} is there");
        assert!(doc.raw().starts_with("// kept\n"), "round {round}");
        assert!(openclaw_config::schema::validate(&doc).is_valid(), "round {round}");
        assert!(identity::load(&paths).unwrap().is_some(), "round {round}");
        written = found;
    }
    assert!(written >= i64::from(ROUNDS), "every round wrote something");
    println!("test {NAME} ... ok ({written} writes, {ROUNDS} kills)");
}
