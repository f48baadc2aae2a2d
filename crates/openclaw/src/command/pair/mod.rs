//! `openclaw pair` and `openclaw qr`: a code for the phone in one's hand, drawn in the terminal, with a text twin, and a line
//! that tells how far the phone got.

mod args;
mod trial;
mod watch;

use std::{io::IsTerminal as _, time::Duration};

use openclaw_protocol::{
    SetupCode,
    method::invite::{SetupAccess, SetupCodeMade},
    setup_code::SCHEME,
};
use openclaw_remote::{
    Client, Error as RemoteError,
    connect::{DeviceUse, Persona},
};
use serde_json::{Value, json};

pub use args::PairArgs;

use self::trial::Tried;
use crate::{
    args::PortTargetArgs,
    context::Context,
    failure::{Failure, Outcome},
    output::{
        self, Style, Tone, inert,
        qr::{Drawing, Ink, Room},
        time,
    },
    reach::{Reach, block_on},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const ADMIN: &str = "operator.admin";
/// A terminal that does not say how large it is.
const USUAL: Room = Room { columns: 80, rows: 24 };

/// Which of the two names was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Waits for the device on a terminal, as the reference's scripts expect nothing else.
    Qr,
    /// Always waits.
    Pair,
}

pub fn run(context: &Context, args: &PairArgs, verb: Verb) -> Outcome {
    let at = PortTargetArgs { target: args.at(), port: None };
    let reach = context.reach(&at, DEFAULT_TIMEOUT)?;
    if args.remote && reach.loaded.gateway.remote.url.is_none() {
        return Err(Failure::new("qr --remote requires gateway.remote.url (or gateway.tailscale.mode=serve/funnel).")
            .remedy("set it", "openclaw config set gateway.remote.url wss://host:port"));
    }
    let terminal = std::io::stdout().is_terminal();
    let quiet = args.json || args.setup_code_only;
    let wait = !quiet && !args.no_wait && (terminal || verb == Verb::Pair);
    block_on(async {
        let link = reach.open(Persona::Cli, &[ADMIN], DeviceUse::WhenNeeded).await;
        let link = link.map_err(|error| reach.failure(&error))?;
        let offer = make(context, &reach, &link.client, args).await?;
        if args.json {
            output::json(&offer.json());
        } else if args.setup_code_only {
            for line in offer.warnings(context.output.err, args) {
                output::note(line);
            }
            output::line(offer.text());
        } else {
            let page = offer.page(context.output.out, args, terminal.then(room));
            output::print(&page);
        }
        let outcome = match wait {
            true => watch::until_paired(context, &reach, &link.client, &offer).await,
            false => Ok(0),
        };
        link.close().await;
        outcome
    })
}

/// A code, made and tried.
pub struct Offer {
    pub made: SetupCodeMade,
    pub code: SetupCode,
    tried: Vec<Tried>,
}

async fn make(context: &Context, reach: &Reach<'_>, client: &Client, args: &PairArgs) -> Result<Offer, Failure> {
    let mut params = json!({});
    if let Some(profile) = args.profile() {
        params["bootstrapProfile"] = json!(profile);
    }
    if let Some(url) = args.address() {
        params["publicUrl"] = json!(url);
    }
    if args.remote {
        params["preferRemoteUrl"] = json!(true);
    }
    let answer = client.call("device.pair.setupCode", Some(params), reach.timeout()).await;
    let answer = answer.map_err(|error| explain(reach, &error))?;
    let unreadable = |what: String| Failure::new(format!("The gateway's setup code is unreadable: {what}."));
    let made: SetupCodeMade = serde_json::from_value(answer).map_err(|error| unreadable(error.to_string()))?;
    let code = SetupCode::parse(made.setup_code.expose()).map_err(|error| unreadable(error.to_string()))?;
    let mut offer = Offer { made, code, tried: Vec::new() };
    if args.untested {
        return Ok(offer);
    }
    let progress = context.output.progress("Trying the gateway's addresses …");
    offer.tried = trial::addresses(context, &offer.code).await;
    drop(progress);
    // An address that was named may lead here from elsewhere only; the gateway's own must answer.
    if args.address().is_none() && !offer.keep_what_answers() {
        watch::take_back(client, reach, &offer.made.setup_id).await;
        let failure =
            Failure::new("None of the gateway's addresses answers from here, so a phone would not get through.");
        let failure = offer.tried.iter().fold(failure, |failure, tried| failure.detail(tried.told()));
        return Err(failure
            .detail("The code was taken back.")
            .remedy("find out why", "openclaw gateway probe")
            .remedy("or make one all the same", "openclaw pair --untested"));
    }
    Ok(offer)
}

impl Tried {
    /// For people.
    fn told(&self) -> String {
        let url = inert(&self.url);
        match &self.problem {
            None => format!("{url} answers"),
            Some(problem) => format!("{url}: {}", inert(problem)),
        }
    }
}

impl Offer {
    /// Leaves the addresses that do not answer out of the code. False when nothing is left.
    fn keep_what_answers(&mut self) -> bool {
        let good = |url: &String| self.tried.iter().any(|tried| tried.url == *url && tried.problem.is_none());
        let urls: Vec<String> = self.code.urls.iter().filter(|url| good(url)).cloned().collect();
        let some = !urls.is_empty();
        if some {
            self.code.urls = urls;
        }
        some
    }

    /// The code as the reference writes it.
    fn text(&self) -> String {
        self.code.encode().expose().to_owned()
    }

    fn json(&self) -> Value {
        let made = &self.made;
        let mut report = json!({"setupCode": self.text(), "gatewayUrl": self.code.urls.first()});
        if self.code.urls.len() > 1 {
            report["gatewayUrls"] = json!(self.code.urls);
        }
        report["auth"] = json!(made.auth);
        report["access"] = json!(made.access);
        if made.access_downgraded == Some(true) {
            report["accessDowngraded"] = json!(true);
        }
        report["urlSource"] = json!(made.url_source);
        report["setupId"] = json!(made.setup_id);
        report["expiresAtMs"] = json!(made.expires_at_ms);
        let tried = |tried: &Tried| json!({"url": tried.url, "ok": tried.problem.is_none(), "reason": tried.problem});
        report["tried"] = self.tried.iter().map(tried).collect();
        report
    }

    /// What a person should know before the code is used.
    fn warnings(&self, style: Style, args: &PairArgs) -> Vec<String> {
        let mut lines = Vec::new();
        let left_out = self.tried.iter().filter(|tried| tried.problem.is_some());
        for tried in left_out {
            let what = if args.address().is_some() { "does not answer from here" } else { "is left out" };
            lines.push(format!("{} {} {what}: {}", style.warn(), inert(&tried.url), problem(tried)));
        }
        if self.made.access_downgraded == Some(true) {
            lines.push(format!(
                "{} Limited, since ws:// can be read by others on that network; --admin needs wss:// (openclaw config set \
                 gateway.tls.enabled true).",
                style.warn()
            ));
        }
        lines
    }

    /// The code with less in it, the fullest first: what is left out is of use, and not needed to pair.
    fn leaner(&self) -> Vec<SetupCode> {
        let full = self.code.clone();
        let no_end = SetupCode { expires_at_ms: None, ..full.clone() };
        let no_identity = SetupCode { gateway_id: None, ..full.clone() };
        let neither = SetupCode { gateway_id: None, ..no_end.clone() };
        let one_address = SetupCode { urls: full.urls.iter().take(1).cloned().collect(), ..neither.clone() };
        vec![full, no_end, no_identity, neither, one_address]
    }

    /// Everything that is printed. On a terminal the picture has to stay on the screen: what does not fit below it stands
    /// above it.
    fn page(&self, style: Style, args: &PairArgs, terminal: Option<Room>) -> String {
        let room = terminal.unwrap_or(Room::ENDLESS);
        let ink = match (style.unicode(), style.colored()) {
            (true, true) => Ink::Colors { inverted: args.invert },
            (true, false) => Ink::Plain { dark_letters: args.invert },
            (false, _) => Ink::Blanks { inverted: args.invert },
        };
        let above = vec![style.paint(Tone::Title, "Scan this with the OpenClaw app."), String::new()];
        let mut below = self.facts(style);
        below.extend(self.warnings(style, args));
        let drawable = !args.no_ascii && (style.unicode() || style.colored());
        if !drawable {
            return lines(&below);
        }
        let texts: Vec<String> = self.leaner().iter().map(|code| code.encode().expose().to_owned()).collect();
        // One row stays for the line that tells how far the phone got.
        let free = Room { rows: room.rows.saturating_sub(1), ..room };
        let Some((index, drawing)) = Drawing::best(texts.iter().map(String::as_str), free, ink) else {
            let needed = texts.last().and_then(|text| Drawing::rows_needed(text)).unwrap_or_default() + 1;
            below.insert(0, String::new());
            below.insert(0, format!(
                "{} The picture needs {needed} rows and this terminal has {}: make the window higher or the letters smaller, then \
                 openclaw pair again. The text says the same.",
                style.warn(),
                room.rows
            ));
            return lines(&below);
        };
        let picture = drawing.render(ink);
        if index > 0 {
            below.push(style.paint(
                Tone::Dim,
                "To fit this terminal, the picture leaves out what is not needed to pair; the text has it all.",
            ));
        }
        let height = |text: &[String]| text.iter().map(|line| rows(line, room.columns)).sum::<usize>();
        match drawing.rows() + 1 + height(&above) + height(&below) <= free.rows {
            true => format!("{}{picture}\n{}", lines(&above), lines(&below)),
            false => format!("{}{}{picture}", lines(&below), lines(&above[..1])),
        }
    }

    fn facts(&self, style: Style) -> Vec<String> {
        let fact = |name: &str, text: String| format!("{} {text}", style.paint(Tone::Dim, &format!("{name}:")));
        let urls: Vec<_> = self.code.urls.iter().map(|url| inert(url).into_owned()).collect();
        let rights = match self.made.access {
            SetupAccess::Full => "full: administration, and lends the phone's abilities",
            SetupAccess::Limited => "limited: no administration; lends the phone's abilities",
            SetupAccess::Node => "node: lends its abilities, commands nothing",
        };
        let mut facts = vec![
            fact("Setup code", style.paint(Tone::Command, &format!("{SCHEME}{}", self.text()))),
            fact("Gateway", urls.join(" or ")),
            fact("Access", rights.to_owned()),
        ];
        if let Some(id) = &self.code.gateway_id {
            facts.push(fact("Identity", format!("{}…", id.short())));
        }
        let left = u64::try_from(self.made.expires_at_ms.saturating_sub(time::now_ms())).unwrap_or_default();
        facts.push(fact("Good for", format!("{}, once", time::span(Duration::from_secs(left / 1000)))));
        facts
    }
}

fn problem(tried: &Tried) -> String {
    inert(tried.problem.as_deref().unwrap_or_default()).into_owned()
}

fn lines(text: &[String]) -> String {
    text.iter().map(|line| format!("{line}\n")).collect()
}

/// Rows a line takes on a terminal.
fn rows(line: &str, columns: usize) -> usize {
    let mut visible = 0_usize;
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => while rest.next().is_some_and(|next| next != 'm') {},
            _ => visible += 1,
        }
    }
    visible.div_ceil(columns.max(1)).max(1)
}

/// The terminal's size.
pub fn room() -> Room {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    match size {
        Some((columns, rows)) if columns > 0 && rows > 0 => Room { columns, rows },
        _ => USUAL,
    }
}

fn explain(reach: &Reach<'_>, error: &RemoteError) -> Failure {
    let text = error.to_string();
    let loopback = text.contains("only bound to loopback");
    if loopback || error.detail_code() == Some("GATEWAY_LOOPBACK_ONLY") {
        return loopback_only();
    }
    reach.failure(error)
}

/// The three ways out, the nearest first.
fn loopback_only() -> Failure {
    Failure::new("This gateway listens on loopback only, so no phone can reach it. No code was made.")
        .error_code("loopback_only")
        .detail("There are three ways; each needs a restart of the gateway, then openclaw pair:")
        .there(
            "1. the local network, encrypted",
            "openclaw config set gateway.bind lan && openclaw config set gateway.tls.enabled true",
        )
        .there("2. your tailnet", "openclaw config set gateway.bind tailnet")
        .there(
            "3. an https:// address that leads here",
            "openclaw config set gateway.publicOrigin https://gateway.example.com",
        )
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::{DeviceKey, GatewayId, Secret};

    use super::*;

    fn offer(urls: &[&str], pin: bool) -> Offer {
        let code = SetupCode {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            bootstrap_token: Secret::new("A".repeat(22)),
            expires_at_ms: Some(1_795_230_139_714),
            tls_fingerprint: pin.then(|| "ab".repeat(32)),
            gateway_id: Some(GatewayId::of(DeviceKey::from_seed(&[7; 32]).id())),
            role: None,
        };
        let made = SetupCodeMade {
            setup_id: "s".into(),
            setup_code: code.encode(),
            join_url: None,
            qr_data_url: None,
            gateway_url: urls[0].to_owned(),
            gateway_urls: None,
            auth: "token".into(),
            url_source: "gateway.bind=lan".into(),
            access: SetupAccess::Limited,
            access_downgraded: None,
            expires_at_ms: 1_795_230_139_714,
        };
        Offer { made, code, tried: Vec::new() }
    }

    fn args(words: &[&str]) -> PairArgs {
        use clap::{Args as _, FromArgMatches as _};
        let command = PairArgs::augment_args(clap::Command::new("pair"));
        let matches = command.try_get_matches_from(std::iter::once(&"pair").chain(words)).expect("options");
        PairArgs::from_arg_matches(&matches).expect("options")
    }

    #[test]
    fn limited_unless_said_otherwise() {
        for (words, profile) in
            [(&[] as &[&str], Some("limited")), (&["--admin"], None), (&["--voice-node"], Some("voice-node"))]
        {
            assert_eq!(args(words).profile(), profile, "{words:?}");
        }
    }

    /// Every address of the kinds gateways have fits 24 rows; a pin does not, and then the text stands alone.
    #[test]
    fn a_small_terminal() {
        let style = Style::plain_unicode();
        let page = |urls: &[&str], pin, terminal| offer(urls, pin).page(style, &args(&[]), Some(terminal));
        for url in
            ["ws://192.168.177.110:18789", "wss://machine-name.tail12345.ts.net", "wss://gateway.example.com:8443/oc"]
        {
            let page = page(&[url], false, USUAL);
            let (before, picture) = page.split_once("Scan this").expect("a title");
            assert!(before.contains("oc-pair://") && before.contains(url), "{page}");
            let picture: Vec<&str> = picture.lines().skip(1).collect();
            assert!(picture.len() <= 23 && picture.iter().all(|line| line.chars().count() <= 80), "{page}");
        }
        let pinned = page(&["wss://192.168.1.2:18789"], true, USUAL);
        assert!(
            pinned.contains("this terminal has 24") && !pinned.contains('█') && pinned.contains("oc-pair://"),
            "{pinned}"
        );
        let high = page(&["wss://192.168.1.2:18789"], true, Room { columns: 100, rows: 60 });
        assert!(high.starts_with("Scan this") && high.contains('█') && high.trim_end().ends_with("once"), "{high}");
    }

    #[test]
    fn what_does_not_answer_stays_out() {
        let tried = |url: &str, problem: Option<&str>| Tried { url: url.into(), problem: problem.map(str::to_owned) };
        let mut offer = offer(&["ws://a", "ws://b"], false);
        offer.tried = vec![tried("ws://a", Some("connection refused")), tried("ws://b", None)];
        assert!(offer.keep_what_answers());
        assert_eq!(offer.code.urls, ["ws://b"]);
        assert_eq!(SetupCode::parse(&offer.text()).expect("a code").urls, ["ws://b"]);
        assert!(offer.warnings(Style::plain(), &args(&[]))[0].contains("ws://a is left out: connection refused"));
        offer.tried[1].problem = Some("no route".into());
        assert!(!offer.keep_what_answers());
    }

    #[test]
    fn rows_of_a_line() {
        for (line, expected) in [("", 1), ("\x1b[36mabcd\x1b[0m", 1), ("abcde", 2), ("abcdefgh", 2)] {
            assert_eq!(rows(line, 4), expected, "{line:?}");
        }
    }
}
