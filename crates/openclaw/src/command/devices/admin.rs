//! One call that only administrators may make, for the commands that hand out codes.

use openclaw_config::identity;
use openclaw_remote::{
    Error as RemoteError,
    connect::{DeviceUse, Persona},
};
use serde_json::Value;

use super::reach;
use crate::{
    args::TargetArgs,
    context::Context,
    failure::Failure,
    reach::{Reach, block_on},
};

/// Calls `method` with `operator.admin`. Where this machine has a device key it is used as far as it is needed; none is made,
/// and no request to pair is left behind by somebody who is not the gateway's owner.
pub fn ask(
    context: &Context,
    at: &TargetArgs,
    method: &str,
    params: Value,
    explain: fn(&Reach<'_>, &RemoteError) -> Failure,
) -> Result<Value, Failure> {
    let reach = reach(context, at)?;
    let device = match identity::load(&context.paths) {
        Ok(None) => DeviceUse::IfKnown,
        Ok(Some(_)) | Err(_) => DeviceUse::WhenNeeded,
    };
    block_on(async {
        let client = reach.open(Persona::Cli, &["operator.admin"], device).await;
        let client = client.map_err(|error| reach.failure(&error))?;
        let answer = client.call(method, Some(params), reach.timeout()).await;
        let answer = answer.map_err(|error| explain(&reach, &error))?;
        client.close().await;
        Ok(answer)
    })
}
