//! The machine against a clock that only the test moves. What it does is written down as it would be said.

use super::*;

/// A machine, its clock, and the actions of the last step.
struct Play {
    machine: Machine,
    now: Instant,
}

fn trouble(code: &str, fatal: bool) -> Trouble {
    let failure = Failure { code: code.to_owned(), message: String::new(), remedy: None, at_ms: 0 };
    Trouble { failure, fatal }
}

const RTT: Duration = Duration::from_millis(20);

impl Play {
    fn new() -> Self {
        Self::with(true)
    }

    fn with(spare: bool) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(now, spare, 7), now }
    }

    fn on(&mut self, input: Input) -> Vec<Action> {
        self.machine.on(self.now, input)
    }

    fn tick(&mut self) -> Vec<Action> {
        self.on(Input::Tick)
    }

    /// Lets time pass the way the supervisor does: a tick at every instant the machine asked for.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        let end = self.now + time;
        let mut actions = Vec::new();
        while let Some(wake) = self.machine.wake(self.now).filter(|wake| *wake <= end) {
            assert!(wake > self.now, "a wake-up in the past would spin");
            self.now = wake;
            actions.extend(self.tick());
        }
        self.now = end;
        actions.extend(self.tick());
        actions
    }

    /// Time passes while these links echo every 500 ms.
    fn pass_echoing(&mut self, time: Duration, links: &[LinkId]) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut left = time;
        while left > Duration::ZERO {
            let step = left.min(Duration::from_millis(500));
            actions.extend(self.pass(step));
            for id in links {
                actions.extend(self.echo(*id));
            }
            left -= step;
        }
        actions
    }

    fn echo(&mut self, id: LinkId) -> Vec<Action> {
        self.on(Input::Echo { id, round_trip: RTT })
    }

    fn opened(&mut self, id: LinkId) -> Vec<Action> {
        self.on(Input::Opened { id, heartbeat: true })
    }

    fn answers(&mut self, id: LinkId) -> Vec<Action> {
        self.on(Input::Answered { id, answer: Ok(None) })
    }

    fn ends(&mut self, id: LinkId, code: &str, fatal: bool) -> Vec<Action> {
        self.on(Input::Ended { id, trouble: trouble(code, fatal) })
    }

    /// Waits for the next attempt and no longer.
    fn wait_out(&mut self) -> Vec<Action> {
        match self.machine.next_attempt(self.now) {
            Some(due) => self.pass(due - self.now),
            None => Vec::new(),
        }
    }

    fn state(&self) -> State {
        self.machine.state(self.now)
    }

    fn current(&self) -> Option<LinkId> {
        self.machine.current(self.now)
    }

    /// Up on link 0, with link 1 as its spare.
    fn up() -> Self {
        let mut play = Self::new();
        assert_eq!(play.tick(), [Action::Open(0)]);
        assert_eq!(play.opened(0), [Action::Ask(0)]);
        assert_eq!(play.answers(0), [Action::Open(1)]);
        assert_eq!(play.opened(1), [Action::Ask(1)]);
        assert_eq!(play.answers(1), []);
        assert_eq!((play.state(), play.current()), (State::Up, Some(0)));
        play
    }
}

#[test]
fn up_only_when_the_gateway_has_answered() {
    let mut play = Play::new();
    assert_eq!(play.tick(), [Action::Open(0)]);
    assert_eq!(play.state(), State::Connecting);
    play.opened(0);
    assert_eq!((play.state(), play.current()), (State::Connecting, None));
    play.answers(0);
    assert_eq!((play.state(), play.current()), (State::Up, Some(0)));
    assert_eq!(play.machine.attempts, 0);
}

#[test]
fn a_killed_ssh_is_replaced_at_once_and_a_new_spare_is_opened() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    let actions = play.ends(0, "ssh_lost", false);
    assert_eq!((play.current(), play.machine.replaced), (Some(1), 1));
    assert_eq!(actions, [Action::Open(2)]);
    assert_eq!(play.state(), State::Up);
}

#[test]
fn the_spare_is_replaced_without_a_word_about_the_tunnel() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    assert_eq!(play.ends(1, "ssh_lost", false), [Action::Open(2)]);
    assert_eq!((play.current(), play.machine.last_failure.clone()), (Some(0), None));
    // One that never comes up is tried later and later.
    assert_eq!(play.ends(2, "ssh_refused", false), []);
    let mut opened = Vec::new();
    for _ in 0..60 {
        opened.extend(play.pass_echoing(Duration::from_secs(2), &[0]));
        if let Some(Action::Open(id)) = opened.last().copied() {
            play.ends(id, "ssh_refused", false);
        }
    }
    assert!((5..12).contains(&opened.len()), "{opened:?}");
    assert_eq!(play.state(), State::Up);
}

#[test]
fn without_a_spare_the_next_ssh_starts_at_once() {
    let mut play = Play::with(false);
    play.tick();
    play.opened(0);
    assert_eq!(play.answers(0), []);
    assert_eq!(play.ends(0, "ssh_lost", false), [Action::Open(1)]);
    assert_eq!(play.state(), State::Connecting);
}

#[test]
fn attempts_wait_longer_and_longer_and_start_afresh_after_a_minute_up() {
    let mut play = Play::with(false);
    play.tick();
    let mut id = 0;
    let mut gaps = Vec::new();
    for _ in 0..12 {
        let failed = play.now;
        play.ends(id, "ssh_refused", false);
        id += 1;
        if play.machine.links.is_empty() {
            assert_eq!(play.state(), State::Waiting);
            assert_eq!(play.wait_out(), [Action::Open(id)]);
        }
        gaps.push(play.now - failed);
    }
    assert_eq!(gaps[0], Duration::ZERO);
    for (gap, full) in gaps[1..].iter().zip([250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000, 30000]) {
        let full = Duration::from_millis(full);
        assert!(*gap >= full.mul_f64(0.75) && *gap <= full, "{gaps:?}");
    }
    assert_eq!(play.machine.attempts, 13);
    play.opened(id);
    play.answers(id);
    // Not good yet: the wait goes on where it was.
    play.pass_echoing(Duration::from_secs(50), &[id]);
    assert_eq!(play.ends(id, "ssh_lost", false), []);
    id += 1;
    assert_eq!(play.wait_out(), [Action::Open(id)]);
    play.opened(id);
    play.answers(id);
    play.pass_echoing(Duration::from_secs(61), &[id]);
    assert_eq!(play.ends(id, "ssh_lost", false), [Action::Open(id + 1)]);
}

#[test]
fn a_silent_link_is_noticed_after_three_seconds_kept_and_replaced() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    assert_eq!(play.pass(Duration::from_millis(2999)), []);
    assert_eq!(play.state(), State::Up);
    assert_eq!(play.pass(Duration::from_millis(1)), [Action::Open(2)]);
    assert_eq!((play.state(), play.current()), (State::Connecting, None));
    let roles: Vec<_> = play.machine.roles(play.now).collect();
    assert_eq!(roles, [(0, Role::Silent), (1, Role::Silent), (2, Role::Opening)]);
    // The first to answer wins; the silent ones are still there.
    play.opened(2);
    play.answers(2);
    assert_eq!((play.state(), play.current(), play.machine.replaced), (State::Up, Some(2), 1));
    assert!(play.machine.links.iter().any(|link| link.id == 0));
    // Dead ten seconds after its last echo.
    let closed = play.pass_echoing(Duration::from_secs(7), &[2]);
    assert!(closed.contains(&Action::Close(0)) && closed.contains(&Action::Close(1)), "{closed:?}");
}

#[test]
fn only_the_current_is_silent_so_the_spare_takes_over() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(4), &[0, 1]);
    let actions = play.pass_echoing(Duration::from_millis(3000), &[1]);
    assert_eq!((play.current(), play.state()), (Some(1), State::Up));
    assert_eq!(actions, [Action::Open(2)]);
    // The old one comes back: it is a spare now, and the one that was being opened is not needed.
    play.echo(0);
    assert_eq!(play.current(), Some(1));
    assert_eq!(play.tick(), []);
    assert_eq!(play.machine.links.len(), 2);
}

#[test]
fn an_old_link_that_comes_back_stays() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    play.pass(Duration::from_secs(3));
    assert_eq!(play.state(), State::Connecting);
    play.echo(0);
    assert_eq!((play.state(), play.current(), play.machine.replaced), (State::Up, Some(0), 0));
}

#[test]
fn an_attempt_that_hangs_gets_company_and_no_more() {
    let mut play = Play::with(false);
    assert_eq!(play.tick(), [Action::Open(0)]);
    assert_eq!(play.pass(Duration::from_millis(1999)), []);
    assert_eq!(play.pass(Duration::from_millis(1)), [Action::Open(1)]);
    assert_eq!(play.pass(Duration::from_secs(60)), []);
    // The network changed: the older one makes room for one that has a chance.
    assert_eq!(play.on(Input::Moved), [Action::Close(0), Action::Open(2)]);
    play.opened(2);
    // Nothing but the winner and what is still under way; without a wish for a spare, only the winner.
    assert_eq!(play.answers(2), [Action::Retire(1)]);
    assert_eq!(play.state(), State::Up);
}

#[test]
fn a_change_of_the_network_ends_the_waiting() {
    let mut play = Play::with(false);
    play.tick();
    for id in 0..8 {
        play.ends(id, "ssh_unreachable", false);
        play.wait_out();
    }
    play.ends(8, "ssh_unreachable", false);
    assert_eq!(play.state(), State::Waiting);
    assert_eq!(play.on(Input::Moved), [Action::Open(9)]);
    assert_eq!(play.ends(9, "ssh_unreachable", false), [Action::Open(10)]);
}

#[test]
fn a_change_of_the_network_asks_the_links_and_gives_them_a_second() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    assert_eq!(play.on(Input::Moved), [Action::Beat(0), Action::Beat(1)]);
    assert_eq!(play.pass(Duration::from_millis(999)), []);
    play.echo(0);
    // The current one answered: only the spare is replaced.
    assert_eq!(play.pass(Duration::from_millis(1)), [Action::Open(2)]);
    assert_eq!((play.state(), play.current()), (State::Up, Some(0)));
}

#[test]
fn slow_links_get_four_round_trips() {
    let mut play = Play::up();
    for id in [0, 1] {
        play.on(Input::Echo { id, round_trip: Duration::from_millis(600) });
    }
    play.on(Input::Moved);
    assert_eq!(play.pass(Duration::from_millis(2399)), []);
    assert_eq!(play.pass(Duration::from_millis(1)), [Action::Open(2)]);
}

#[test]
fn p_83_what_only_a_person_can_cure_is_not_tried_again() {
    for code in ["host_key_changed", "host_key_unknown", "ssh_auth_refused"] {
        let mut play = Play::new();
        play.tick();
        assert_eq!(play.ends(0, code, true), []);
        assert_eq!(play.state(), State::Failed);
        assert_eq!(play.pass(Duration::from_secs(3600)), []);
        assert_eq!(play.on(Input::Moved), [], "not even in another network");
        assert_eq!(play.machine.last_failure.as_ref().map(|failure| failure.code.as_str()), Some(code));
        assert_eq!(play.on(Input::Retry), [Action::Open(1)]);
        assert_eq!(play.state(), State::Connecting);
    }
}

#[test]
fn a_fatal_spare_leaves_the_tunnel_up() {
    let mut play = Play::up();
    play.ends(1, "ssh_lost", false);
    play.pass_echoing(Duration::from_secs(1), &[0]);
    assert_eq!(play.ends(2, "ssh_auth_refused", true), []);
    assert_eq!(play.pass_echoing(Duration::from_secs(120), &[0]), []);
    assert_eq!(play.state(), State::Up);
    // When the current one goes, it is tried: the key may be back.
    assert_eq!(play.ends(0, "ssh_lost", false), [Action::Open(3)]);
}

#[test]
fn a_fatal_replacement_does_not_end_a_link_that_is_only_silent() {
    let mut play = Play::up();
    play.pass_echoing(Duration::from_secs(5), &[0, 1]);
    play.pass(Duration::from_secs(3));
    assert_eq!(play.ends(2, "host_key_changed", true), []);
    assert_eq!(play.state(), State::Failed);
    play.echo(0);
    assert_eq!((play.state(), play.current()), (State::Up, Some(0)));
}

#[test]
fn a_gateway_that_is_down_is_asked_again_through_the_same_ssh() {
    let mut play = Play::new();
    play.tick();
    play.opened(0);
    let down = |id| Input::Answered { id, answer: Err(trouble("gateway_down", false)) };
    assert_eq!(play.on(down(0)), [Action::Ask(0)]);
    assert_eq!(play.on(down(0)), []);
    assert_eq!(play.state(), State::Waiting);
    let mut asked = 0;
    for _ in 0..20 {
        play.echo(0);
        let actions = play.pass_echoing(Duration::from_secs(1), &[0]);
        assert!(actions.iter().all(|action| *action == Action::Ask(0)), "{actions:?}");
        for _ in actions {
            asked += 1;
            play.on(down(0));
        }
    }
    assert!((4..10).contains(&asked), "{asked}");
    assert_eq!(play.answers(0), [Action::Open(1)]);
    assert_eq!(play.state(), State::Up);
}

#[test]
fn a_gateway_that_goes_down_is_noticed_and_waited_for() {
    let mut play = Play::up();
    let actions = play.on(Input::Refused { id: 0, trouble: trouble("gateway_down", false) });
    assert_eq!(actions, [Action::Ask(0), Action::Ask(1)]);
    assert_eq!(play.current(), None);
    play.on(Input::Answered { id: 0, answer: Err(trouble("gateway_down", false)) });
    play.on(Input::Answered { id: 1, answer: Err(trouble("gateway_down", false)) });
    assert_eq!(play.state(), State::Waiting);
    play.pass_echoing(Duration::from_secs(1), &[0, 1]);
    play.answers(1);
    assert_eq!((play.state(), play.current()), (State::Up, Some(1)));
}

#[test]
fn p_85_another_gateway_stops_everything() {
    let mut play = Play::up();
    let actions = play.on(Input::Answered { id: 0, answer: Err(trouble("wrong_gateway", true)) });
    assert_eq!(actions, [Action::Close(0), Action::Close(1)]);
    assert_eq!(play.state(), State::Failed);
    assert_eq!(play.pass(Duration::from_secs(3600)), []);
}

#[test]
fn without_a_heartbeat_a_link_is_never_silent() {
    let mut play = Play::with(false);
    play.tick();
    play.on(Input::Opened { id: 0, heartbeat: false });
    play.answers(0);
    assert_eq!(play.pass(Duration::from_secs(600)), []);
    assert_eq!(play.on(Input::Moved), []);
    assert_eq!(play.state(), State::Up);
}

#[test]
fn late_news_of_links_that_were_given_up() {
    let mut play = Play::with(false);
    play.tick();
    play.pass(Duration::from_secs(2));
    play.on(Input::Moved);
    assert_eq!(play.opened(0), [Action::Close(0)]);
    for input in [
        Input::Echo { id: 0, round_trip: RTT },
        Input::Ended { id: 0, trouble: trouble("x", true) },
        Input::Answered { id: 0, answer: Err(trouble("x", true)) },
        Input::Refused { id: 0, trouble: trouble("x", true) },
    ] {
        assert_eq!(play.on(input), []);
        assert_eq!(play.state(), State::Connecting);
    }
}
