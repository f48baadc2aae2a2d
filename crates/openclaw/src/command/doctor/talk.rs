//! Whether there is somebody to talk with: the model, and the channels.

use std::time::Duration;

use openclaw_agent::provider::{ErrorKind, ModelRef, catalog::Catalog};
use openclaw_config::Mode;
use openclaw_protocol::method::channels::ChannelsReport;
use openclaw_remote::{
    Target,
    connect::{DeviceUse, Persona},
};
use serde_json::json;

use super::{Exam, Severity};
use crate::{
    args::PortTargetArgs,
    context::{Context, Loaded},
    output::{escape::inert_line, inert},
};

/// For one provider's list of models.
const MODEL_TIMEOUT: Duration = Duration::from_secs(8);
/// For the gateway's word about its channels, which asks each service.
const CHANNELS_TIMEOUT: Duration = Duration::from_secs(12);

/// The model of this machine's agents and its fallbacks: whether the config is whole, and whether the provider is there and
/// takes the key. Asks for lists of models only, which costs nothing.
pub async fn model(context: &Context, loaded: &Loaded, exam: &mut Exam) {
    if loaded.problem.is_some() || loaded.gateway.effective_mode() == Mode::Remote {
        return;
    }
    exam.ran("model");
    let (catalog, problems) = Catalog::read(&loaded.document, &context.env, &context.paths);
    let written = loaded.document.written();
    let choice = &written["agents"]["defaults"]["model"];
    let primary = choice.as_str().or(choice["primary"].as_str());
    if primary.is_none() && catalog.default_model().is_none() {
        exam.find("model", Severity::Info, "No model is configured: chats are answered with how to add one.")
            .at("agents.defaults.model")
            .fix("openclaw models add anthropic");
        return;
    }
    for problem in &problems {
        let provider =
            problem.path.strip_prefix("models.providers.").map(|rest| rest.split('.').next().unwrap_or(rest));
        let text = inert_line(&problem.to_string()).into_owned();
        let finding = exam.find("model", Severity::Warning, text);
        finding.at(problem.path.clone());
        match provider {
            Some(provider) => finding.fix(format!("openclaw models auth paste-api-key --provider {}", inert(provider))),
            None => finding.fix("openclaw models status"),
        };
    }
    let fallbacks = choice["fallbacks"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
    let wanted: Vec<ModelRef> = primary.into_iter().chain(fallbacks).filter_map(|name| catalog.resolve(name)).collect();
    let mut asked: Vec<String> = Vec::new();
    for model in wanted {
        // What the config lacks has been told.
        if asked.contains(&model.provider) || catalog.availability(&model).is_err() {
            continue;
        }
        asked.push(model.provider.clone());
        let Some(candidate) = catalog.exactly(&model).ok().and_then(|all| all.into_iter().next()) else { continue };
        let error = match tokio::time::timeout(MODEL_TIMEOUT, candidate.provider.listing()).await {
            Ok(Ok(models)) => {
                // Lists are not always whole; only a local server's is taken at its word.
                let local = catalog.provider(&model.provider).is_some_and(|provider| provider.local);
                let same = |id: &String| *id == model.model || id.split(':').next() == Some(&model.model);
                if local && !models.is_empty() && !models.iter().any(same) {
                    let have = models.iter().take(5).map(|id| inert(id).into_owned()).collect::<Vec<_>>().join(", ");
                    let text =
                        format!("{} has no model {}; it has {have}.", inert(&model.provider), inert(&model.model));
                    exam.find("model", Severity::Warning, text).fix(format!(
                        "openclaw models set {}/{}",
                        inert(&model.provider),
                        inert(&models[0])
                    ));
                }
                continue;
            }
            Ok(Err(error)) if error.kind == ErrorKind::Invalid || error.kind == ErrorKind::RateLimit => continue,
            Ok(Err(error)) => error.message,
            Err(_) => format!("{} has not answered within {} s.", model.provider, MODEL_TIMEOUT.as_secs()),
        };
        exam.find("model", Severity::Warning, inert_line(&error).into_owned())
            .at(format!("models.providers.{}", model.provider))
            .fix(format!("openclaw models status --probe-provider {}", inert(&model.provider)));
    }
}

/// What the running gateway says of its channels. Without one there is nothing to ask.
pub async fn channels(context: &Context, target: &Target, exam: &mut Exam) {
    let Ok(reach) = context.reach_for_diagnosis(&PortTargetArgs::default(), CHANNELS_TIMEOUT) else { return };
    if !target.is_local() {
        return;
    }
    let opened = reach.open_with(Persona::Backend("doctor"), &["operator.read"], DeviceUse::IfKnown, &|_| ()).await;
    let Ok(link) = opened else { return };
    let params = json!({"probe": true, "timeoutMs": 8_000});
    let answer = link.call("channels.status", Some(params), CHANNELS_TIMEOUT).await;
    link.close().await;
    let Some(report) = answer.ok().and_then(|answer| serde_json::from_value::<ChannelsReport>(answer).ok()) else {
        return;
    };
    exam.ran("channels");
    for issue in &report.status_issues {
        let place = format!("{}/{}", issue.channel, issue.account_id);
        let text = format!("{}: {}", inert(&place), inert_line(&issue.message));
        let fix = issue.fix.clone().unwrap_or_else(|| "openclaw channels status --probe".to_owned());
        exam.find("channels", Severity::Warning, text)
            .at(format!("channels.{}", issue.channel))
            .fix(inert_line(&fix).into_owned());
    }
    for (channel, accounts) in &report.channel_accounts {
        for account in accounts {
            let told = report
                .status_issues
                .iter()
                .any(|issue| issue.channel == *channel && issue.account_id == account.account_id);
            let refused = account.probe.as_ref().filter(|probe| !probe.ok);
            if told || !account.enabled || (account.health_state != "failed" && refused.is_none()) {
                continue;
            }
            let why = refused.and_then(|probe| probe.error.clone()).or_else(|| account.last_error.clone());
            let why = why.unwrap_or_else(|| "it does not work".to_owned());
            let place = format!("{channel}/{}", account.account_id);
            exam.find("channels", Severity::Warning, format!("{}: {}", inert(&place), inert_line(&why)))
                .at(format!("channels.{channel}"))
                .fix(format!("openclaw channels login {}", inert(channel)));
        }
    }
}
