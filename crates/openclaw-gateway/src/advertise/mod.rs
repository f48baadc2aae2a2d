//! Advertising: telling the local network, and whoever asks the zone of a tailnet, where this gateway is.
//!
//! [`plan`] decides what is told and is pure; [`interfaces`] decides where; [`zone`] and [`answer`] are for unicast DNS. One
//! task owns all of it: it makes a plan from the settings in force, and a new one when they change, when the machine's
//! addresses change, or when the certificate does. What is told are hints: nothing of it gives anybody a right, and no
//! client of ours takes a credential or a pin from it.

pub mod answer;
pub mod interfaces;
pub mod plan;
pub mod zone;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mdns_sd::{DaemonEvent, IfKind, IfPredicate, ServiceDaemon, ServiceInfo};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    plan::{Advert, Listening, Machine, Plan, Switches, WideArea},
    zone::Zone,
};
use crate::{bind, gateway::Gateway, host};

/// The service on the local network.
const SERVICE: &str = "_openclaw-gw._tcp.local.";
/// How often addresses and certificate are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// Advertises until the gateway ends.
pub async fn run(gateway: Arc<Gateway>, mut reloaded: watch::Receiver<u64>) {
    let switches = Switches::read(&gateway.env);
    let container = interfaces::in_container();
    let (mut told, mut current) = (Plan::default(), Current::default());
    loop {
        let wanted =
            plan::plan(&gateway.runtime.load().discovery, &switches, &machine(container), &listening(&gateway));
        if wanted != told {
            wanted.notes.iter().filter(|note| !told.notes.contains(note)).for_each(|note| tracing::warn!("{note}"));
            current.apply(&gateway, &told, &wanted).await;
            told = wanted;
        }
        tokio::select! {
            () = gateway.cancel.cancelled() => break,
            changed = reloaded.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    current.end().await;
}

fn machine(container: bool) -> Machine {
    let program = std::env::current_exe().ok().map(|path| path.display().to_string());
    Machine {
        hostname: host::facts().hostname,
        addresses: bind::local_addresses(),
        container,
        macos: cfg!(target_os = "macos"),
        program,
    }
}

fn listening(gateway: &Gateway) -> Listening {
    let digest = |tls: &Arc<crate::tls::Tls>| tls.certificate().fingerprint.colons().replace(':', "").to_lowercase();
    let addresses = gateway.listening().to_vec();
    Listening { port: gateway.port(), addresses, tls_sha256: gateway.tls.as_ref().map(digest) }
}

/// What is running.
#[derive(Default)]
struct Current {
    lan: Option<Announcer>,
    answerer: Option<JoinHandle<()>>,
}

impl Current {
    async fn apply(&mut self, gateway: &Gateway, told: &Plan, wanted: &Plan) {
        if told.lan != wanted.lan {
            // The old name says goodbye before the new one speaks.
            if let Some(announcer) = self.lan.take() {
                announcer.end().await;
                if wanted.lan.is_none() {
                    tracing::info!("no longer advertised on the local network");
                }
            }
            if let Some(advert) = &wanted.lan {
                match Announcer::start(advert) {
                    Ok(announcer) => {
                        let (name, port) = (crate::log::escaped(&advert.instance, 80), advert.port);
                        tracing::info!("advertised on the local network as \"{name}\" ({}.local:{port})", advert.host);
                        self.lan = Some(announcer);
                    }
                    Err(error) => tracing::warn!("cannot advertise on the local network: {error}"),
                }
            }
        }
        if told.wide_area != wanted.wide_area {
            self.stop_answering();
            if let Some(wide) = &wanted.wide_area {
                self.publish(gateway, wide).await;
            }
        }
    }

    async fn publish(&mut self, gateway: &Gateway, wide: &WideArea) {
        let today = jiff::Timestamp::now().strftime("%Y%m%d01").to_string().parse().unwrap_or(1);
        let (state_dir, owned) = (gateway.paths.state_dir.clone(), wide.clone());
        let written = tokio::task::spawn_blocking(move || zone::write(&state_dir, &owned, today)).await;
        let serial = match written {
            Ok(Ok((serial, changed))) => {
                let path = zone::path(&gateway.paths.state_dir, &wide.domain);
                let done = if changed { "written" } else { "unchanged" };
                tracing::info!("zone of {} {done}: {}", wide.domain, path.display());
                serial
            }
            Ok(Err(error)) => return tracing::warn!("the zone of {} cannot be written: {error}", wide.domain),
            Err(error) => return tracing::warn!("the zone of {} cannot be written: {error}", wide.domain),
        };
        let Some(port) = wide.serve else { return };
        let address = SocketAddr::new(wide.v4.into(), port);
        match answer::open(address).await {
            Ok(sockets) => {
                tracing::info!("answering DNS for {} on {address}, to the tailnet only", wide.domain);
                let zone = Zone::of(wide, serial);
                self.answerer = Some(gateway.tracker.spawn(answer::serve(sockets, zone)));
            }
            Err(error) => tracing::warn!(
                "cannot answer DNS on {address}: {error}; ports below 1024 need rights: choose another \
                 (discovery.wideArea.port), or let a DNS server serve the zone file"
            ),
        }
    }

    fn stop_answering(&mut self) {
        if let Some(task) = self.answerer.take() {
            task.abort();
        }
    }

    async fn end(mut self) {
        self.stop_answering();
        if let Some(announcer) = self.lan.take() {
            announcer.end().await;
        }
    }
}

/// A service that is announced. The library has a thread of its own, which ends with it.
struct Announcer {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcer {
    fn start(advert: &Advert) -> Result<Self, mdns_sd::Error> {
        let txt: Vec<(&str, &str)> = advert.txt.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let host = format!("{}.local.", advert.host);
        let service = ServiceInfo::new(SERVICE, &advert.instance, &host, "", advert.port, txt.as_slice())?;
        let service = service.enable_addr_auto();
        let daemon = ServiceDaemon::new()?;
        let name = service.get_fullname().to_owned();
        let announcer = Self { daemon, name };
        // First nowhere, then where it is wanted: an interface is not spoken on even once otherwise.
        announcer.daemon.disable_interface(IfKind::All)?;
        announcer.daemon.enable_interface(IfKind::Predicate(IfPredicate::new(interfaces::is_real)))?;
        let events = announcer.daemon.monitor()?;
        announcer.daemon.register(service)?;
        // Ends when the daemon does.
        std::thread::spawn(move || {
            while let Ok(event) = events.recv() {
                if let DaemonEvent::NameChange(change) = event {
                    let (was, is) =
                        (crate::log::escaped(&change.original, 80), crate::log::escaped(&change.new_name, 80));
                    tracing::warn!("another machine is called {was}; advertised as {is}");
                }
            }
        });
        Ok(announcer)
    }

    async fn end(self) {
        // The library's receivers block.
        let farewell = move || {
            // Without the goodbye, others would list a gateway that is gone for up to 75 minutes.
            if let Ok(goodbye) = self.daemon.unregister(&self.name) {
                let _ = goodbye.recv_timeout(GOODBYE);
            }
            if let Ok(ended) = self.daemon.shutdown() {
                let _ = ended.recv_timeout(GOODBYE);
            }
        };
        let _ = tokio::task::spawn_blocking(farewell).await;
    }
}
