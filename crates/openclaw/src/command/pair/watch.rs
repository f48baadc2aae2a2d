//! The line below the picture: how far the phone has got, asked of the gateway twice a second until it is paired, the code
//! is over, or the person gives up, which takes the code back.

use std::{io::IsTerminal as _, io::Write as _, net::IpAddr, time::Duration};

use openclaw_protocol::method::invite::{Arrival, ArrivalStage, SetupOutcome, SetupProgress};
use openclaw_remote::{Client, Error as RemoteError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Offer;
use crate::{
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Style, Tone, inert, time},
    reach::Reach,
};

const EVERY: Duration = Duration::from_millis(500);
/// After so long without anybody it is told where the phone has to be.
const LONELY: Duration = Duration::from_secs(5);

/// Waits.
///
/// # Errors
/// The code is over, was taken back, or the gateway went away.
pub async fn until_paired(context: &Context, reach: &Reach<'_>, client: &Client, offer: &Offer) -> Outcome {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(format!("The system gives no signals: {error}.")));
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let mut line = Line::new(context.output.err);
    let style = context.output.err;
    let started = std::time::Instant::now();
    let mut since = None;
    loop {
        let progress = match ask(client, reach, &offer.made.setup_id).await {
            Ok(progress) => progress,
            Err(error) => {
                line.wipe();
                return Err(reach.failure(&error).detail("The code stays good until its end."));
            }
        };
        // What was there before the code was shown, our own trial among it, is not the phone.
        let since = *since.get_or_insert(progress.now_ms);
        if let Some(outcome) = &progress.completion {
            line.wipe();
            output::note(done(style, outcome));
            return Ok(0);
        }
        if progress.expires_at_ms.is_none() && progress.delivery_uncertain.is_none() {
            line.wipe();
            return Err(over(offer));
        }
        line.say(&told(style, &progress, since, offer, started.elapsed()));
        let signal = tokio::select! {
            () = tokio::time::sleep(EVERY) => continue,
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        line.wipe();
        let text = match take_back(client, reach, &offer.made.setup_id).await {
            true => "The code was taken back; nobody can use it any more.",
            false => "The code could not be taken back; it ends by itself.",
        };
        output::note(text);
        // As shells count: 128 and the number of the signal.
        return Ok(u8::try_from(signal.as_raw_value()).map_or(130, |number| number.saturating_add(128)));
    }
}

/// Takes the code back. False where the gateway cannot, or says it was used.
pub async fn take_back(client: &Client, reach: &Reach<'_>, setup_id: &str) -> bool {
    let params = json!({"setupId": setup_id});
    let answer = client.call("device.pair.setupRevoke", Some(params), reach.timeout()).await;
    answer.is_ok_and(|answer| answer["revoked"] == true)
}

/// The official release tells only the end.
async fn ask(client: &Client, reach: &Reach<'_>, setup_id: &str) -> Result<SetupProgress, RemoteError> {
    let params = json!({"setupId": setup_id});
    let unreadable = |error: serde_json::Error| RemoteError::NotAGateway { reason: error.to_string() };
    match client.call("device.pair.setupProgress", Some(params.clone()), reach.timeout()).await {
        Ok(answer) => serde_json::from_value(answer).map_err(unreadable),
        Err(error) if error.to_string().contains("unknown method") => {
            let answer = client.call("device.pair.setupStatus", Some(params), reach.timeout()).await?;
            let mut progress: SetupProgress = serde_json::from_value(with_now(answer)).map_err(unreadable)?;
            progress.expires_at_ms = Some(i64::MAX);
            Ok(progress)
        }
        Err(error) => Err(error),
    }
}

fn with_now(mut answer: serde_json::Value) -> serde_json::Value {
    answer["nowMs"] = json!(time::now_ms());
    answer
}

fn over(offer: &Offer) -> Failure {
    let expired = offer.made.expires_at_ms <= time::now_ms();
    let what =
        if expired { "The code has expired; nobody used it." } else { "The code was taken back; nobody used it." };
    Failure::new(what).error_code("code_over").remedy("make a new one", "openclaw pair")
}

fn done(style: Style, outcome: &SetupOutcome) -> String {
    let id = outcome.device_id.get(..8).unwrap_or(&outcome.device_id);
    let name = outcome.device_name.as_deref().map(|name| format!("{} ({})", inert(name), inert(id)));
    let access = match outcome.access {
        openclaw_protocol::method::invite::SetupAccess::Full => "full access",
        openclaw_protocol::method::invite::SetupAccess::Limited => "limited access",
        openclaw_protocol::method::invite::SetupAccess::Node => "as a node",
    };
    format!(
        "{} {} is paired, {access}.\n  Undo it: {}",
        style.ok(),
        name.unwrap_or_else(|| inert(id).into_owned()),
        style.paint(Tone::Command, &format!("openclaw devices remove {}", inert(id)))
    )
}

/// The line. The newest arrival counts; without one it is told what is waited for.
fn told(style: Style, progress: &SetupProgress, since: i64, offer: &Offer, waited: Duration) -> String {
    let newest = progress.arrivals.iter().rev().find(|arrival| arrival.at_ms > since);
    let end = progress.expires_at_ms.unwrap_or(i64::MAX).min(offer.made.expires_at_ms);
    let left = u64::try_from(end.saturating_sub(progress.now_ms)).unwrap_or_default() / 1000;
    let left = format!("{}:{:02} left", left / 60, left % 60);
    let dot = style.dot();
    match newest {
        Some(arrival) => format!("{}{dot}{left}", arrived(arrival)),
        None if progress.delivery_uncertain.is_some() => {
            "The code was used; waiting for the phone to confirm".to_owned()
        }
        None if waited >= LONELY => {
            let urls = offer.code.urls.first().map(|url| inert(url).into_owned()).unwrap_or_default();
            format!("Nobody reached {urls} yet: same network?{dot}{left}{dot}Ctrl-C ends it")
        }
        None => format!("Waiting for the phone{dot}{left}{dot}Ctrl-C takes the code back"),
    }
}

fn arrived(arrival: &Arrival) -> String {
    let address = inert(&arrival.address);
    let by = arrival.address.parse::<IpAddr>().ok().map_or("", network);
    let tls = if arrival.tls { ", TLS ok" } else { "" };
    match arrival.stage {
        ArrivalStage::Reached => format!("{address} reached the gateway{by}"),
        ArrivalStage::TlsRefused => format!("{address} reached the gateway{by}, but TLS failed"),
        ArrivalStage::Secured => format!("{address} reached the gateway{by}, TLS ok"),
        ArrivalStage::Greeted => format!("{address} reached the gateway{by}{tls}, says hello"),
        ArrivalStage::CodeRefused => format!("{address} brought a code that is not good"),
        ArrivalStage::Waiting => match (&arrival.words, &arrival.request_id) {
            // Three words are enough to approve by, and the phone's owner can compare them.
            (Some(words), _) => format!("{address} waits: openclaw devices approve {}", inert(words)),
            (None, Some(id)) => format!("{address} waits: openclaw devices approve {}", inert(id)),
            (None, None) => format!("{address} waits for approval: openclaw devices list"),
        },
        ArrivalStage::Paired => format!("{address} is being paired{tls}"),
    }
}

/// The tailnet's addresses are those of carrier-grade NAT, RFC 6598, and fd7a:115c:a1e0::/48.
fn network(address: IpAddr) -> &'static str {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_loopback() => " on this machine",
        IpAddr::V4(v4) if v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]) => " by tailnet",
        IpAddr::V4(v4) if v4.is_private() => " by the local network",
        IpAddr::V6(v6) if v6.is_loopback() => " on this machine",
        IpAddr::V6(v6) if v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0] => " by tailnet",
        _ => "",
    }
}

/// One line that is written over; where stderr is no terminal, one line for each change.
struct Line {
    columns: Option<usize>,
    style: Style,
    last: String,
}

impl Line {
    fn new(style: Style) -> Self {
        let columns = std::io::stderr().is_terminal().then(|| super::room().columns);
        Self { columns, style, last: String::new() }
    }

    fn say(&mut self, text: &str) {
        match self.columns {
            Some(columns) => {
                // A line that wraps would push the picture up.
                let text: String = text.chars().take(columns.saturating_sub(1)).collect();
                let line = format!("\r\x1b[K{}", self.style.paint(Tone::Plain, &text));
                let mut err = std::io::stderr().lock();
                let _ = err.write_all(line.as_bytes()).and_then(|()| err.flush());
            }
            None => {
                // Without the clock, which changes all the time.
                let fact = text.split(self.style.dot()).next().unwrap_or_default().to_owned();
                if fact != self.last {
                    output::note(&fact);
                    self.last = fact;
                }
            }
        }
    }

    fn wipe(&self) {
        if self.columns.is_some() {
            let mut err = std::io::stderr().lock();
            let _ = err.write_all(b"\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_got() {
        let at = |address: &str, stage, tls| Arrival {
            address: address.into(),
            stage,
            tls,
            at_ms: 1,
            request_id: Some("0efbce60".into()),
            words: (stage == ArrivalStage::Waiting).then(|| "decimal-smith-page".into()),
        };
        for (arrival, expected) in [
            (at("100.101.1.2", ArrivalStage::Secured, true), "100.101.1.2 reached the gateway by tailnet, TLS ok"),
            (at("192.168.1.7", ArrivalStage::Reached, false), "192.168.1.7 reached the gateway by the local network"),
            (
                at("192.168.1.7", ArrivalStage::TlsRefused, false),
                "192.168.1.7 reached the gateway by the local network, but TLS failed",
            ),
            (at("203.0.113.9", ArrivalStage::Greeted, true), "203.0.113.9 reached the gateway, TLS ok, says hello"),
            (
                at("192.168.1.7", ArrivalStage::Waiting, false),
                "192.168.1.7 waits: openclaw devices approve decimal-smith-page",
            ),
            (at("192.168.1.7", ArrivalStage::CodeRefused, true), "192.168.1.7 brought a code that is not good"),
        ] {
            assert_eq!(arrived(&arrival), expected);
        }
    }
}
