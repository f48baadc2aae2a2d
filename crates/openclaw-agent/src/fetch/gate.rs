//! Between a URL and a socket: what is not allowed is not dialled.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use url::Host;

use super::address::Policy;

/// Finds the addresses of a name.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The system's way, `/etc/hosts` and all.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Judges URLs. Names are judged further by [`Resolver`], when their addresses are known.
pub(super) struct Gate<'a> {
    pub policy: &'a Policy,
}

impl Gate<'_> {
    /// # Errors
    /// Why the URL is not asked for, for the model.
    pub fn url(&self, url: &Url) -> Result<(), String> {
        let host = url.host().ok_or_else(|| format!("{url} names no host."))?;
        let shown = url.host_str().unwrap_or_default();
        let refused = |reason| format!("{shown} is not fetched: {reason}.");
        self.policy.name(shown).map_err(refused)?;
        // The client dials an address without asking the resolver.
        match host {
            Host::Ipv4(address) => self.policy.address(shown, address.into()).map_err(refused),
            Host::Ipv6(address) => self.policy.address(shown, address.into()).map_err(refused),
            Host::Domain(_) => Ok(()),
        }
    }
}

/// Gives the client the addresses it may dial; it dials nothing else.
pub(super) struct Resolver {
    policy: Arc<Policy>,
    lookup: Lookup,
}

impl Resolver {
    pub fn new(policy: Policy, lookup: Lookup) -> Self {
        Self { policy: Arc::new(policy), lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, lookup) = (Arc::clone(&self.policy), Arc::clone(&self.lookup));
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = lookup(host.clone()).await.map_err(|error| format!("{host} cannot be found ({error})"))?;
            if found.is_empty() {
                return Err(format!("{host} has no address").into());
            }
            // One that is refused spoils all: an honest name does not point inside and outside at once.
            for address in &found {
                policy.address(&host, *address).map_err(|reason| format!("{host} is at {address}; {reason}"))?;
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
