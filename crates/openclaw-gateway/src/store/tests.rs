//! Saving, sharing a flush, failing alone, and the notes that ride along.

use std::{collections::BTreeMap, fs, sync::Arc, time::SystemTime};

use openclaw_protocol::{DeviceId, DeviceKey, Role, ScopeSet, Secret};
use rusqlite::Connection;

use super::*;
use crate::{
    auth::decide::PairReason,
    pairing::{
        ApprovedVia, ChangeError, ClientMeta, DeviceRegistry, DeviceToken, IssuerGeneration, PairedDevice,
        PairingError, PairingRequest, PendingDevice, RequestId,
    },
};

fn id(seed: u8) -> DeviceId {
    DeviceKey::from_seed(&[seed; 32]).id()
}

/// A device with every field filled.
fn device(seed: u8) -> PairedDevice {
    let key = DeviceKey::from_seed(&[seed; 32]);
    let some = |text: &str| Some(text.to_owned());
    let token = DeviceToken {
        secret: Secret::new("s3cret"),
        scopes: ScopeSet::parse(&["operator.read"]),
        created_at_ms: 1,
        rotated_at_ms: Some(2),
        revoked_at_ms: None,
        last_used_at_ms: Some(3),
        issuer: Some(IssuerGeneration::new("g")),
    };
    let revoked = DeviceToken { secret: Secret::new(""), revoked_at_ms: Some(9), issuer: None, ..token.clone() };
    PairedDevice {
        id: key.id(),
        public_key: key.public(),
        client: ClientMeta {
            display_name: some("näme"),
            platform: some("linux"),
            device_family: some("Linux"),
            client_id: some("cli"),
            client_mode: some("cli"),
            browser_origin: some("https://o.example"),
        },
        label: some("label"),
        role: Role::Operator,
        roles: [Role::Operator].into(),
        approved_scopes: ScopeSet::parse(&["operator.read", "operator.pairing"]),
        approved_via: Some(ApprovedVia::Owner),
        tokens: BTreeMap::from([(Role::Operator, token), (Role::Node, revoked)]),
        created_at_ms: 4,
        approved_at_ms: 5,
        last_seen_at_ms: Some(6),
        last_seen_reason: some("connect"),
    }
}

fn pending(seed: u8) -> PendingDevice {
    let device = device(seed);
    PendingDevice {
        id: RequestId::new(format!("r{seed}")),
        request: PairingRequest {
            device_id: device.id,
            public_key: device.public_key,
            role: Role::Node,
            scopes: ScopeSet::EMPTY,
            client: device.client,
            remote_ip: Some([10, 0, 0, seed].into()),
            reason: PairReason::RoleUpgrade,
            silent: true,
        },
        requested_at_ms: 7,
    }
}

fn put(device: PairedDevice) -> DeviceChange {
    DeviceChange::PutDevice(Box::new(device))
}

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("db.sqlite");
        Self { _dir: dir, path }
    }

    fn open(&self) -> Store {
        Store::open(&self.path).expect("opens")
    }

    /// Makes the database refuse devices labelled so.
    fn refuse(&self, label: &str) {
        let connection = Connection::open(&self.path).expect("opens");
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON devices WHEN NEW.label = '{label}'
             BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        );
        connection.execute_batch(&trigger).expect("sets the trap");
    }

    fn allow(&self) {
        Connection::open(&self.path).expect("opens").execute_batch("DROP TRIGGER refuse").expect("lifts it");
    }

    fn log_time(&self) -> Option<SystemTime> {
        fs::metadata(format!("{}-wal", self.path.display())).and_then(|meta| meta.modified()).ok()
    }
}

#[test]
fn every_field_survives_a_restart() {
    let place = Place::new();
    let store = place.open();
    let requests = [pending(1), pending(2)].map(|p| DeviceChange::PutRequest(Box::new(p)));
    store.commit_blocking(requests).expect("saves");
    store.commit_blocking([put(device(1)), put(device(2))]).expect("saves");
    store
        .commit_blocking([DeviceChange::DeleteRequest(RequestId::new("r2")), DeviceChange::DeleteDevice(id(2))])
        .expect("saves");
    store.close();
    let pairing = place.open().load_devices().expect("loads");
    assert_eq!(pairing.get(&id(1)), Some(&device(1)));
    assert_eq!(pairing.get(&id(2)), None);
    assert_eq!(pairing.pending_of(7, &id(1), pending(1).request.role), Some(&pending(1)));
    assert_eq!(pairing.pending_of(7, &id(2), pending(2).request.role), None);
}

#[test]
fn closing_twice_or_late_is_answered() {
    let place = Place::new();
    let store = place.open();
    let other = store.clone();
    store.close();
    store.close();
    assert!(matches!(other.commit_blocking([put(device(1))]), Err(StoreError::Closed)));
    assert!(matches!(other.load_devices(), Err(StoreError::Closed)));
}

#[test]
fn dropping_the_last_handle_saves_what_waits() {
    let place = Place::new();
    let store = place.open();
    store.commit_blocking([put(device(1))]).expect("saves");
    for (at_ms, seen) in [(98, Seen::DeviceToken), (99, Seen::Disconnect)] {
        store.touch(Touch { device_id: id(1), role: Role::Operator, seen, at_ms });
    }
    store.close();
    let pairing = place.open().load_devices().expect("loads");
    let device = pairing.get(&id(1)).expect("paired");
    assert_eq!((device.last_seen_at_ms, device.last_seen_reason.as_deref()), (Some(99), Some("disconnect")));
    assert_eq!(device.tokens[&Role::Operator].last_used_at_ms, Some(98), "not lost behind a later note");
}

#[test]
fn devices_that_come_and_go_cost_no_write() {
    let place = Place::new();
    let store = place.open();
    store.commit_blocking([put(device(1)), put(device(2))]).expect("saves");
    let before = place.log_time();
    for at_ms in 100..5_100 {
        let device_id = id(1 + (at_ms % 2) as u8);
        store.touch(Touch { device_id, role: Role::Operator, seen: Seen::Connect, at_ms });
    }
    // The writer runs this after everything it was given, so nothing of the above is still on its way.
    store.load_devices().expect("loads");
    assert_eq!(place.log_time(), before, "nothing was written");
    store.commit_blocking([DeviceChange::DeleteRequest(RequestId::new("none"))]).expect("saves");
    let pairing = store.load_devices().expect("loads");
    let seen = |seed| pairing.get(&id(seed)).and_then(|device| device.last_seen_at_ms);
    assert_eq!((seen(1), seen(2)), (Some(5_098), Some(5_099)), "the last notes rode along with the next batch");
}

#[tokio::test]
async fn a_batch_that_fails_fails_alone_and_whole() {
    let place = Place::new();
    let store = place.open();
    place.refuse("trap");
    let trapped = PairedDevice { label: Some("trap".into()), ..device(2) };
    let slots = [store.reserve().await, store.reserve().await, store.reserve().await];
    let batches = [vec![put(device(1))], vec![put(device(3)), put(trapped)], vec![put(device(4))]];
    let receipts: Vec<Receipt> =
        slots.into_iter().zip(batches).map(|(slot, batch)| slot.expect("room").send(batch)).collect();
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await.is_ok());
    }
    assert_eq!(outcomes, [true, false, true]);
    let pairing = store.load_devices().expect("loads");
    let there: Vec<bool> = (1..=4).map(|seed| pairing.get(&id(seed)).is_some()).collect();
    assert_eq!(there, [true, false, false, true], "device 3 was in the batch that failed");
}

#[tokio::test]
async fn what_cannot_be_saved_was_not_decided() {
    let place = Place::new();
    let store = place.open();
    store.commit([put(device(1))]).await.expect("saves");
    let registry = DeviceRegistry::load(store).expect("loads");
    place.refuse("trap");
    let rename = |label: &'static str| registry.change(move |pairing| pairing.rename(1, &id(1), label));
    let error = rename("trap").await.expect_err("not saved");
    assert!(matches!(error, ChangeError::Store(StoreError::Sqlite { .. })), "{error}");
    assert_eq!(registry.read(|pairing| pairing.get(&id(1)).cloned()), Some(device(1)), "as on disk");
    let refused = registry.change(|pairing| pairing.rename(1, &id(9), "x")).await.expect_err("refused");
    assert!(matches!(refused, ChangeError::Refused(PairingError::UnknownDevice)));
    place.allow();
    assert_eq!(rename("trap").await.expect("saved").0, "trap");
    assert!(registry.settled().await.is_ok());
}

#[tokio::test]
async fn settled_waits_for_what_was_decided_before() {
    let place = Place::new();
    let store = place.open();
    store.settled().await.expect("nothing to wait for");
    place.refuse("trap");
    for (label, expected) in [("trap", false), ("fine", true)] {
        // The writer is held up, so everything below is on its way when the question is asked.
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let holder = store.clone();
        let held = tokio::spawn(async move {
            holder
                .read(move |_| {
                    let _ = gate.recv();
                    Ok(())
                })
                .await
        });
        tokio::task::yield_now().await;
        let labelled = PairedDevice { label: Some(label.into()), ..device(1) };
        let receipt = store.reserve().await.expect("room").send([put(labelled)]);
        let asker = store.clone();
        let settled = tokio::spawn(async move { asker.settled().await });
        tokio::task::yield_now().await;
        assert!(!settled.is_finished(), "{label}: it waits");
        drop(release);
        assert_eq!(receipt.await.is_ok(), expected, "{label}");
        let settled = settled.await.expect("runs");
        assert_eq!(settled.is_ok(), expected, "{label}: {settled:?}");
        held.await.expect("runs").expect("reads");
    }
    store.settled().await.expect("calm again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_and_disk_agree_after_a_crowd() {
    let place = Place::new();
    let registry = Arc::new(DeviceRegistry::load(place.open()).expect("loads"));
    let tasks: Vec<_> = (1..=40_u8)
        .map(|seed| {
            let registry = Arc::clone(&registry);
            tokio::spawn(async move {
                for step in 0..10 {
                    let asked = PairingRequest { role: Role::Operator, ..pending(seed).request };
                    let token = Secret::new(format!("{seed}-{step}"));
                    let silent = |_: &DeviceId| true;
                    let done = registry
                        .change(|pairing| {
                            pairing
                                .approve_silent(step, asked, ApprovedVia::Silent, token, silent)
                                .map_err(|e| e.to_string())
                        })
                        .await;
                    let _ = done.expect("approves");
                    if step % 3 == 2 {
                        let removed = registry.change(|pairing| pairing.remove(step, &id(seed)).map(|e| ((), e))).await;
                        let _ = removed.expect("removes");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("runs");
    }
    let memory = registry.read(|pairing| pairing.list(0).1.into_iter().cloned().collect::<Vec<_>>());
    drop(registry);
    let reopened = place.open().load_devices().expect("loads");
    let disk: Vec<PairedDevice> = reopened.list(0).1.into_iter().cloned().collect();
    assert_eq!(memory, disk);
    assert_eq!(memory.len(), 40);
}

#[test]
fn a_row_that_makes_no_sense_fails_the_load_by_name() {
    let place = Place::new();
    place.open().commit_blocking([put(device(1))]).expect("saves");
    let connection = Connection::open(&place.path).expect("opens");
    connection.execute("UPDATE devices SET roles = 'operator emperor'", []).expect("breaks it");
    let error = place.open().load_devices().expect_err("refused").to_string();
    assert!(error.contains("roles") && error.contains("emperor"), "{error}");
}
