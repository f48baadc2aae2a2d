//! Invitations at work: one-time tokens are made for administrators, redeemed in handshakes, and what became of each is
//! kept for a while, because the person who showed a code wants to know whether it arrived.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_protocol::{
    ErrorShape, Protocol, Role, ScopeSet, Secret,
    event::{DEVICE_PAIR_SETUP_COMPLETED, DEVICE_PAIR_SETUP_DELIVERY_UNCERTAIN},
    hello::HandedToken,
    method::invite::{SetupOutcome, SetupProgress, SetupStatus},
};

use crate::{
    clock::now_ms,
    gateway::{Gateway, fresh_token},
    hub::Connection,
    pairing::{
        BootstrapError, ChangeError, Invitation, Issued, Moment, PairedDevice, PairingRequest, Redeemed, Rights,
        Sponsor,
    },
};

/// Outcomes that are remembered.
const MAX_OUTCOMES: usize = 256;

/// What became of the tokens that were redeemed since the start.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<VecDeque<(SetupOutcome, bool)>>);

impl Outcomes {
    fn note(&self, outcome: SetupOutcome, delivered: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(old, _)| old.setup_id != outcome.setup_id);
        if known.len() == MAX_OUTCOMES {
            known.pop_front();
        }
        known.push_back((outcome, delivered));
    }

    /// The answer of `device.pair.setupStatus`.
    pub fn status(&self, setup_id: &str) -> SetupStatus {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.iter().find(|(outcome, _)| outcome.setup_id == setup_id).cloned() {
            Some((outcome, true)) => SetupStatus { completion: Some(outcome), delivery_uncertain: None },
            Some((outcome, false)) => SetupStatus { completion: None, delivery_uncertain: Some(outcome) },
            None => SetupStatus::default(),
        }
    }
}

/// A one-time token that is to be made known.
pub struct Offer {
    pub token: Secret,
    pub rights: Rights,
    /// The owner's name for the device that will come.
    pub label: Option<String>,
    pub ttl_ms: i64,
    /// What its join URL answers, if it has one.
    pub join: Option<String>,
}

/// What a redeemed token gave a connection, until its hello has left. Nothing, for all other connections.
#[derive(Default)]
pub struct Handed(Option<Box<Delivery>>);

struct Delivery {
    gateway: Arc<Gateway>,
    others: Vec<(Role, Issued)>,
    outcome: SetupOutcome,
}

impl Handed {
    /// `hello-ok.auth.deviceTokens`. Protocol 3 has no such field.
    pub fn tokens(&self, protocol: Protocol) -> Vec<HandedToken> {
        let Some(delivery) = self.0.as_ref().filter(|_| protocol == Protocol::V4) else { return Vec::new() };
        let handed = delivery.others.iter().map(|(role, issued)| HandedToken {
            device_token: issued.token.expose().to_owned(),
            role: *role,
            scopes: issued.scopes.names().into_iter().map(str::to_owned).collect(),
            issued_at_ms: issued.issued_at_ms,
        });
        handed.collect()
    }

    /// The hello has left this machine.
    pub fn delivered(&mut self) {
        let Some(delivery) = self.0.take() else { return };
        delivery.gateway.outcomes.note(delivery.outcome.clone(), true);
        delivery.gateway.hub.broadcast(DEVICE_PAIR_SETUP_COMPLETED, &delivery.outcome);
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(delivery) = self.0.take() {
            delivery.gateway.hub.broadcast(DEVICE_PAIR_SETUP_DELIVERY_UNCERTAIN, &delivery.outcome);
        }
    }
}

impl Gateway {
    fn moment(&self) -> Moment {
        Moment { wall_ms: now_ms(), uptime_ms: self.uptime_ms() }
    }

    /// Makes a one-time token known; gives its id and when it ends.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait or it could not be saved.
    pub async fn invite(self: &Arc<Self>, by: &Connection, offer: Offer) -> Result<(String, i64), ErrorShape> {
        let setup_id = uuid::Uuid::new_v4().to_string();
        let sponsor = match (&by.device, by.owner) {
            (_, true) => Sponsor::Owner,
            (Some(device), false) => Sponsor::Device(device.clone()),
            (None, false) => Sponsor::Secret(by.secret_generation.clone()),
        };
        let Offer { token, rights, label, ttl_ms, join } = offer;
        let asked = Invitation { setup_id: setup_id.clone(), rights, label, sponsor, ttl_ms, join };
        let gateway = Arc::clone(self);
        let ends = self.whole(async move {
            let changed = gateway.pairing.change(|state| state.invite(gateway.moment(), asked, &token)).await;
            gateway.settle(changed, |full| ErrorShape::retry_later(full.to_string(), 60_000))
        });
        let expires_at_ms = ends.await?;
        self.arrivals.watch(expires_at_ms);
        tracing::info!(setup = setup_id, by = %by.address, access = ?rights.access(), "one-time code made");
        Ok((setup_id, expires_at_ms))
    }

    /// What the join URL that this token follows from answers, and when the token ends. The first who asks gets it; `None`
    /// afterwards, and for tokens that never were.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it could not be saved; the URL still holds then.
    pub async fn join(self: &Arc<Self>, token: Secret) -> Result<Option<(String, i64)>, ErrorShape> {
        let gateway = Arc::clone(self);
        self.whole(async move {
            let runtime = gateway.runtime.load_full();
            let generation = runtime.generation.as_ref();
            let changed = gateway.pairing.change(|state| state.join(gateway.moment(), &token, generation)).await;
            match changed {
                Err(ChangeError::Refused(_)) => Ok(None),
                changed => gateway.settle(changed, |_| ErrorShape::invalid("unknown join code")).map(Some),
            }
        })
        .await
    }

    /// Takes a code back; false when nobody holds it any more.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it could not be saved; the code still holds then.
    pub async fn revoke_setup(self: &Arc<Self>, setup_id: String) -> Result<bool, ErrorShape> {
        let gateway = Arc::clone(self);
        self.whole(async move {
            let changed =
                gateway.pairing.change(|state| Ok::<_, std::convert::Infallible>(state.take_back(&setup_id))).await;
            let revoked = gateway.settle(changed, |never| match never {})?;
            if revoked {
                tracing::info!(setup = setup_id, "one-time code taken back");
            }
            Ok(revoked)
        })
        .await
    }

    /// How far whoever was shown a code has got.
    pub fn setup_progress(&self, setup_id: &str) -> SetupProgress {
        let runtime = self.runtime.load();
        let generation = runtime.generation.as_ref();
        let SetupStatus { completion, delivery_uncertain } = self.outcomes.status(setup_id);
        SetupProgress {
            now_ms: now_ms(),
            expires_at_ms: self.pairing.read(|state| state.waits_until(self.moment(), setup_id, generation)),
            arrivals: self.arrivals.list(),
            completion,
            delivery_uncertain,
        }
    }

    /// Whether a one-time token would pair a device in this role with these scopes.
    ///
    /// # Errors
    /// [`BootstrapError`]
    pub fn check_bootstrap(&self, presented: &Secret, role: Role, scopes: ScopeSet) -> Result<(), BootstrapError> {
        let runtime = self.runtime.load();
        let generation = runtime.generation.as_ref();
        self.pairing.read(|state| state.check_bootstrap(self.moment(), presented.expose(), role, scopes, generation))
    }

    /// Redeems a one-time token for a device. `None` when it holds no longer: another device was faster.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it could not be saved; the token still holds then.
    pub async fn redeem(
        self: &Arc<Self>,
        presented: Secret,
        asked: PairingRequest,
    ) -> Result<Option<Handed>, ErrorShape> {
        let gateway = Arc::clone(self);
        self.whole(async move {
            let fresh = [fresh_token()?, fresh_token()?];
            let runtime = gateway.runtime.load_full();
            let generation = runtime.generation.as_ref();
            let changed = gateway
                .pairing
                .change(|state| state.redeem(gateway.moment(), presented.expose(), &asked, generation, fresh));
            match changed.await {
                Err(ChangeError::Refused(_)) => Ok(None),
                changed => {
                    let redeemed = gateway.settle(changed, |_| ErrorShape::invalid("unknown one-time token"))?;
                    tracing::info!(
                        setup = redeemed.setup_id,
                        device = redeemed.device.id.short(),
                        "one-time code redeemed"
                    );
                    Ok(Some(hand_over(&gateway, redeemed)))
                }
            }
        })
        .await
    }
}

fn hand_over(gateway: &Arc<Gateway>, redeemed: Redeemed) -> Handed {
    let PairedDevice { id, label, client, .. } = redeemed.device;
    let outcome = SetupOutcome {
        setup_id: redeemed.setup_id,
        device_id: id.to_string(),
        device_name: label.or(client.display_name).filter(|name| !name.is_empty()),
        access: redeemed.access,
        ts: now_ms(),
    };
    // Uncertain until the hello has left: whoever showed the code can ask already.
    gateway.outcomes.note(outcome.clone(), false);
    Handed(Some(Box::new(Delivery { gateway: Arc::clone(gateway), others: redeemed.others, outcome })))
}
