//! A gateway that is killed at any instant starts again and has lost nothing it acknowledged.
//!
//! The test starts itself as a child that pairs, approves, rotates, revokes and removes devices as fast as it can, tells
//! every decision before it is saved and every acknowledgement after, and is killed with SIGKILL somewhere in between.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use openclaw_gateway::{
    auth::decide::PairReason,
    lock::{Owner, StateLock},
    pairing::{
        Approver, ClientMeta, DevicePairing, DeviceRegistry, Effects, PairingError, PairingRequest, RequestId,
        TokenCaller, registry::random_token,
    },
    store::Store,
};
use openclaw_protocol::{DeviceId, DeviceKey, Protocol, Role, Scope, ScopeSet};

const ROUNDS: usize = 100;
/// Tasks that write at the same time, each with devices of its own.
const WRITERS: u8 = 3;
const DEVICES_PER_WRITER: u8 = 4;
const CHILD: &str = "OPENCLAW_TEST_KILL_CHILD";

/// Xorshift: enough to choose what to do next, and repeatable from the seed that a failure prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn p_80_nothing_acknowledged_is_lost_by_kill_nine() {
    if let Some(dir) = env::var_os(CHILD) {
        child(Path::new(&dir));
        return;
    }
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("random");
    let seed = u64::from_le_bytes(bytes) | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let dir = tempfile::tempdir().expect("temp dir");
    let state_dir = dir.path().join("state");
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let lines = run_and_kill(&state_dir, &mut dice);
        // Later lines of a device replace earlier ones; what was tried but not acknowledged may or may not be there.
        let mut tried: BTreeMap<String, String> = BTreeMap::new();
        for line in &lines {
            match line.split_once(' ').map(|(word, rest)| (word, rest.split_once(' ').unwrap_or((rest, "")))) {
                Some(("TRY", (device, state))) => drop(tried.insert(device.to_owned(), state.to_owned())),
                Some(("ACK", (device, _))) => {
                    let state = tried.remove(device).expect("told before it was saved");
                    known.insert(device.to_owned(), state);
                    acknowledged += 1;
                }
                // The test harness writes to the same pipe.
                _ => {}
            }
        }
        let lock = StateLock::acquire(&state_dir.join("gateway.lock"), owner());
        let _lock = lock.expect("a killed owner's lock is free");
        let path = state_dir.join("state").join("openclaw-rs.sqlite");
        let store = Store::open(&path).unwrap_or_else(|error| panic!("round {round}, seed {seed}: {error}"));
        let pairing = store.load_devices().unwrap_or_else(|error| panic!("round {round}, seed {seed}: {error}"));
        for number in 0..WRITERS * DEVICES_PER_WRITER {
            let device = id(number).to_string();
            let actual = describe(&pairing, &id(number));
            let expected = known.get(&device).cloned().unwrap_or_else(|| "absent".to_owned());
            let pending = tried.get(&device);
            assert!(
                actual == expected || Some(&actual) == pending,
                "round {round}, seed {seed}: device {number} is {actual}, acknowledged {expected}, tried {pending:?}"
            );
            known.insert(device, actual);
        }
        for entry in fs::read_dir(state_dir.join("state")).expect("lists").flatten() {
            let mode = entry.metadata().expect("meta").mode() & 0o777;
            assert_eq!(mode, 0o600, "P-76, {} after a crash under umask 000", entry.path().display());
        }
        store.close();
    }
    assert!(acknowledged > ROUNDS, "only {acknowledged} operations in {ROUNDS} rounds");
}

/// Runs a child until it has said a random number of lines, and a little longer.
fn run_and_kill(state_dir: &Path, dice: &mut Dice) -> Vec<String> {
    let test = "p_80_nothing_acknowledged_is_lost_by_kill_nine";
    let mut child = Command::new("/bin/sh")
        .args(["-c", "umask 000; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, state_dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = Vec::new();
    let mut line = String::new();
    for _ in 0..1 + dice.roll(60) {
        line.clear();
        if output.read_line(&mut line).expect("reads") == 0 {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let until = Instant::now() + Duration::from_micros(dice.roll(3_000));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    loop {
        line.clear();
        // A line without its end was cut by the kill: it was not said.
        if output.read_line(&mut line).expect("reads") == 0 || !line.ends_with('\n') {
            return lines;
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn owner() -> Owner {
    Owner { pid: std::process::id(), started_at_ms: 1, version: "test".into(), url: None }
}

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_seed(&[number + 1; 32])
}

fn id(number: u8) -> DeviceId {
    key(number).id()
}

/// Everything about a device that an acknowledgement promises.
fn describe(pairing: &DevicePairing, id: &DeviceId) -> String {
    let Some(device) = pairing.get(id) else { return "absent".to_owned() };
    let tokens: Vec<String> = device
        .tokens
        .iter()
        .map(|(role, t)| format!("{role}={}/{:?}/{:?}", t.secret.expose(), t.scopes, t.revoked_at_ms))
        .collect();
    format!("{:?}{:?}{:?}{tokens:?}", device.roles, device.approved_scopes, device.label).replace(' ', "")
}

fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).expect("the parent listens");
}

fn child(state_dir: &Path) {
    // The harness has begun a line of its own.
    say("");
    let _lock = StateLock::acquire(&state_dir.join("gateway.lock"), owner()).expect("free");
    let store = Store::open(&state_dir.join("state").join("openclaw-rs.sqlite")).expect("opens");
    let registry = Arc::new(DeviceRegistry::load(store).expect("loads"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("runtime");
    runtime.block_on(async {
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(writer, Arc::clone(&registry)))).collect();
        for writer in writers {
            writer.await.expect("writes until killed");
        }
    });
}

async fn write(writer: u8, registry: Arc<DeviceRegistry>) {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("random");
    let mut dice = Dice(u64::from_le_bytes(bytes) | 1);
    for now_ms in 2.. {
        let number = writer * DEVICES_PER_WRITER + dice.roll(u64::from(DEVICES_PER_WRITER)) as u8;
        let device = id(number);
        let token = random_token().expect("random");
        let operation = dice.roll(6);
        let scopes: ScopeSet = Scope::ALL.into_iter().filter(|_| dice.roll(2) == 0).collect();
        let done = registry
            .change(|pairing| -> Result<((), Effects), PairingError> {
                let effects = match operation {
                    0 | 1 => {
                        let asked = request(number, scopes, pairing);
                        let full = |_| PairingError::UnknownRequest;
                        let (requested, first) = pairing.request(now_ms, RequestId::random(), asked).map_err(full)?;
                        let approver = Approver { scopes: ScopeSet::EMPTY, owner: true };
                        let (_, second) = pairing.approve(now_ms, &requested.request_id, &approver, token)?;
                        Effects { changes: [first.changes, second.changes].concat(), ..Effects::none() }
                    }
                    2 => {
                        let caller = TokenCaller {
                            scopes: ScopeSet::all(),
                            device_id: None,
                            own_token: false,
                            owner: true,
                            protocol: Protocol::V4,
                        };
                        pairing.rotate(now_ms, &caller, &device, Role::Operator, None, token)?.1
                    }
                    3 => pairing.revoke(now_ms, &device, Role::Operator)?.1,
                    4 => pairing.rename(now_ms, &device, &format!("name-{now_ms}"))?.1,
                    _ => pairing.remove(now_ms, &device)?,
                };
                say(&format!("TRY {device} {}", describe(pairing, &device)));
                Ok(((), effects))
            })
            .await;
        // Refusals (nothing to rotate, say) change nothing and are not told.
        if done.is_ok() {
            say(&format!("ACK {device}"));
        }
    }
}

fn request(number: u8, scopes: ScopeSet, pairing: &DevicePairing) -> PairingRequest {
    let reason = match pairing.get(&id(number)) {
        None => PairReason::NotPaired,
        Some(known) if !known.roles.contains(&Role::Operator) => PairReason::RoleUpgrade,
        Some(_) => PairReason::ScopeUpgrade,
    };
    PairingRequest {
        device_id: id(number),
        public_key: key(number).public(),
        role: Role::Operator,
        scopes,
        client: ClientMeta::default(),
        remote_ip: None,
        reason,
        silent: false,
    }
}
