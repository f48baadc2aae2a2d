//! A command that listens for long, while links are cut, fall silent, come back, and the laptop moves: it changes paths, says
//! so, and misses nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use lab::{
    netlab::Netlab,
    process::{Process, wait_until},
    require::{self, program},
};
use serde_json::{Value, json};

use crate::{home::Home, report};

/// `openclaw watch --json` on the laptop.
struct Watcher<'a, 'lab> {
    home: &'a Home<'lab>,
    process: Process,
    /// Marks sent so far.
    sent: u32,
}

impl<'a, 'lab> Watcher<'a, 'lab> {
    #[track_caller]
    fn start(home: &'a Home<'lab>, name: &str) -> Self {
        let process = home.openclaw(&["--on", name, "watch", "--json", "--event", "presence"]).start("watch");
        let watcher = Self { home, process, sent: 0 };
        wait_until("the first path", || watcher.paths().first().cloned());
        watcher
    }

    fn lines(&self, kind: &str) -> Vec<Value> {
        let text = self.process.stdout();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
        lines.filter(|line| line["type"] == kind).collect()
    }

    /// Every path it was on so far.
    fn paths(&self) -> Vec<Value> {
        self.lines("path")
    }

    /// What it is on now: `lan`, `tailnet` or `ssh`.
    fn kind(&self) -> String {
        let paths = self.paths();
        paths.last().and_then(|line| line["path"]["kind"].as_str()).unwrap_or_default().to_owned()
    }

    /// The gateway tells something; returns the mark by which it is recognised.
    #[track_caller]
    fn tell(&mut self) -> String {
        self.sent += 1;
        let mark = format!("mark-{}-", self.sent);
        let params = json!({"text": mark, "instanceId": "lab", "mode": "backend"}).to_string();
        let told = self.home.gateway.owner(["gateway", "call", "system-event", "--params", &params]).run();
        assert!(told.status.success(), "{told:#?}");
        mark
    }

    fn heard(&self, mark: &str) -> bool {
        self.lines("event").iter().any(|line| line["payload"].to_string().contains(mark))
    }

    /// Does something to the network, and takes the time until what the gateway says afterwards is heard.
    #[track_caller]
    fn survives(&mut self, what: &str, fault: impl FnOnce(&Netlab)) -> Duration {
        let paths = self.paths().len();
        fault(self.home.lab);
        let started = Instant::now();
        let mark = self.tell();
        wait_until(&format!("an event after {what}"), || {
            assert!(self.process.ended().is_none(), "{what}: it ended: {}", self.process.said());
            self.heard(&mark).then_some(())
        });
        let took = started.elapsed();
        let moved = self.paths().get(paths).cloned().unwrap_or_default();
        let away = moved["awayMs"].as_f64().unwrap_or_default();
        let how = if moved.is_null() { "on the same path".to_owned() } else { format!("then {}", self.kind()) };
        report::note(&format!("watch: {what}, event heard ({how}; {away:.0} ms without a connection)"), took);
        took
    }

    #[track_caller]
    fn comes_to(&self, kind: &str) {
        wait_until(&format!("the path {kind}"), || (self.kind() == kind).then_some(()));
    }

    /// Every mark was heard, in the order in which they were sent.
    #[track_caller]
    fn missed_nothing(&self) {
        let events: Vec<String> = self.lines("event").iter().map(|line| line["payload"].to_string()).collect();
        let mut last = 0;
        for mark in 1..=self.sent {
            let at = events.iter().position(|event| event.contains(&format!("mark-{mark}-")));
            let at = at.unwrap_or_else(|| panic!("mark {mark} was not heard: {}", self.process.said()));
            assert!(at >= last, "mark {mark} came before an earlier one");
            last = at;
        }
        assert_eq!(self.lines("gap"), Vec::<Value>::new(), "nothing had to be read again");
    }
}

#[test]
fn links_are_cut_and_fall_silent_and_the_next_best_path_is_taken() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.pair();
    home.save("home", &[home.direct("lan"), home.direct("ts"), home.ssh("box-jump")]);
    let mut watch = Watcher::start(&home, "home");
    assert_eq!(watch.kind(), "lan");

    watch.survives("LAN cut", |lab| lab.cut("laptop:lan"));
    watch.comes_to("tailnet");
    lab.heal("laptop:lan");
    let healed = Instant::now();
    watch.comes_to("lan");
    report::note("watch: LAN healed, back on it from the tailnet", healed.elapsed());

    watch.survives("LAN silent", |lab| lab.drop_packets("laptop:lan"));
    watch.comes_to("tailnet");
    watch.survives("tailnet silent as well", |lab| lab.drop_packets("laptop:ts"));
    watch.comes_to("ssh");
    watch.survives("ssh killed", |_| home.me.kill_all());
    watch.survives("sshd sessions killed", |_| home.far.kill_sessions());
    lab.heal("laptop:lan");
    lab.heal("laptop:ts");
    watch.comes_to("lan");
    watch.missed_nothing();
}

#[test]
fn a_laptop_roams_and_sleeps_between_networks() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.pair();
    home.save("home", &[home.direct("lan"), home.ssh("box-jump")]);
    let mut watch = Watcher::start(&home, "home");
    watch.survives("another address on the LAN", |lab| lab.readdress("laptop:lan", 99));
    // From home to a café: the LAN and `pub` are left, only somebody else's NAT is there.
    watch.survives("from the LAN to a café", |lab| {
        lab.leave("laptop:lan");
        lab.leave("laptop:pub");
    });
    watch.comes_to("ssh");
    // No network at all for a while, as with a closed lid; what is told meanwhile is heard afterwards.
    lab.leave("laptop:cafe");
    lab.leave("laptop:ts");
    let meanwhile: Vec<String> = (0..3).map(|_| watch.tell()).collect();
    wait_until("a word about it", || (!watch.lines("away").is_empty()).then_some(()));
    let waited = watch.survives("no network, then the LAN again", |lab| lab.join("laptop:lan"));
    assert!(waited < Duration::from_secs(60), "{waited:?}");
    for mark in meanwhile {
        assert!(watch.heard(&mark), "{mark} was told while nobody could hear it");
    }
    watch.comes_to("lan");
    watch.missed_nothing();
}

#[test]
fn a_path_that_heals_and_a_gateway_that_restarts() {
    lab::require!(require::netlab());
    lab::require!(program("sshd"));
    let lab = Netlab::up();
    let mut home = Home::new(&lab);
    home.pair();
    // One path only: there is nothing to move to, so what counts is how soon it is noticed that it is back.
    home.save("home", &[home.direct("lan")]);
    let mut watch = Watcher::start(&home, "home");
    for (what, seconds) in [("cut", 2), ("cut", 8), ("silent", 5), ("silent", 15)] {
        watch.survives(&format!("the only link {what} for {seconds} s, from its healing"), |lab| {
            if what == "cut" {
                lab.cut("laptop:lan")
            } else {
                lab.drop_packets("laptop:lan")
            }
            // The length of the fault is the case, not a guess about somebody's speed.
            thread::sleep(Duration::from_secs(seconds));
            lab.heal("laptop:lan");
        });
    }
    watch.missed_nothing();
    drop(watch);

    let watcher = home.openclaw(&["--on", "home", "watch", "--json", "--event", "presence"]).start("watch-again");
    wait_until("a path", || watcher.stdout().contains("\"path\"").then_some(()));
    home.gateway.kill();
    let started = Instant::now();
    home.gateway.start_again();
    let paths = |text: &str| text.lines().filter(|line| line.contains("\"type\":\"path\"")).count();
    wait_until("the path again", || (paths(&watcher.stdout()) == 2).then_some(()));
    report::note("watch: gateway killed and started again, connected", started.elapsed());
}

#[test]
fn following_the_log_goes_on_when_the_only_link_comes_back() {
    lab::require!(require::netlab());
    let lab = Netlab::up();
    let home = Home::new(&lab);
    home.pair();
    home.save("home", &[home.direct("lan")]);
    for fault in ["cut", "silent", "left"] {
        let mut follow = home.openclaw(&["--on", "home", "logs", "--follow", "--json"]).start(&format!("logs-{fault}"));
        wait_until("log lines", || (!follow.stdout().is_empty()).then_some(()));
        match fault {
            "cut" => lab.cut("laptop:lan"),
            "silent" => lab.drop_packets("laptop:lan"),
            _ => lab.leave("laptop:lan"),
        }
        // A command that wants an answer now gets a reason instead, in its time.
        let asked = Instant::now();
        let failed = home.fails(&["--on", "home", "health", "--timeout", "2000"]);
        assert!(asked.elapsed() < Duration::from_secs(20), "{fault}: {:?}", asked.elapsed());
        assert!(failed.stderr.contains("lan ws://"), "{fault}: {failed:#?}");
        // One that follows waits. What is logged meanwhile is not lost.
        let word = format!("word.{fault}");
        let logged =
            home.gateway.owner(["config", "set", "gateway.nodes.denyCommands", &format!("[\"{word}\"]")]).run();
        assert!(logged.status.success(), "{logged:#?}");
        thread::sleep(Duration::from_secs(3));
        assert!(follow.ended().is_none(), "{fault}: it waits for the link: {}", follow.said());
        let lines = follow.stdout().lines().count();
        if fault == "left" {
            lab.join("laptop:lan")
        } else {
            lab.heal("laptop:lan")
        }
        let healed = Instant::now();
        wait_until("the lines of the meantime", || (follow.stdout().lines().count() > lines).then_some(()));
        report::note(
            &format!("logs --follow: link {fault} for some seconds, lines again after it healed"),
            healed.elapsed(),
        );
    }
}
