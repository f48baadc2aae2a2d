//! Three hundred sudden deaths. The gateway is killed at random instants while it writes config and pairings; it always
//! starts again, and whatever it had acknowledged is still so.
//!
//! `OPENCLAW_TEST_KILLS` sets another number of kills, `OPENCLAW_TEST_SEED` repeats a run's random choices.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use lab::{
    client::{Client, Login, Outcome, new_device},
    dice::{self, Dice},
    sandbox::{Sandbox, Setup, walk},
    wire::{Address, read_lossy},
};
use openclaw_protocol::DeviceKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const KILLS: u32 = 300;
/// Kills happen this long after the work began, at most. A config write or a pairing takes a few milliseconds.
const LONGEST_LIFE: Duration = Duration::from_millis(60);
/// Of so many deaths, one is while starting.
const STARTS_KILLED: u64 = 6;
/// Revoked tokens that are tried at the end.
const REFUSALS: u32 = 4;

/// What a device may be after the gateway died: what was acknowledged, and what was under way.
#[derive(Clone, Debug)]
struct Expected {
    key: DeviceKey,
    token: String,
    /// Not there any more, by an acknowledged removal.
    removed: bool,
    /// Its token was revoked.
    revoked: bool,
    label: Option<String>,
    /// The operation that was not answered.
    doubt: Option<Doubt>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Doubt {
    Rotate,
    Remove,
    Revoke,
    Rename(String),
}

/// Everything that was acknowledged.
#[derive(Default)]
struct Ledger {
    devices: BTreeMap<String, Expected>,
    /// Requests that wait: request id by device id.
    pending: BTreeMap<String, String>,
    /// A request whose approval was not answered.
    doubtful_request: Option<String>,
    port: u64,
    port_in_doubt: Option<u64>,
    acknowledged: u64,
    unanswered: u64,
}

impl Ledger {
    fn acknowledge(&mut self) {
        self.acknowledged += 1;
    }
}

/// Pairs, approves, rotates, renames, revokes and removes until the gateway is gone.
fn drive_pairing(address: &Address, token: &str, ledger: &mut Ledger, dice: &mut Dice) -> Option<()> {
    let mut admin = admitted(Login::at(address).token(token).scopes(&["operator.admin"]))?;
    loop {
        let living: Vec<String> = ledger
            .devices
            .iter()
            .filter(|(_, device)| !device.removed && !device.revoked)
            .map(|(id, _)| id.clone())
            .collect();
        let choice = if living.len() < 3 { dice.roll(2) } else { dice.roll(8) };
        let pick = |dice: &mut Dice| living[usize::try_from(dice.roll(living.len() as u64)).expect("small")].clone();
        match choice {
            0 => pair_silently(address, token, ledger)?,
            1 | 2 => ask_and_approve(address, token, ledger, &mut admin, dice)?,
            3 | 4 => rotate(address, &pick(dice), ledger)?,
            5 => {
                let (id, label) = (pick(dice), format!("label {}", dice.roll(1_000_000)));
                let params = json!({"deviceId": id, "label": label});
                let doubt = Doubt::Rename(label.clone());
                change(ledger, &mut admin, &id, "device.pair.rename", params, doubt, |d| d.label = Some(label))?;
            }
            6 => {
                let id = pick(dice);
                let params = json!({"deviceId": id, "role": "operator"});
                change(ledger, &mut admin, &id, "device.token.revoke", params, Doubt::Revoke, |d| d.revoked = true)?;
            }
            _ => {
                let id = pick(dice);
                let params = json!({"deviceId": id});
                change(ledger, &mut admin, &id, "device.pair.remove", params, Doubt::Remove, |d| d.removed = true)?;
            }
        }
    }
}

/// A hello, or nothing when the gateway is gone. Any other refusal is a failure of the test.
fn admitted(login: Login) -> Option<Client> {
    match login.attempt_if_open()? {
        Outcome::Hello(client) => Some(client),
        Outcome::Refused(refused) if refused.error.is_null() => None,
        other => panic!("{other:?}"),
    }
}

fn remember(ledger: &mut Ledger, key: DeviceKey, token: String) {
    let id = key.id().to_string();
    let fresh = Expected { key, token, removed: false, revoked: false, label: None, doubt: None };
    ledger.devices.insert(id, fresh);
    ledger.acknowledge();
}

fn pair_silently(address: &Address, token: &str, ledger: &mut Ledger) -> Option<()> {
    let key = new_device();
    let Some(client) = admitted(Login::at(address).token(token).device(&key)) else {
        ledger.unanswered += 1;
        return None;
    };
    remember(ledger, key, client.device_token());
    Some(())
}

/// A page asks, the administrator approves or rejects, the page comes back.
fn ask_and_approve(
    address: &Address,
    token: &str,
    ledger: &mut Ledger,
    admin: &mut Client,
    dice: &mut Dice,
) -> Option<()> {
    let key = new_device();
    let origin = format!("http://{}", address.host());
    let page = || Login::at(address).token(token).client("openclaw-control-ui", "webchat").origin(&origin).device(&key);
    let asked = match page().attempt_if_open()? {
        Outcome::Refused(refused) if refused.error.is_null() => return None,
        Outcome::Refused(refused) => refused,
        other => panic!("{other:?}"),
    };
    let request = asked.error["details"]["requestId"].as_str().unwrap_or_else(|| panic!("{}", asked.error)).to_owned();
    let id = key.id().to_string();
    ledger.pending.insert(id.clone(), request.clone());
    ledger.acknowledge();
    ledger.doubtful_request = Some(id.clone());
    let approve = dice.roll(4) > 0;
    let method = if approve { "device.pair.approve" } else { "device.pair.reject" };
    let Some(answer) = admin.try_call(method, json!({"requestId": request})) else {
        ledger.unanswered += 1;
        return None;
    };
    answer.unwrap_or_else(|error| panic!("{method}: {error}"));
    ledger.doubtful_request = None;
    ledger.pending.remove(&id);
    ledger.acknowledge();
    if approve {
        // Approved is approved, with or without a first visit: an empty token says that it has not been here.
        remember(ledger, key.clone(), String::new());
        let client = admitted(page())?;
        ledger.devices.get_mut(&id).expect("just remembered").token = client.device_token();
    }
    Some(())
}

/// The device replaces its own token.
fn rotate(address: &Address, id: &str, ledger: &mut Ledger) -> Option<()> {
    let device = ledger.devices.get(id).expect("known").clone();
    if device.token.is_empty() || device.doubt.is_some() {
        return Some(());
    }
    let login = Login::at(address).device_token(&device.token).device(&device.key);
    let mut client = admitted(login)?;
    let known = ledger.devices.get_mut(id).expect("known");
    known.doubt = Some(Doubt::Rotate);
    let Some(answer) = client.try_call("device.token.rotate", json!({"deviceId": id, "role": "operator"})) else {
        ledger.unanswered += 1;
        return None;
    };
    // Without the pairing scope it may not; then nothing has changed.
    if let Ok(rotated) = answer {
        known.token = rotated["token"].as_str().expect("in-band").to_owned();
    }
    known.doubt = None;
    ledger.acknowledge();
    Some(())
}

fn change(
    ledger: &mut Ledger,
    admin: &mut Client,
    id: &str,
    method: &str,
    params: Value,
    doubt: Doubt,
    settle: impl FnOnce(&mut Expected),
) -> Option<()> {
    let device = ledger.devices.get_mut(id).expect("known");
    if device.doubt.is_some() {
        return Some(());
    }
    device.doubt = Some(doubt);
    let Some(answer) = admin.try_call(method, params) else {
        ledger.unanswered += 1;
        return None;
    };
    answer.unwrap_or_else(|error| panic!("{method}: {error}"));
    device.doubt = None;
    settle(device);
    ledger.acknowledge();
    Some(())
}

/// Writes the config until the gateway is gone.
fn drive_config(address: &Address, token: &str, ledger: &mut Ledger) -> Option<()> {
    let mut admin = admitted(Login::at(address).token(token).scopes(&["operator.admin"]))?;
    loop {
        let snapshot = admin.try_call("config.get", json!({}))?.unwrap_or_else(|error| panic!("{error}"));
        let next = ledger.port + 1;
        let raw = snapshot["raw"].as_str().expect("a text");
        let (method, text) = if next.is_multiple_of(3) {
            let old = format!("\"port\": {}", ledger.port);
            assert!(raw.contains(&old), "{old} in {raw}");
            ("config.set", raw.replace(&old, &format!("\"port\": {next}")))
        } else {
            ("config.patch", format!("{{gateway: {{port: {next}}}}}"))
        };
        ledger.port_in_doubt = Some(next);
        let Some(answer) = admin.try_call(method, json!({"raw": text, "baseHash": snapshot["hash"]})) else {
            ledger.unanswered += 1;
            return None;
        };
        match answer {
            Ok(_) => {
                ledger.port = next;
                ledger.acknowledge();
            }
            // Thirty writes a minute are enough for one life.
            Err(error) => {
                assert_eq!(error["code"], "UNAVAILABLE", "{error}");
                ledger.port_in_doubt = None;
                return None;
            }
        }
        ledger.port_in_doubt = None;
    }
}

/// The config on disk parses and says what was acknowledged, or what was under way.
fn check_config(g: &Sandbox, ledger: &mut Ledger) {
    let text = read_lossy(&g.config_file());
    let config: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text:?}"));
    let port = config["gateway"]["port"].as_u64().expect("a port");
    let allowed = [Some(ledger.port), ledger.port_in_doubt];
    assert!(allowed.contains(&Some(port)), "{port} on disk, acknowledged was {}", ledger.port);
    assert_eq!(config["gateway"]["auth"]["token"], g.token(), "the token is still there");
    ledger.port = port;
    ledger.port_in_doubt = None;
}

/// The gateway knows every device as it was acknowledged; what was in doubt is one or the other, and settled from now on.
fn check_devices(g: &Sandbox, ledger: &mut Ledger, thoroughly: bool) {
    let mut admin = g.admin();
    let listed = admin.ok("device.pair.list", json!({}));
    let paired: BTreeMap<&str, &Value> = listed["paired"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| (d["deviceId"].as_str().expect("an id"), d))
        .collect();
    let waiting: BTreeMap<&str, &str> = listed["pending"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|p| (p["deviceId"].as_str().expect("an id"), p["requestId"].as_str().expect("an id")))
        .collect();
    let mut refusals = 0;
    for (id, device) in &mut ledger.devices {
        let doubt = device.doubt.take();
        let found = paired.get(id.as_str());
        if device.removed || doubt == Some(Doubt::Remove) && found.is_none() {
            assert_eq!(found, None, "{id} was removed and is back");
            device.removed = true;
            continue;
        }
        let record = found.unwrap_or_else(|| panic!("{id} was paired and is gone"));
        let revoked = record["tokens"][0]["revokedAtMs"].is_i64();
        let may_be = [device.revoked, doubt == Some(Doubt::Revoke) || device.revoked];
        assert!(may_be.contains(&revoked), "{id}: revoked is {revoked}: {record}");
        device.revoked = revoked;
        let label = record["operatorLabel"].as_str().map(str::to_owned);
        let renamed = matches!(&doubt, Some(Doubt::Rename(new)) if label.as_ref() == Some(new));
        assert!(renamed || label == device.label, "{id}: is called {label:?}, acknowledged was {:?}", device.label);
        device.label = label;
        // Every refusal makes the gateway answer later: a few show what all of them would.
        let tried = thoroughly && !(device.revoked && refusals >= REFUSALS);
        if device.token.is_empty() || !(tried || doubt.is_some()) {
            continue;
        }
        let login = Login::at(&g.address()).device_token(&device.token).device(&device.key);
        match login.word().as_str() {
            "hello [operator.read]" => assert!(!device.revoked, "{id}: a revoked token opens"),
            "AUTH_DEVICE_TOKEN_MISMATCH" => {
                refusals += 1;
                assert!(
                    device.revoked || doubt == Some(Doubt::Rotate),
                    "{id}: its token was acknowledged and is refused"
                );
                // The new text never arrived; the device comes back by the shared secret, as a real client does.
                device.token.clear();
            }
            other => panic!("{id}: {other}"),
        }
    }
    let doubtful = ledger.doubtful_request.take();
    for (id, request) in std::mem::take(&mut ledger.pending) {
        match waiting.get(id.as_str()) {
            Some(found) => assert_eq!(*found, request, "{id} waits under another id"),
            None => assert_eq!(doubtful.as_ref(), Some(&id), "the request of {id} was acknowledged and is gone"),
        }
    }
    // That took a while, in which nobody answered pings.
    let mut admin = g.admin();
    // Make room, also of requests that were saved and never heard of: only so many may wait.
    for request in waiting.values() {
        admin.ok("device.pair.reject", json!({"requestId": request}));
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_three_hundred_kills() {
    let kills = dice::kills(KILLS);
    let mut dice = Dice::new();
    let mut g = Setup::new().config(json!({"gateway": {"port": 20_000}})).idle();
    let mut pairing = Ledger::default();
    let mut config = Ledger { port: 20_000, ..Ledger::default() };
    let began = Instant::now();
    let mut done = 0;
    while done < kills {
        done += 1;
        if dice.roll(STARTS_KILLED) == 0 {
            g.start_and_kill(dice.moment(Duration::from_millis(25)));
            check_config(&g, &mut config);
            continue;
        }
        g.start();
        check_devices(&g, &mut pairing, false);
        let (address, token, pid) = (g.address(), g.token().to_owned(), g.pid());
        let instant = dice.moment(LONGEST_LIFE);
        thread::scope(|scope| {
            scope.spawn(|| drive_pairing(&address, &token, &mut pairing, &mut dice));
            scope.spawn(|| drive_config(&address, &token, &mut config));
            thread::sleep(instant);
            let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not zero");
            kill_process(pid, Signal::KILL).expect("our own child");
        });
        g.kill();
        check_config(&g, &mut config);
    }
    g.start();
    check_devices(&g, &mut pairing, true);
    let answered = pairing.acknowledged + config.acknowledged;
    let unanswered = pairing.unanswered + config.unanswered;
    eprintln!("{kills} kills in {:?}: {answered} answers kept, {unanswered} operations cut off", began.elapsed());
    assert!(answered > u64::from(kills) / 2, "the gateway was given work: {answered}");
    assert!(unanswered > u64::from(kills) / 5, "it was killed at work: {unanswered}");
    // One more write, and nothing half-written is left over.
    let mut admin = g.admin();
    let hash = admin.ok("config.get", json!({}))["hash"].clone();
    admin.ok("config.patch", json!({"raw": "{gateway: {port: 19999}}", "baseHash": hash}));
    assert_eq!(g.stop().code(), Some(0));
    let leftovers: Vec<_> =
        walk(&g.state_dir()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "tmp")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    let db = rusqlite::Connection::open(g.state_dir().join("state/openclaw-rs.sqlite")).expect("opens");
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(verdict, "ok");
}

#[test]
fn a_first_start_may_die_at_any_instant() {
    let mut dice = Dice::new();
    for _ in 0..30 {
        // No config at all: database, key, token and lock are all made by the start.
        let setup = Setup::new().unwatched();
        let mut g = setup.config(json!({"gateway": {"auth": {"token": null, "mode": null}}})).idle();
        for _ in 0..3 {
            g.start_and_kill(dice.moment(Duration::from_millis(20)));
        }
        g.start();
        let token = read_lossy(&g.state_dir().join("gateway.token")).trim().to_owned();
        let client = g.login().token(&token).scopes(&["operator.admin"]).hello();
        assert_eq!(client.scopes(), ["operator.admin"]);
    }
}
