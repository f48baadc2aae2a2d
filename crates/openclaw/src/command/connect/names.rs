//! Under which name a gateway is saved.

use openclaw_config::{
    Connections,
    connections::{Book, ConnectionName, SavedPath},
};
use openclaw_remote::ssh::SshTarget;

use crate::{context::Context, failure::Failure};

/// What is saved so far.
pub fn book(context: &Context) -> Result<Book, Failure> {
    Connections::new(&context.paths).load().map_err(|error| crate::reach::no_connection(&error))
}

/// A name the person chose.
pub fn own_name(book: &Book, text: &str, replace: bool) -> Result<ConnectionName, Failure> {
    let name: ConnectionName = text.parse().map_err(|error| Failure::new(format!("--name: {error}.")))?;
    if book.connections.contains_key(&name) && !replace {
        return Err(Failure::new(format!("A gateway is saved as \"{name}\" already; nothing was changed."))
            .remedy("look at it", format!("openclaw connections show {name}"))
            .remedy("or replace it", "openclaw connect … --yes"));
    }
    Ok(name)
}

/// The name under which this ssh target is saved already, else a free one after its host.
pub fn name_for_target(book: &Book, target: &SshTarget) -> Result<ConnectionName, Failure> {
    let same = |path: &SavedPath| matches!(path, SavedPath::Ssh(ssh) if ssh.target.parse().as_ref() == Ok(target));
    match book.connections.iter().find(|(_, connection)| connection.paths.iter().any(same)) {
        Some((name, _)) => Ok(name.clone()),
        None => free_name(book, target.host()),
    }
}

pub fn free_name(book: &Book, host: &str) -> Result<ConnectionName, Failure> {
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let label = if is_address { host } else { host.split('.').next().unwrap_or(host) };
    let suggestion = ConnectionName::suggest(label).or_else(|| ConnectionName::suggest(host));
    let base = suggestion.or_else(|| ConnectionName::suggest("gateway"));
    let Some(base) = base else { return Err(Failure::new("There is no name for this gateway; give one with --name.")) };
    let mut number = 1_u32;
    let mut name = base.clone();
    while book.connections.contains_key(&name) {
        number += 1;
        let next = ConnectionName::suggest(&format!("{base}-{number}"));
        let Some(next) = next.filter(|next| *next != name) else {
            return Err(Failure::new("There is no free name for this gateway; give one with --name."));
        };
        name = next;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use openclaw_config::connections::{Connection, SavedSsh};

    use super::*;

    fn book(entries: &[(&str, &str)]) -> Book {
        let mut book = Book::default();
        for (name, target) in entries {
            let saved = SavedSsh {
                target: (*target).to_owned(),
                identity: None,
                host_key_policy: openclaw_config::gateway::HostKeyPolicy::Strict,
                gateway_port: 18789,
            };
            let connection = Connection { paths: vec![SavedPath::Ssh(saved)], ..Connection::default() };
            book.connections.insert(name.parse().expect("name"), connection);
        }
        book
    }

    #[test]
    fn names() {
        let saved = book(&[("box", "me@box"), ("box-2", "you@box"), ("gateway", "x@[::1]:2222")]);
        for (target, expected) in [
            ("me@box", "box"),
            ("ssh://me@box", "box"),
            ("you@box", "box-2"),
            ("he@box", "box-3"),
            ("me@nas.example.com", "nas"),
            ("me@192.168.1.5", "192.168.1.5"),
            ("me@[fe80::1]", "fe80--1"),
            ("me@local", "gateway-2"),
        ] {
            let name = name_for_target(&saved, &target.parse().expect("target")).expect(target);
            assert_eq!(name.as_str(), expected, "{target}");
        }
        assert!(own_name(&saved, "box", false).is_err_and(|failure| failure.message().contains("already")));
        assert!(own_name(&saved, "box", true).is_ok() && own_name(&saved, "new", false).is_ok());
        assert!(own_name(&saved, "Box", true).is_err() && own_name(&saved, "local", true).is_err());
    }
}
