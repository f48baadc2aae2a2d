//! The fuzz targets on a stable toolchain: every seed of `fuzz/corpus`, then a fixed number of mutations of them.
//!
//! `OPENCLAW_TEST_FUZZ_SEED` (a number) starts somewhere else, `OPENCLAW_TEST_FUZZ_TIMES` (a number) runs that many times longer.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use lab::fuzz::{
    TARGETS, Target,
    mutate::{Rng, mutated},
};

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
    let mut seeds: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.clone(), fs::read(path).expect("a seed")))
        .collect();
    seeds.sort();
    assert!(seeds.len() >= 3, "{} has only {} seeds", target.name, seeds.len());
    seeds
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Replays the seeds, then mutations of them. A failure names what is needed to see it again.
fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let seeds = corpus(target);
    for (path, data) in &seeds {
        attempt(target, data, || path.display().to_string());
    }
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, data)| data).collect();
    let seed = number("OPENCLAW_TEST_FUZZ_SEED").unwrap_or(1);
    let mut rng = Rng::new(seed);
    for step in 0..target.mutations * number("OPENCLAW_TEST_FUZZ_TIMES").unwrap_or(1) {
        let data = mutated(&mut rng, &seeds);
        attempt(target, &data, || format!("mutation {step} from OPENCLAW_TEST_FUZZ_SEED={seed}"));
    }
}

fn attempt(target: &Target, data: &[u8], origin: impl Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(data))) {
        let file = env::temp_dir().join(format!("openclaw-fuzz-{}-{}", target.name, std::process::id()));
        fs::write(&file, data).expect("the input is kept");
        eprintln!(
            "target {} failed on {}: {} bytes, kept in {}\n  {}",
            target.name,
            origin(),
            data.len(),
            file.display(),
            data.escape_ascii()
        );
        std::panic::resume_unwind(panic);
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run_and_has_a_binary() {
            let run = [$(stringify!($name)),*];
            let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(run.to_vec(), known);
            let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
            let manifest = fs::read_to_string(directory.join("Cargo.toml")).expect("fuzz/Cargo.toml");
            for name in run {
                let file = format!("fuzz_targets/{name}.rs");
                let source = fs::read_to_string(directory.join(&file)).expect(&file);
                assert!(source.contains(&format!("lab::fuzz::{name}(data)")), "{file} runs something else");
                assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{file}\"")), "{name} is not in Cargo.toml");
            }
        }
    };
}

targets! {
    frame
    connect
    device_proof
    config_document
    config_edit
    config_path
    config_redact
    gateway_url
    websocket
    http_head
    evidence
    pairing
    setup_code
}
