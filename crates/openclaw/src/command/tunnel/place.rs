//! Which tunnel a command means: by its own name, by a saved gateway, or by where ssh would go.

use openclaw_config::{
    Connections,
    credentials::{On, Surface},
    gateway::HostKeyPolicy,
};
use openclaw_protocol::GatewayId;
use openclaw_remote::{
    Target,
    path::{GatewayPath, Route},
    ssh::{SshSpec, SshTarget},
    tunnel::{TunnelDir, TunnelName},
};

use super::args::At;
use crate::{args::PortTargetArgs, context::Context, failure::Failure, output::inert};

/// A tunnel to open, or to write down.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: TunnelName,
    pub spec: SshSpec,
    /// Who has to answer at its end.
    pub gateway: Option<GatewayId>,
    /// The words that mean the same place to another process.
    words: Vec<String>,
}

impl Place {
    /// Settles where a tunnel leads. Sends nothing.
    pub fn find(context: &Context, at: &At) -> Result<Self, Failure> {
        let mut place = match at.place.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Self::named(context, text)?,
            None => Self::meant(context)?,
        };
        let unnamed = place.name == TunnelName::of(&place.spec);
        if let Some(port) = at.gateway_port {
            place.spec.gateway_port = port;
            place.words.extend(["--gateway-port".to_owned(), port.to_string()]);
        }
        if let Some(file) = &at.identity {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            place.words.extend(["--identity".to_owned(), file.display().to_string()]);
            place.spec.identity = Some(file);
        }
        if let Some(policy) = at.host_key_policy {
            place.words.extend(["--host-key-policy".to_owned(), policy.as_str().to_owned()]);
            place.spec.host_keys = policy;
        }
        if unnamed {
            place.name = TunnelName::of(&place.spec);
        }
        Ok(place)
    }

    fn named(context: &Context, text: &str) -> Result<Self, Failure> {
        if let Ok(name) = text.parse() {
            let book = Connections::new(&context.paths).load();
            if book.as_ref().is_ok_and(|book| book.connections.contains_key(&name)) {
                return Self::saved(context, On::Connection(name));
            }
        }
        let target: SshTarget = text.parse().map_err(|error| {
            Failure::new(format!("No tunnel can be opened to that: {error}."))
                .remedy("see the saved gateways", "openclaw connections ls")
        })?;
        let words = vec![target.url()];
        let spec = SshSpec::new(target);
        Ok(Self { name: TunnelName::of(&spec), spec, gateway: None, words })
    }

    fn saved(context: &Context, on: On) -> Result<Self, Failure> {
        let loaded = context.config_for_diagnosis()?;
        let at = PortTargetArgs::default();
        let flags = openclaw_config::credentials::ClientFlags { on: Some(on), ..context.flags(&at) };
        let target = Target::resolve(Surface::Call, &flags, &loaded.gateway, context.secrets(&loaded.document));
        let route = target.map_err(|error| context.no_target(&error, &at))?.route;
        Self::of_route(&route)
    }

    /// What every command means: `--on`, the current connection, or the config.
    fn meant(context: &Context) -> Result<Self, Failure> {
        let loaded = context.config_for_diagnosis()?;
        let at = PortTargetArgs::default();
        let secrets = context.secrets(&loaded.document);
        let target = Target::resolve(Surface::Call, &context.flags(&at), &loaded.gateway, secrets);
        let target = target.map_err(|error| context.no_target(&error, &at))?;
        if target.is_local() {
            return Err(Failure::new("The gateway that commands mean is on this machine: no tunnel is needed.")
                .remedy("to reach another one", "openclaw tunnel up user@host"));
        }
        Self::of_route(&target.route)
    }

    fn of_route(route: &Route) -> Result<Self, Failure> {
        let ssh = route.paths.iter().find_map(|path| match path {
            GatewayPath::Ssh(spec) => Some(spec.clone()),
            GatewayPath::Direct(_) => None,
        });
        let Some(spec) = ssh else {
            let paths: Vec<String> = route.paths.iter().map(|path| inert(&path.label()).into_owned()).collect();
            return Err(Failure::new(format!("That gateway is reached without ssh ({}).", paths.join(", ")))
                .remedy("to tunnel to it all the same", "openclaw tunnel up user@host"));
        };
        let name = route.name.as_ref().and_then(|name| TunnelName::parse(name.as_str()));
        let words = match (&route.name, &name) {
            (Some(saved), Some(_)) => vec![saved.to_string()],
            _ => spelled_out(&spec),
        };
        Ok(Self { name: name.unwrap_or_else(|| TunnelName::of(&spec)), spec, gateway: route.gateway.clone(), words })
    }

    pub fn dir(&self, context: &Context) -> TunnelDir {
        TunnelDir::new(&context.paths.state_dir, &self.name)
    }

    /// The words after the program that run this tunnel's supervisor, in whatever profile this is.
    pub fn run_words(&self, context: &Context, port: Option<u16>) -> Vec<String> {
        let mut words = Vec::new();
        match &context.paths.profile {
            openclaw_config::Profile::Default => {}
            openclaw_config::Profile::Dev => words.push("--dev".to_owned()),
            other => {
                words.extend(other.name().map(|name| ["--profile".to_owned(), name.to_owned()]).into_iter().flatten())
            }
        }
        if openclaw_remote::ssh::Program::chosen() == Some(openclaw_remote::ssh::Implementation::Builtin) {
            words.extend(["--ssh-impl", "builtin"].map(str::to_owned));
        }
        words.extend(["tunnel", "run"].map(str::to_owned));
        words.extend(self.words.iter().cloned());
        if let Some(port) = port {
            words.extend(["--port".to_owned(), port.to_string()]);
        }
        words
    }
}

/// A place that only the config names, for a process that shall not depend on it.
fn spelled_out(spec: &SshSpec) -> Vec<String> {
    let mut words = vec![spec.target.url(), "--gateway-port".to_owned(), spec.gateway_port.to_string()];
    if let Some(file) = &spec.identity {
        words.extend(["--identity".to_owned(), file.display().to_string()]);
    }
    if spec.host_keys != HostKeyPolicy::default() {
        words.extend(["--host-key-policy".to_owned(), spec.host_keys.as_str().to_owned()]);
    }
    words
}

/// A tunnel that has, or had, a supervisor: by name, by target, or the only one.
pub fn existing(context: &Context, text: Option<&str>) -> Result<TunnelDir, Failure> {
    let all = TunnelDir::all(&context.paths.state_dir);
    let names = || all.iter().map(|dir| dir.name().to_string()).collect::<Vec<_>>().join(", ");
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => {
            let by_name = all.iter().find(|dir| dir.name().as_str() == text);
            let by_target = || {
                // The name of a tunnel nobody named begins with the host.
                let target: SshTarget = text.parse().ok()?;
                let name = TunnelName::of(&SshSpec::new(target));
                let (start, _) = name.as_str().rsplit_once('-')?;
                let mut alike = all
                    .iter()
                    .filter(|dir| dir.name().as_str().rsplit_once('-').is_some_and(|(this, _)| this == start));
                alike.next().filter(|_| alike.next().is_none())
            };
            by_name.or_else(by_target).cloned().ok_or_else(|| {
                let failure = Failure::new(format!("There is no tunnel called {}.", inert(text)));
                match all.is_empty() {
                    true => failure.detail("No tunnel was ever opened here."),
                    false => failure.detail(format!("Known: {}.", inert(&names()))),
                }
            })
        }
        None => match all.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                Err(Failure::new("No tunnel was ever opened here.").remedy("open one", "openclaw tunnel up user@host"))
            }
            _ => Err(Failure::new("Which tunnel?").detail(format!("Known: {}.", inert(&names())))),
        },
    }
}
