//! `openclaw gateway call <method>`: one RPC, as plain as it gets.

use std::time::Duration;

use openclaw_remote::{
    Client, Error as RemoteError, GatewayPath, GatewayUrl, Link, Target,
    connect::{DeviceUse, Persona},
    ssh::{SshTarget, SshTargetError},
};
use serde_json::Value;

use crate::{
    args::GatewayCall,
    context::Context,
    failure::{Failure, Outcome},
    output::{self, Tone, inert},
    reach::{Reach, block_on, object},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The scope asked for first. Most methods need it or less; the gateway names what it wants otherwise.
const FIRST_SCOPE: &str = "operator.read";

pub fn run(context: &Context, args: &GatewayCall) -> Outcome {
    let params = object(&args.params)?;
    let reach = context.reach(&args.at, DEFAULT_TIMEOUT)?;
    if let Some(expected) = &args.expect_url
        && !is_target(&reach.target, expected)?
    {
        return Err(Failure::new("The gateway target is not the expected one; nothing was sent.")
            .fact("Expected", inert(expected).into_owned())
            .fact("Gateway target", inert(&reach.target.shown()).into_owned())
            .fact("Source", reach.target.named_by()));
    }
    let answer = block_on(async {
        let _progress = context.output.progress(format!("Calling {} …", inert(&args.method)));
        call(&reach, args, &params).await.map_err(|error| failure(&reach, &error))
    })?;
    if args.at.target.json {
        output::json(&answer);
    } else {
        output::line(context.output.out.paint(Tone::Title, &format!("Gateway call: {}", inert(&args.method))));
        output::json(&answer);
    }
    Ok(0)
}

/// Whether a path of the target has this URL.
fn is_target(target: &Target, expected: &str) -> Result<bool, Failure> {
    let bad = |error: String| Failure::new(format!("--expect-url: {error}."));
    if SshTarget::is_url(expected) {
        let expected: SshTarget = expected.parse().map_err(|error: SshTargetError| bad(error.to_string()))?;
        return Ok(target
            .route
            .paths
            .iter()
            .any(|path| matches!(path, GatewayPath::Ssh(spec) if spec.target == expected)));
    }
    let expected = GatewayUrl::parse(expected).map_err(|error| bad(error.to_string()))?;
    let direct = |path: &GatewayPath| matches!(path, GatewayPath::Direct(path) if path.url == expected);
    Ok(target.url == expected || target.route.paths.iter().any(direct))
}

async fn call(reach: &Reach<'_>, args: &GatewayCall, params: &Value) -> Result<Value, RemoteError> {
    let mut client = open(reach, FIRST_SCOPE).await?;
    let mut answer = send(reach, &client, args, params).await;
    // A refused call did nothing, so it may be sent again with the one scope the gateway asked for.
    if let Err(RemoteError::Scope { missing, .. }) = &answer
        && missing != FIRST_SCOPE
        && missing.starts_with("operator.")
    {
        let missing = missing.clone();
        client.close().await;
        client = open(reach, &missing).await?;
        answer = send(reach, &client, args, params).await;
    }
    let answer = answer?;
    client.close().await;
    Ok(answer)
}

async fn open(reach: &Reach<'_>, scope: &str) -> Result<Link, RemoteError> {
    reach.open_with(Persona::Cli, &[scope], DeviceUse::WhenNeeded, &|_| ()).await
}

async fn send(reach: &Reach<'_>, client: &Client, args: &GatewayCall, params: &Value) -> Result<Value, RemoteError> {
    let (method, params) = (args.method.as_str(), Some(params.clone()));
    if args.expect_final {
        client.call_final(method, params, reach.timeout()).await
    } else {
        client.call(method, params, reach.timeout()).await
    }
}

/// The reference's layout for a method that answered with an error.
fn failure(reach: &Reach<'_>, error: &RemoteError) -> Failure {
    match error {
        RemoteError::Refused(shape) => {
            let message = format!("Gateway call failed: {}", inert(&shape.message));
            Failure::remote(error, &reach.target.place).with_message(message)
        }
        other => reach.failure(other),
    }
}
