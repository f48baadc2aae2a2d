//! What goes wrong with ssh, with real ssh: each case named as what it is, with one line of advice, and nothing left.

use std::fs;

use lab::{
    netlab::Netlab,
    require::{self, program},
};

use crate::home::Home;

/// Calls home over ssh; it has to fail at ssh, with these words.
#[track_caller]
fn fails_with(home: &Home<'_>, what: &str, words: &[&str]) {
    let failed = home.fails(&["--on", "home", "health"]);
    assert_eq!(failed.status.code(), Some(19), "{what}: {failed:#?}");
    for word in words {
        assert!(failed.stderr.to_lowercase().contains(&word.to_lowercase()), "{what}: no {word:?} in {failed:#?}");
    }
    home.no_ssh_left();
    let sockets = home.laptop().state_dir().join("ssh");
    let left: Vec<_> = fs::read_dir(&sockets).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{what}: {left:?} is left");
}

#[test]
fn p_83_every_failure_of_ssh_has_its_name_and_its_advice() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = Home::new(&lab);
    home.pair();
    home.save("home", &[home.ssh("box")]);
    home.ok(&["--on", "home", "health"]);

    home.me.trust_nobody();
    fails_with(&home, "unknown host", &["host key is not known", "log in once by hand"]);
    home.me.trust(&home.far, &["gateway.home"]);
    home.ok(&["--on", "home", "health"]);

    home.far.authorize_nobody();
    fails_with(&home, "wrong key", &["does not accept this login", "ssh -v"]);
    home.far.authorize(&home.me.public_key());

    home.far.end_listener();
    fails_with(&home, "sshd down", &["no ssh server listens"]);
    home.far.start_again();
    home.ok(&["--on", "home", "health"]);

    home.gateway.kill();
    fails_with(&home, "gateway down", &["ssh works", "nothing listens on the gateway's port", "openclaw gateway"]);
    home.gateway.start_again();
    home.ok(&["--on", "home", "health"]);

    lab.drop_packets("laptop:lan");
    fails_with(&home, "silence", &["did not answer in time"]);
    lab.heal("laptop:lan");
    lab.leave("laptop:lan");
    lab.leave("laptop:pub");
    lab.leave("laptop:cafe");
    fails_with(&home, "no network", &["no way to the host"]);
    lab.join("laptop:lan");
    home.ok(&["--on", "home", "health"]);

    // Names that are hashed in known_hosts are as good.
    home.me.hash_known_hosts();
    home.ok(&["--on", "home", "health"]);

    // Last, for it cannot be undone: a new host key. Never retried, never offered to be deleted.
    let before = home.far.fingerprint();
    home.far.rotate_host_key();
    let starts = home.me.starts().len();
    let (now, line) = (home.far.fingerprint(), home.me.known_hosts().display().to_string());
    fails_with(&home, "changed key", &["not the one on record", &now, &line, "ssh-keygen -lf", "do not log in before"]);
    assert_ne!(now, before);
    assert_eq!(home.me.starts().len(), starts + 1, "one attempt");
    let text = home.fails(&["--on", "home", "health"]).stderr;
    assert!(!text.contains("ssh-keygen -R") && !text.contains("-f "), "{text}");
}

#[test]
fn a_name_that_leads_nowhere_and_a_jump_host_that_cannot_go_on() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = Home::new(&lab);
    home.pair();
    home.save("home", &[home.ssh("nowhere")]);
    fails_with(&home, "unknown name", &["name could not be resolved"]);
    home.save("home", &[home.ssh("box-jump")]);
    home.ok(&["--on", "home", "health"]);
    home.far.end_listener();
    fails_with(&home, "far sshd down", &["jump host", "no ssh server listens"]);
    home.far.start_again();
    home.jump.authorize_nobody();
    fails_with(&home, "jump host refuses", &["does not accept this login"]);
}
