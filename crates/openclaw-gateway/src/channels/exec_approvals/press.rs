//! A pressed button: who may decide, and what whoever pressed it is told.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use openclaw_channels::channel::{Press, PressAnswer};
use openclaw_protocol::method::exec::Decision;
use openclaw_remote::Error;
use serde_json::json;

use super::{
    CALL, finish, look_up,
    prompt::{self, Outcome},
    rules::{self, Setting},
};
use crate::{channels::inbox::Presses, gateway::Gateway};

/// Answers the buttons of questions.
pub struct Buttons;

impl Presses for Buttons {
    fn press<'a>(&'a self, gateway: &'a Arc<Gateway>, press: &'a Press) -> BoxFuture<'a, Option<PressAnswer>> {
        Box::pin(async move {
            let (token, decision) = prompt::parse(&press.data)?;
            Some(decide(gateway, press, token, decision).await)
        })
    }
}

fn toast(text: &str) -> PressAnswer {
    PressAnswer { toast: Some(text.to_owned()), replace: None }
}

async fn decide(gateway: &Arc<Gateway>, press: &Press, token: &str, decision: Decision) -> PressAnswer {
    let from = &press.from;
    // The config in force decides, not the one the question was put under.
    let setting = rules::read(&gateway.runtime.load().config, &from.channel, &from.account);
    let allowed = matches!(&setting, Setting::On(rules) if rules.is_approver(&press.sender.id)) && !press.sender.is_bot;
    if !allowed {
        tracing::warn!(
            channel = from.channel,
            account = from.account,
            sender = press.sender.id,
            "somebody who is no approver pressed a button of an exec approval; nothing happened"
        );
        return toast("You are not one of the approvers, so nothing happened.");
    }
    let (id, command, session) = {
        let inner = gateway.exec_monitor.lock();
        let id = inner.tokens.get(token).cloned();
        let command = id.as_ref().and_then(|id| Some(inner.questions.get(id)?.approval.request.command.clone()));
        (id, command, inner.session.clone())
    };
    let Some(id) = id else {
        let gone = prompt::answered(None, &Outcome::Restarted);
        return PressAnswer { toast: Some("That question is no longer open.".to_owned()), replace: Some(gone) };
    };
    let Some(session) = session else {
        return toast("There is no connection to the gateway just now. Press it again in a moment.");
    };
    let by = format!("{}:{}", from.channel, press.sender.id);
    let reviewer = json!({"channel": from.channel, "accountId": from.account, "senderId": press.sender.id});
    let params = json!({"id": id, "decision": decision.as_str(), "reviewer": reviewer});
    let shown = |outcome: &Outcome| Some(prompt::answered(command.as_deref(), outcome));
    match session.call("exec.approval.resolve", Some(params), CALL).await {
        Ok(_) => {
            let outcome = Outcome::Decided { decision, by: Some(by) };
            tracing::info!(approval = id, %decision, by = press.sender.id, channel = from.channel, "decided in a chat");
            finish(gateway, &id, outcome.clone());
            PressAnswer { toast: None, replace: shown(&outcome) }
        }
        // It had ended before, or the decision is not offered.
        Err(error) if error.shape().is_some() => match look_up(&session, &id).await {
            Some(outcome) => {
                finish(gateway, &id, outcome.clone());
                PressAnswer { toast: Some("It was over before.".to_owned()), replace: shown(&outcome) }
            }
            None => toast(&format!("The gateway refused it: {error}")),
        },
        Err(Error::OutcomeUnknown { .. } | Error::Timeout { .. }) => {
            toast("It is not known whether that arrived. The message will say what was decided.")
        }
        Err(_) => toast("The gateway could not be reached, so nothing was decided. Press it again in a moment."),
    }
}
