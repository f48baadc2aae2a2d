//! Nodes that come and go, and what survives a restart.

use openclaw_protocol::{CloseReason, Scope};

use super::*;
use crate::{
    nodes::{live::NoAnswer, registry::Remembered},
    pairing::Approver,
    store::Change,
};

async fn change(nodes: &Nodes, decide: impl FnOnce(&mut Remembered) -> super::super::surface::Effects) {
    let changed = nodes.change(|remembered| Ok::<_, std::convert::Infallible>(((), decide(remembered))));
    changed.await.expect("saves");
}

#[tokio::test]
async fn approvals_requests_and_wake_words_survive_a_restart() {
    let room = Room::new(&[1, 2]).await;
    let details = Details { version: Some("9.9.9".into()), ..Details::default() };
    for (seed, consent) in [(1, Consent::Given), (2, Consent::Ask { silent: true })] {
        let details = details.clone();
        change(&room.nodes, |r| {
            let mut surface = commands(&["system.run"]);
            surface.permissions.insert("accessibility".into(), true);
            r.surfaces.reconcile(7, RequestId::new(format!("r{seed}")), &id(seed), surface, details, consent)
        })
        .await;
    }
    change(&room.nodes, |r| r.surfaces.rename(&id(2), "Renamed").expect("renames").1).await;
    change(&room.nodes, |r| {
        let asked =
            openclaw_protocol::method::node::NodePairRequestParams { node_id: "n1".into(), ..Default::default() };
        let (_, effects) = r.legacy.request(8, RequestId::new("old"), asked).expect("asks");
        effects
    })
    .await;
    change(&room.nodes, |r| {
        let approver = Approver { scopes: [Scope::Pairing].into_iter().collect(), owner: false };
        let token = openclaw_protocol::Secret::new("t0k");
        r.legacy.approve(9, &RequestId::new("old"), &approver, &token).expect("approves").1
    })
    .await;
    change(&room.nodes, |r| {
        r.triggers = names(&["hey claw"]);
        let changes = vec![super::super::surface::NodeChange::SetTriggers(r.triggers.clone())];
        super::super::surface::Effects { changes, ..Default::default() }
    })
    .await;
    let again = Nodes::load(&room.store).expect("loads");
    assert_eq!(again.read(Clone::clone), room.nodes.read(Clone::clone));
    assert!(again.read(|r| r.legacy.verify("n1", &openclaw_protocol::Secret::new("t0k")).is_some()));
}

#[tokio::test]
async fn a_node_is_forgotten_with_its_device() {
    let (room, _node) = Room::with_node(&["system.which"]).await;
    room.store.commit([DeviceChange::DeleteDevice(id(1))]).await.expect("saves");
    let again = Nodes::load(&room.store).expect("loads");
    assert!(again.read(|r| r.surfaces.get(&id(1)).is_none()));
}

#[tokio::test]
async fn what_cannot_be_saved_was_not_decided() {
    let room = Room::new(&[]).await;
    // There is no device 1 in the database, so its row is refused.
    let asked = |r: &mut Remembered| {
        r.surfaces.reconcile(1, RequestId::random(), &id(1), commands(&["a"]), Details::default(), Consent::Given)
    };
    let unsaved = room.nodes.change_now(asked).expect("room");
    assert!(room.nodes.approved(&id(1)).is_some(), "in force at once");
    assert!(room.nodes.saved(unsaved).await.is_err());
    assert!(room.nodes.approved(&id(1)).is_none(), "and taken back");
    let outcome = room.nodes.change(|r| Ok::<_, std::convert::Infallible>(((), asked(r)))).await;
    assert!(outcome.is_err() && room.nodes.approved(&id(1)).is_none());
    room.store.commit(Vec::<Change>::new()).await.expect("the store goes on");
}

/// Pain 21: nodes that look connected and are dead. The newest proven connection is the node; the one before is closed
/// with the reason, and what it was asked fails at once.
#[tokio::test]
async fn the_newest_connection_of_a_node_wins() {
    let (room, old) = Room::with_node(&["system.which"]).await;
    let asking = {
        let old = Arc::clone(&old);
        tokio::spawn(async move { old.ask(question("system.which")).await.map(|_| ()) })
    };
    while old.waiting() == 0 {
        tokio::task::yield_now().await;
    }
    let new = node(1, &["system.which"]);
    assert!(room.nodes.attach(&new));
    assert_eq!(asking.await.expect("runs"), Err(NoAnswer::Disconnected));
    assert_eq!(old.connection.outbound.drain(&mut Vec::new()), Some(CloseReason::REPLACED));
    assert_eq!(old.ask(question("system.which")).await.map(|_| ()), Err(NoAnswer::NotConnected));
    // The end of the old one does not take the new one away.
    room.nodes.detach(&old.connection);
    let live = room.nodes.live(&id(1)).expect("connected");
    assert!(Arc::ptr_eq(&live, &new) && room.nodes.live_of(&old.connection).is_none());
    // Nor does an older one that comes late.
    assert!(!room.nodes.attach(&old));
    assert!(Arc::ptr_eq(&room.nodes.live(&id(1)).expect("connected"), &new));
    assert!(!new.connection.outbound.is_closing());
    room.nodes.detach(&new.connection);
    assert!(room.nodes.live(&id(1)).is_none());
}

fn question(command: &str) -> super::super::live::Question<'_> {
    super::super::live::Question {
        command,
        params: None,
        idempotency_key: "k",
        session_key: None,
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(30),
        progress: None,
    }
}
