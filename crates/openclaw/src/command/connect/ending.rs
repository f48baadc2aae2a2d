//! The last words: how to go on and how to take it all back, or what broke, what was undone, and what is left.

use std::time::Duration;

use openclaw_config::connections::ConnectionName;
use openclaw_protocol::DeviceId;
use serde_json::json;

use super::{
    step::{Step, Trace},
    steps::{Broken, Why},
};
use crate::{
    failure::Failure,
    output::{self, Tone, inert, time},
};

/// The last lines: what to type next, and how to take it all back.
pub fn summary(style: output::Style, name: &ConnectionName, took: Duration, current: bool) {
    let command = |text: &str| style.paint(Tone::Command, text);
    let how = if current { "openclaw status".to_owned() } else { format!("openclaw --on {name} status") };
    output::print(&format!(
        "{} Connected to \"{name}\" in {}.\n  Try it:  {}\n  Undo it: {}\n",
        style.ok(),
        time::span(took),
        command(&how),
        command(&format!("openclaw connections rm {name}")),
    ));
}

/// What to say when it broke: the step, its cause and cure, what was undone, and what could not be.
pub fn failure(broken: Broken<Step, Trace, Failure>, removal: impl Fn(&DeviceId) -> String) -> Failure {
    let mut failure = match broken.why {
        Why::Failed(failure) => {
            let message = format!("{}: {}", broken.step.as_str(), failure.message());
            failure.with_message(message)
        }
        Why::Interrupted(signal) => {
            // As shells count: 128 and the number of the signal.
            let exit = u8::try_from(signal).map_or(130, |signal| signal.saturating_add(128));
            Failure::new(format!("{}: interrupted.", broken.step.as_str())).exit(exit).error_code("interrupted")
        }
    };
    let names = |traces: &[&Trace]| {
        let mut all: Vec<String> = traces.iter().map(|trace| trace.describe()).collect();
        all.dedup();
        all.join(", ")
    };
    let undone: Vec<&Trace> = broken.undone.iter().collect();
    failure = match (undone.is_empty(), broken.left.is_empty()) {
        (true, true) => failure.detail("Nothing was changed, here or there."),
        (false, true) => failure.detail(format!("Undone: {}. Nothing is left of it.", names(&undone))),
        (false, false) => failure.detail(format!("Undone: {}.", names(&undone))),
        (true, false) => failure,
    };
    for (trace, reason) in &broken.left {
        failure = failure.detail(format!("Left behind: {} ({}).", trace.describe(), inert(reason)));
        failure = match trace {
            Trace::Pairing(device) if broken.step == Step::Reach || removal(device).starts_with("openclaw ") => {
                failure.there("remove it", removal(device))
            }
            Trace::Pairing(device) => failure.remedy("remove it", removal(device)),
            Trace::Tunnel(name) => failure.remedy("close it", format!("openclaw tunnel down {name}")),
            Trace::Connection { name, .. } => failure.remedy("forget it", format!("openclaw connections rm {name}")),
            Trace::Current { .. } | Trace::Identity(_) | Trace::Token { .. } => {
                failure.remedy("see what is there", "openclaw doctor")
            }
        };
    }
    let left: Vec<_> =
        broken.left.iter().map(|(trace, reason)| json!({"what": trace.as_str(), "reason": reason})).collect();
    failure
        .beside("step", json!(broken.step.as_str()))
        .beside("undone", undone.iter().map(|trace| json!(trace.as_str())).collect())
        .beside("left", json!(left))
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::DeviceKey;

    use super::*;

    #[test]
    fn what_broke_is_told_with_what_is_left() {
        let device = DeviceKey::from_seed(&[7; 32]).id();
        let name: ConnectionName = "box".parse().expect("name");
        let told = |why, undone, left, ssh: bool| {
            let broken = Broken { step: Step::Save, why, undone, left };
            let command = if ssh { "ssh me@box openclaw devices remove" } else { "openclaw devices remove" };
            let failure = failure(broken, |device| format!("{command} {}", device.short()));
            (failure.exit_code(), failure.lines(output::Style::plain()).join("\n"), failure.envelope())
        };
        let disk = || Why::Failed(Failure::new("The disk is full.").exit(1));
        let (exit, text, envelope) = told(disk(), Vec::new(), Vec::new(), true);
        assert_eq!((exit, text.as_str()), (1, "x save: The disk is full.\nNothing was changed, here or there."));
        assert_eq!(
            (&envelope["step"], &envelope["undone"], &envelope["left"]),
            (&json!("save"), &json!([]), &json!([]))
        );

        let undone = vec![Trace::Connection { name, before: None }, Trace::Identity(device.clone())];
        let left = || vec![(Trace::Pairing(device.clone()), "the link is gone".to_owned())];
        let (exit, text, envelope) = told(Why::Interrupted(2), undone, left(), true);
        assert_eq!(exit, 130);
        for line in [
            "x save: interrupted.",
            "Undone: the saved connection \"box\", this machine's device key.",
            "Left behind: the pairing at the gateway (the link is gone).",
            &format!("Remove it on this machine: ssh me@box openclaw devices remove {}", device.short()),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(
            (&envelope["undone"], &envelope["left"][0]["what"]),
            (&json!(["connection", "identity"]), &json!("pairing"))
        );
        // Without ssh only the owner can do it.
        let (exit, text, _) = told(Why::Interrupted(15), Vec::new(), left(), false);
        assert_eq!(exit, 143);
        assert!(text.contains("Remove it on the gateway host: openclaw devices remove"), "{text}");
    }
}
