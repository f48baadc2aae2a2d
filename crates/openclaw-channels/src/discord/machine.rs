//! One connection to Discord's gateway, without the socket: frames and time in, frames and deadlines out.
//!
//! ```text
//! open ──► hello ──► identify ──► READY ───┐
//!            └─────► resume ───► RESUMED ──┴► live: heartbeats, dispatches
//! ```
//!
//! Every way out says how to come back: resume the session, identify anew, or not at all. From "Gateway" and "Gateway
//! Events" of the API reference, version 10.

use std::time::Duration;

use openclaw_protocol::Secret;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::api::{Frame, Hello, Ready};

/// From the open socket to `hello`, and on to `READY`. The reference waits 15 s and 30 s.
const HELLO: Duration = Duration::from_secs(15);
const READY: Duration = Duration::from_secs(30);
/// Heartbeats outside of this would be a flood or useless; Discord says about 41 s.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
const MAX_INTERVAL: Duration = Duration::from_secs(300);

/// What the bot asks to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intents {
    /// Privileged: the text of guild messages that do not name the bot.
    pub message_content: bool,
    /// Privileged: members of guilds.
    pub members: bool,
    /// Privileged: who is online.
    pub presence: bool,
}

impl Intents {
    /// Guilds, messages in guilds and in DMs, and what is switched on.
    pub fn bits(self) -> u32 {
        let of = |set: bool, bit: u32| if set { 1 << bit } else { 0 };
        of(true, 0)
            | of(true, 9)
            | of(true, 12)
            | of(self.members, 1)
            | of(self.presence, 8)
            | of(self.message_content, 15)
    }

    /// The switches in the developer portal that these need.
    fn privileged(self) -> String {
        let names = [
            (self.message_content, "Message Content Intent (intents.messageContent)"),
            (self.members, "Server Members Intent (intents.guildMembers)"),
            (self.presence, "Presence Intent (intents.presence)"),
        ];
        let wanted: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        wanted.join(", ")
    }
}

/// A session that can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: String,
    /// Where Discord wants it resumed.
    pub url: Option<String>,
}

/// What to do, in this order.
#[derive(Debug)]
pub enum Do {
    Send(String),
    /// An event, with its number in the session.
    Dispatch {
        seq: u64,
        name: String,
        data: Box<RawValue>,
    },
    /// The session is live; a new one names the bot.
    Live(Option<Box<Ready>>),
    Leave(Leave),
}

/// How to come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Resume the session.
    Resume { why: String },
    /// The session is gone: identify anew, after a while that Discord asks for.
    Identify { why: String, after: Duration },
    /// Nothing gets better by itself.
    Refused { why: String },
}

#[derive(Debug)]
enum Phase {
    Hello,
    Ready,
    Live,
}

/// See the module documentation.
pub struct Machine {
    token: Secret,
    intents: Intents,
    /// Session and number to resume from.
    resume: Option<(Session, u64)>,
    phase: Phase,
    /// By when `hello` or `READY` has to be here.
    patience: Instant,
    interval: Duration,
    beat_at: Option<Instant>,
    acked: bool,
    /// The last number received, for heartbeats.
    seq: Option<u64>,
    session: Option<Session>,
    /// Spreads clients that start together, 0.0 to 1.0.
    jitter: f64,
    token_refused: bool,
}

impl Machine {
    /// A connection that was just opened.
    pub fn new(now: Instant, token: Secret, intents: Intents, resume: Option<(Session, u64)>, jitter: f64) -> Self {
        Self {
            token,
            intents,
            seq: resume.as_ref().map(|(_, seq)| *seq),
            session: resume.as_ref().map(|(session, _)| session.clone()),
            resume,
            phase: Phase::Hello,
            patience: now + HELLO,
            interval: MAX_INTERVAL,
            beat_at: None,
            acked: true,
            jitter: jitter.clamp(0.0, 1.0),
            token_refused: false,
        }
    }

    /// The session there is, to resume it later.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// True once Discord has closed the connection because of the token.
    pub const fn token_refused(&self) -> bool {
        self.token_refused
    }

    /// When [`Machine::tick`] wants to be called.
    pub fn deadline(&self) -> Instant {
        let patience = (!self.is_live()).then_some(self.patience);
        [self.beat_at, patience].into_iter().flatten().min().unwrap_or(self.patience)
    }

    pub fn tick(&mut self, now: Instant) -> Vec<Do> {
        if !self.is_live() && now >= self.patience {
            let what = if matches!(self.phase, Phase::Hello) { "hello" } else { "READY" };
            return vec![self.again(format!("Discord's gateway did not say {what} in time"))];
        }
        match self.beat_at {
            Some(at) if now >= at && !self.acked => {
                vec![self.again("Discord's gateway did not answer a heartbeat".to_owned())]
            }
            Some(at) if now >= at => vec![self.beat(now)],
            _ => Vec::new(),
        }
    }

    pub fn text(&mut self, now: Instant, text: &str) -> Vec<Do> {
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            return vec![self.again("Discord's gateway sent something that is no frame".to_owned())];
        };
        match frame.op {
            0 => self.dispatch(frame),
            // Discord asks for a heartbeat.
            1 => vec![self.beat(now)],
            7 => vec![self.again("Discord asked to reconnect".to_owned())],
            9 => vec![Do::Leave(self.invalid(frame.d.as_deref()))],
            10 => self.hello(now, frame.d.as_deref()),
            11 => {
                self.acked = true;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// The connection has ended; `code` as Discord closed it.
    pub fn closed(&mut self, code: Option<u16>) -> Leave {
        let why = |text: &str| format!("Discord closed the connection: {text}");
        self.token_refused = code == Some(4004);
        match code {
            Some(4004) => Leave::Refused {
                why: "Discord does not accept the bot token (4004). Reset it in the Developer Portal (your application → \
                      Bot → Reset Token) and set channels.discord.token or DISCORD_BOT_TOKEN anew"
                    .to_owned(),
            },
            Some(4014) => Leave::Refused {
                why: format!(
                    "the bot may not hear all it asks for (4014, disallowed intents). In the Developer Portal open your \
                     application → Bot → Privileged Gateway Intents and switch on: {}; or switch them off here under \
                     channels.discord.intents",
                    self.intents.privileged()
                ),
            },
            Some(4013) => Leave::Refused { why: why("it does not know an intent that was asked for (4013)") },
            Some(4012) => Leave::Refused { why: why("this API version is over (4012); update openclaw") },
            Some(4010 | 4011) => Leave::Refused {
                why: why("the bot is in too many servers for one connection (sharding, which is not supported)"),
            },
            Some(code @ (4007 | 4009)) => {
                self.session = None;
                Leave::Identify { why: why(&format!("the session is over ({code})")), after: Duration::ZERO }
            }
            Some(code) => self.way_back(why(&format!("code {code}"))),
            None => self.way_back("the connection to Discord broke".to_owned()),
        }
    }

    fn way_back(&self, why: String) -> Leave {
        match &self.session {
            Some(_) => Leave::Resume { why },
            None => Leave::Identify { why, after: Duration::ZERO },
        }
    }

    fn again(&self, why: String) -> Do {
        Do::Leave(self.way_back(why))
    }

    fn invalid(&mut self, resumable: Option<&RawValue>) -> Leave {
        if resumable.is_some_and(|flag| flag.get() == "true") && self.session.is_some() {
            return Leave::Resume { why: "Discord interrupted the session".to_owned() };
        }
        self.session = None;
        // "Wait a random amount of time between 1 and 5 seconds."
        let after = Duration::from_secs_f64(1.0 + 4.0 * self.jitter);
        Leave::Identify { why: "Discord ended the session".to_owned(), after }
    }

    fn hello(&mut self, now: Instant, data: Option<&RawValue>) -> Vec<Do> {
        let hello = data.and_then(|data| serde_json::from_str::<Hello>(data.get()).ok());
        let Some(hello) = hello else {
            return vec![self.again("Discord's gateway said hello without a heartbeat interval".to_owned())];
        };
        self.interval = Duration::from_millis(hello.heartbeat_interval).clamp(MIN_INTERVAL, MAX_INTERVAL);
        self.beat_at = Some(now + self.interval.mul_f64(self.jitter));
        (self.phase, self.patience) = (Phase::Ready, now + READY);
        let token = self.token.expose();
        let frame = match &self.resume {
            Some((session, seq)) => json!({"op": 6, "d": {"token": token, "session_id": session.id, "seq": seq}}),
            None => json!({"op": 2, "d": {
                "token": token,
                "intents": self.intents.bits(),
                "properties": {"os": std::env::consts::OS, "browser": "openclaw", "device": "openclaw"},
            }}),
        };
        vec![Do::Send(frame.to_string())]
    }

    fn beat(&mut self, now: Instant) -> Do {
        (self.acked, self.beat_at) = (false, Some(now + self.interval));
        let seq = self.seq.map_or(Value::Null, Value::from);
        Do::Send(json!({"op": 1, "d": seq}).to_string())
    }

    fn dispatch(&mut self, frame: Frame) -> Vec<Do> {
        let (Some(seq), Some(name)) = (frame.s, frame.t) else { return Vec::new() };
        self.seq = Some(seq);
        let data = frame.d.unwrap_or_else(|| RawValue::NULL.to_owned());
        match name.as_str() {
            "READY" => match serde_json::from_str::<Ready>(data.get()) {
                Ok(ready) => {
                    self.phase = Phase::Live;
                    self.session =
                        Some(Session { id: ready.session_id.clone(), url: ready.resume_gateway_url.clone() });
                    vec![Do::Live(Some(Box::new(ready))), Do::Dispatch { seq, name, data }]
                }
                Err(error) => vec![self.again(format!("Discord's READY cannot be read ({error})"))],
            },
            "RESUMED" => {
                self.phase = Phase::Live;
                vec![Do::Live(None), Do::Dispatch { seq, name, data }]
            }
            _ => vec![Do::Dispatch { seq, name, data }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTENTS: Intents = Intents { message_content: true, members: false, presence: false };

    fn machine(now: Instant, resume: Option<(Session, u64)>) -> Machine {
        Machine::new(now, Secret::new("hush-hush"), INTENTS, resume, 0.5)
    }

    fn session() -> Session {
        Session { id: "s".into(), url: Some("wss://r.discord.gg".into()) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sent(todo: &[Do]) -> Vec<Value> {
        let texts = todo.iter().filter_map(|todo| match todo {
            Do::Send(text) => Some(serde_json::from_str(text).expect("JSON")),
            _ => None,
        });
        texts.collect()
    }

    fn leave(todo: Vec<Do>) -> Leave {
        match todo.into_iter().next_back() {
            Some(Do::Leave(leave)) => leave,
            other => panic!("{other:?}"),
        }
    }

    const READY_FRAME: &str = r#"{"op":0,"s":1,"t":"READY","d":{"v":10,"user":{"id":"9","username":"claw","bot":true},
        "guilds":[],"session_id":"s","resume_gateway_url":"wss://r.discord.gg","application":{"id":"8","flags":0}}}"#;

    #[test]
    fn identify_ready_and_heartbeats() {
        let now = Instant::now();
        let mut machine = machine(now, None);
        assert_eq!(machine.deadline(), now + HELLO);
        let todo = machine.text(now, r#"{"op":10,"d":{"heartbeat_interval":41250}}"#);
        let identify = &sent(&todo)[0];
        assert_eq!((identify["op"].as_u64(), identify["d"]["token"].as_str()), (Some(2), Some("hush-hush")));
        // GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT.
        assert_eq!(identify["d"]["intents"], 1 | 512 | 4096 | 32768);
        // The first heartbeat comes after a part of the interval.
        assert_eq!(machine.deadline(), now + ms(20_625));
        assert!(matches!(&machine.text(now, READY_FRAME)[..], [Do::Live(Some(_)), Do::Dispatch { seq: 1, .. }]));
        assert_eq!(machine.session(), Some(&session()));
        let beat = machine.tick(now + ms(20_625));
        assert_eq!(sent(&beat), [json!({"op": 1, "d": 1})]);
        machine.text(now, r#"{"op":11}"#);
        assert_eq!(sent(&machine.tick(now + ms(20_625 + 41_250))), [json!({"op": 1, "d": 1})]);
        // Without an answer by the next one the connection is dead.
        let todo = machine.tick(now + ms(20_625 + 2 * 41_250));
        assert_eq!(leave(todo), Leave::Resume { why: "Discord's gateway did not answer a heartbeat".into() });
    }

    #[test]
    fn a_session_goes_on_where_it_was() {
        let now = Instant::now();
        let mut machine = machine(now, Some((session(), 41)));
        let todo = machine.text(now, r#"{"op":10,"d":{"heartbeat_interval":1000}}"#);
        assert_eq!(sent(&todo), [json!({"op": 6, "d": {"token": "hush-hush", "session_id": "s", "seq": 41}})]);
        assert!(!machine.is_live());
        machine.text(now, r#"{"op":0,"s":42,"t":"RESUMED","d":{}}"#);
        assert!(machine.is_live());
        // Asked for a heartbeat, it answers at once and with the last number.
        assert_eq!(sent(&machine.text(now, r#"{"op":1,"d":null}"#)), [json!({"op": 1, "d": 42})]);
    }

    #[test]
    fn ways_out() {
        let now = Instant::now();
        let check = |frame: &str, resumes: bool| {
            let mut machine = machine(now, None);
            machine.text(now, r#"{"op":10,"d":{"heartbeat_interval":1000}}"#);
            machine.text(now, READY_FRAME);
            let leave = leave(machine.text(now, frame));
            assert_eq!(matches!(leave, Leave::Resume { .. }), resumes, "{frame}: {leave:?}");
            assert_eq!(machine.session().is_some(), resumes, "{frame}");
        };
        check(r#"{"op":7,"d":null}"#, true);
        check(r#"{"op":9,"d":true}"#, true);
        check(r#"{"op":9,"d":false}"#, false);
        check("not a frame", true);
        let mut quiet = machine(now, None);
        assert!(matches!(leave(quiet.tick(now + HELLO)), Leave::Identify { .. }));
        quiet.text(now, r#"{"op":10,"d":{"heartbeat_interval":300000}}"#);
        assert!(matches!(leave(quiet.tick(now + READY)), Leave::Identify { .. }), "no READY");
    }

    /// "Gateway Close Event Codes" of the API reference.
    #[test]
    fn close_codes() {
        let now = Instant::now();
        let close = |code: Option<u16>| {
            let mut machine = machine(now, Some((session(), 1)));
            machine.closed(code)
        };
        for code in
            [None, Some(1000), Some(1001), Some(4000), Some(4001), Some(4002), Some(4003), Some(4005), Some(4008)]
        {
            assert!(matches!(close(code), Leave::Resume { .. }), "{code:?}");
        }
        for code in [4007, 4009] {
            assert!(matches!(close(Some(code)), Leave::Identify { .. }), "{code}");
        }
        for (code, words) in [
            (4004, "Reset Token"),
            (4010, "sharding"),
            (4011, "sharding"),
            (4012, "update openclaw"),
            (4013, "intent"),
            (4014, "switch on: Message Content Intent"),
        ] {
            let Leave::Refused { why } = close(Some(code)) else { panic!("{code} is retried") };
            assert!(why.contains(words) && !why.contains("hush-hush"), "{code}: {why}");
        }
    }
}
