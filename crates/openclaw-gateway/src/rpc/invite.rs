//! Inviting devices. What a token grants and where it leads is settled here; how it is redeemed in [`crate::pairing`].

use openclaw_config::document::Document;
use openclaw_protocol::{
    ErrorShape, GatewayId, Role, Scope, ScopeSet, SetupCode,
    error::{Machine, Remediation},
    method::{
        Method,
        device::MAX_LABEL_CHARS,
        invite::{
            DEFAULT_TTL_MS, DevicePairInvite, DevicePairSetupCode, DevicePairSetupProgress, DevicePairSetupRevoke,
            DevicePairSetupStatus, GatewayAddress, InviteParams, Invited, InvitingGateway, MAX_TTL_MS, MIN_TTL_MS,
            SetupCodeMade, SetupCodeParams, SetupRevoked, default_scopes,
        },
    },
};
use serde_json::json;

use super::{
    qr_png,
    registry::{Call, Registry},
};
use crate::{
    auth::decide::Mode,
    gateway::{Gateway, fresh_token},
    http::join::{self, is_loopback},
    pairing::{Rights, registry::short_token},
    reachable,
    setup::Offer,
};

/// The reference's words (capture `rpc-sweep`); here `gateway.publicOrigin` does what its plugin's key does there.
const LOOPBACK_ONLY: &str = "Gateway is only bound to loopback. Set gateway.bind=lan, enable tailscale serve, or configure \
                             plugins.entries.device-pair.config.publicUrl.";

pub fn register(registry: &mut Registry) {
    registry
        .on_async::<DevicePairInvite, _>(|call, params| async move { invite(&call, params).await })
        .on_async::<DevicePairSetupCode, _>(|call, params| async move { setup_code(&call, params).await })
        .on::<DevicePairSetupStatus>(|call, params| Ok(call.gateway.outcomes.status(&params.setup_id)))
        .on::<DevicePairSetupProgress>(|call, params| Ok(call.gateway.setup_progress(&params.setup_id)))
        .on_async::<DevicePairSetupRevoke, _>(|call, params| async move { revoke(&call, params.setup_id).await });
}

async fn invite(call: &Call, params: InviteParams) -> Result<Invited, ErrorShape> {
    let gateway = &call.gateway;
    let (role, rights) = rights(&params)?;
    let ttl_ms = params.ttl_ms.unwrap_or(DEFAULT_TTL_MS);
    if !(MIN_TTL_MS..=MAX_TTL_MS).contains(&ttl_ms) {
        return Err(invalid::<DevicePairInvite>("/ttlMs", &format!("must be between {MIN_TTL_MS} and {MAX_TTL_MS}")));
    }
    let label = params.label.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
    if label.as_ref().is_some_and(|text| text.chars().count() > MAX_LABEL_CHARS || text.chars().any(char::is_control)) {
        let problem = format!("must NOT have more than {MAX_LABEL_CHARS} characters, nor control characters");
        return Err(invalid::<DevicePairInvite>("/label", &problem));
    }
    let addresses = addresses(gateway);
    if params.needs_address && addresses.is_empty() {
        return Err(nowhere(gateway));
    }
    gateway.write_limit.charge::<DevicePairInvite>(call)?;
    let ttl_ms = i64::try_from(ttl_ms).unwrap_or(i64::MAX);
    let token = fresh_token()?;
    let offer = Offer { token: token.clone(), rights, label, ttl_ms, join: None };
    let (setup_id, expires_at_ms) = gateway.invite(&call.caller, offer).await?;
    let scopes = rights.of(role).unwrap_or_default();
    Ok(Invited {
        setup_id,
        token,
        expires_at_ms,
        role: role.to_string(),
        scopes: scopes.names().into_iter().map(str::to_owned).collect(),
        gateway: InvitingGateway {
            id: GatewayId::of(gateway.identity.id()),
            version: gateway.version.to_owned(),
            port: gateway.port(),
            tls: gateway.tls.is_some(),
            tls_fingerprint: gateway.tls.as_ref().map(|tls| tls.certificate().key_fingerprint.to_string()),
            addresses,
        },
    })
}

fn rights(params: &InviteParams) -> Result<(Role, Rights), ErrorShape> {
    let role = match params.role.as_deref() {
        None => Role::Operator,
        Some(text) => Role::parse(text)
            .ok_or_else(|| invalid::<DevicePairInvite>("/role", "must be equal to one of the allowed values"))?,
    };
    let listed = params.scopes.as_deref();
    match (role, listed) {
        (Role::Node, None | Some([])) => Ok((role, Rights { node: true, operator: None })),
        (Role::Node, Some(_)) => Err(invalid::<DevicePairInvite>("/scopes", "must be empty: a node has no scopes")),
        (Role::Operator, None) => {
            Ok((role, Rights { node: false, operator: Some(default_scopes().into_iter().collect()) }))
        }
        (Role::Operator, Some(names)) => {
            if names.iter().any(|name| Scope::parse(name).is_none()) {
                return Err(invalid::<DevicePairInvite>("/scopes", "must hold known scopes only"));
            }
            Ok((role, Rights { node: false, operator: Some(ScopeSet::parse(names)) }))
        }
    }
}

/// Which rights a setup code asks for, by the reference's names.
fn profile(params: &SetupCodeParams) -> Result<Profile, ErrorShape> {
    match (params.bootstrap_profile.as_deref(), params.join_url) {
        (None | Some("node"), true) | (Some("node"), false) => Ok(Profile::Node),
        (Some(_), true) => Err(ErrorShape::invalid("Join URLs require bootstrapProfile=node.")),
        (None, false) => Ok(Profile::Full),
        (Some("limited"), false) => Ok(Profile::Limited),
        (Some("voice-node"), false) => Ok(Profile::VoiceNode),
        (Some(_), false) => {
            let problem = "must be equal to one of the allowed values";
            Err(invalid::<DevicePairSetupCode>("/bootstrapProfile", problem))
        }
    }
}

async fn setup_code(call: &Call, params: SetupCodeParams) -> Result<SetupCodeMade, ErrorShape> {
    let gateway = &call.gateway;
    let wanted = profile(&params)?;
    let auth = match gateway.runtime.load().policy.mode {
        Mode::None => return Err(ErrorShape::invalid("Gateway auth is not configured (no token or password).")),
        Mode::Token(_) => "token",
        Mode::Password(_) => "password",
    };
    let (urls, url_source, own_certificate) = urls(gateway, &params).await?;
    // Whoever can read along could be faster than the phone, so a code in the clear is not worth everything.
    let plain = urls.iter().any(|url| url.starts_with("ws://") && !is_loopback(url));
    let given = if plain && wanted == Profile::Full { Profile::Limited } else { wanted };
    let unavailable = |error| ErrorShape::unavailable(format!("no randomness from the system: {error}"));
    let short = short_token().map_err(unavailable)?;
    let join_url = match params.join_url {
        true => Some(join::url(&urls, &short).ok_or_else(join_needs_tls)?),
        false => None,
    };
    gateway.write_limit.charge::<DevicePairSetupCode>(call)?;
    let rights = phone_rights(given);
    let token = if join_url.is_some() { join::token_of(short.expose()) } else { short };
    let mut code = SetupCode {
        urls: urls.clone(),
        bootstrap_token: token.clone(),
        expires_at_ms: None,
        // The reference's apps know pins of certificates only.
        tls_fingerprint: gateway
            .tls
            .as_ref()
            .filter(|_| own_certificate)
            .map(|tls| tls.certificate().fingerprint.to_string()),
        gateway_id: Some(GatewayId::of(gateway.identity.id())),
        role: None,
    };
    let offer = Offer {
        token,
        rights,
        label: None,
        ttl_ms: i64::try_from(DEFAULT_TTL_MS).unwrap_or(i64::MAX),
        join: join_url.as_ref().map(|_| join_answer(&code)),
    };
    let (setup_id, expires_at_ms) = gateway.invite(&call.caller, offer).await?;
    code.expires_at_ms = Some(expires_at_ms);
    let setup_code = code.encode();
    Ok(SetupCodeMade {
        setup_id,
        qr_data_url: (params.include_qr != Some(false)).then(|| qr_png::data_url(&setup_code)).flatten(),
        setup_code,
        join_url,
        gateway_url: urls.first().cloned().unwrap_or_default(),
        gateway_urls: (urls.len() > 1).then_some(urls),
        auth: auth.to_owned(),
        url_source,
        access: rights.access(),
        access_downgraded: (given != wanted).then_some(true),
        expires_at_ms,
    })
}

/// What a join URL answers, without the token and its end.
fn join_answer(code: &SetupCode) -> String {
    let mut answer = json!({"url": code.urls.first()});
    if code.urls.len() > 1 {
        answer["urls"] = json!(code.urls);
    }
    if let Some(pin) = &code.tls_fingerprint {
        answer["tlsFingerprint"] = json!(pin);
    }
    answer["gatewayId"] = json!(code.gateway_id);
    answer["role"] = json!(Role::Node);
    answer.to_string()
}

async fn revoke(call: &Call, setup_id: String) -> Result<SetupRevoked, ErrorShape> {
    call.gateway.write_limit.charge::<DevicePairSetupRevoke>(call)?;
    let revoked = call.gateway.revoke_setup(setup_id.clone()).await?;
    Ok(SetupRevoked { setup_id, revoked })
}

/// The URLs of a setup code, where they come from, and whether they show the gateway's own certificate.
async fn urls(gateway: &Gateway, params: &SetupCodeParams) -> Result<(Vec<String>, String, bool), ErrorShape> {
    let named = match &params.public_url {
        Some(url) => Some((url.clone(), "publicUrl")),
        None if params.prefer_remote_url => remote_url(gateway).await.map(|url| (url, "gateway.remote.url")),
        None => None,
    };
    if let Some((url, source)) = named {
        let problem =
            || ErrorShape::invalid(format!("{source} is not a usable ws://, wss://, http:// or https:// URL"));
        let url = reachable::socket_url(&url).ok_or_else(problem)?;
        if url.starts_with("ws://") && !reachable::may_be_plain(&url) {
            return Err(needs_tls());
        }
        return Ok((vec![url], source.to_owned(), false));
    }
    let found = addresses(gateway);
    if found.is_empty() {
        return Err(nowhere(gateway));
    }
    let usable = |address: &&GatewayAddress| address.url.starts_with("wss://") || reachable::may_be_plain(&address.url);
    let own: Vec<&GatewayAddress> = found.iter().filter(usable).collect();
    let Some(first) = own.first() else { return Err(needs_tls()) };
    let own_certificate = first.tls_fingerprint.is_some();
    // One code has one pin: addresses behind somebody else's certificate would not fit it.
    let urls = own.iter().filter(|address| address.tls_fingerprint.is_some() == own_certificate);
    let urls: Vec<String> = urls.map(|address| address.url.clone()).collect();
    let source =
        if own_certificate || first.url.starts_with("ws://") { bind_source(gateway) } else { "gateway.publicOrigin" };
    Ok((urls, source.to_owned(), own_certificate))
}

async fn remote_url(gateway: &Gateway) -> Option<String> {
    let (paths, env) = (gateway.paths.clone(), gateway.env.clone());
    let read = tokio::task::spawn_blocking(move || {
        let document = Document::load(&paths, &env).ok()?;
        document.get("gateway.remote.url").and_then(|node| node.as_str()).map(str::to_owned)
    });
    read.await.ok().flatten()
}

fn addresses(gateway: &Gateway) -> Vec<GatewayAddress> {
    let pin = gateway.tls.as_ref().map(|tls| tls.certificate().key_fingerprint.to_string());
    let runtime = gateway.runtime.load();
    let listening = reachable::Listening {
        addresses: gateway.listening(),
        port: gateway.port(),
        tls: pin.as_deref(),
        public_origin: runtime.public_origin.as_deref(),
    };
    reachable::addresses(listening, &reachable::interfaces())
}

fn bind_source(gateway: &Gateway) -> &'static str {
    let listening = gateway.listening();
    if listening.iter().any(std::net::IpAddr::is_unspecified) {
        "gateway.bind=lan"
    } else if listening.iter().any(|address| crate::bind::is_tailnet(*address)) {
        "gateway.bind=tailnet"
    } else {
        "gateway.bind=custom"
    }
}

/// Whom a setup code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// A phone with administration.
    Full,
    Limited,
    Node,
    /// A node that hears and speaks.
    VoiceNode,
}

/// What the reference's apps expect of a setup code (handshake notes, section 11). Pairing rights are never handed over.
fn phone_rights(profile: Profile) -> Rights {
    let limited = [Scope::Approvals, Scope::Questions, Scope::Read, Scope::TalkSecrets, Scope::Write];
    let operator: Option<ScopeSet> = match profile {
        Profile::Node => None,
        Profile::VoiceNode => Some([Scope::Read, Scope::Talk].into_iter().collect()),
        Profile::Limited => Some(limited.into_iter().collect()),
        Profile::Full => Some(limited.into_iter().chain([Scope::Admin]).collect()),
    };
    Rights { node: true, operator }
}

/// The reference's words.
fn join_needs_tls() -> ErrorShape {
    let remedy =
        Remediation { command: "openclaw config set gateway.tls.enabled true".into(), run_on: Machine::GatewayHost };
    ErrorShape::invalid(
        "Join URLs require a TLS gateway endpoint, except for loopback. Use the setup code directly for plaintext LAN pairing.",
    )
    .detail("code", "GATEWAY_URL_NEEDS_TLS")
    .detail("remediation", remedy)
}

/// Why there is no address for a code: without TLS a public one is none.
fn nowhere(gateway: &Gateway) -> ErrorShape {
    let beyond = gateway.listening().iter().any(|address| !address.is_loopback());
    if beyond && gateway.tls.is_none() { needs_tls() } else { loopback_only() }
}

fn loopback_only() -> ErrorShape {
    let remedy = Remediation { command: "openclaw config set gateway.bind lan".into(), run_on: Machine::GatewayHost };
    ErrorShape::invalid(LOOPBACK_ONLY).detail("code", "GATEWAY_LOOPBACK_ONLY").detail("remediation", remedy)
}

fn needs_tls() -> ErrorShape {
    let remedy =
        Remediation { command: "openclaw config set gateway.tls.enabled true".into(), run_on: Machine::GatewayHost };
    ErrorShape::invalid(
        "a setup code needs a wss:// URL beyond the private network: switch gateway.tls on, or set gateway.publicOrigin to \
         the https:// address of the proxy in front",
    )
    .detail("code", "GATEWAY_URL_NEEDS_TLS")
    .detail("remediation", remedy)
}

fn invalid<M: Method>(at: &str, problem: &str) -> ErrorShape {
    ErrorShape::invalid(format!("invalid {} params: at {at}: {problem}", M::NAME))
}

#[cfg(test)]
mod tests {
    use openclaw_protocol::method::invite::SetupAccess;

    use super::*;

    #[test]
    fn rights_of_an_invitation() {
        let ask = |role: Option<&str>, scopes: Option<&[&str]>| {
            let scopes = scopes.map(|list| list.iter().map(|name| (*name).to_owned()).collect());
            let params = InviteParams { role: role.map(str::to_owned), scopes, ..InviteParams::default() };
            rights(&params)
                .map(|(role, rights)| format!("{role} [{}]", rights.of(role).unwrap_or_default().names().join(" ")))
        };
        let ok = |text: &str| Ok(text.to_owned());
        let bad = |at: &str, problem: &str| {
            Err(ErrorShape::invalid(format!("invalid device.pair.invite params: at {at}: {problem}")))
        };
        assert_eq!(
            ask(None, None),
            ok("operator [operator.read operator.write operator.approvals operator.questions operator.talk]")
        );
        assert_eq!(ask(Some("operator"), Some(&[])), ok("operator []"));
        assert_eq!(ask(Some("operator"), Some(&["operator.admin"])), ok("operator [operator.admin]"));
        assert_eq!(ask(Some("node"), None), ok("node []"));
        assert_eq!(ask(Some("node"), Some(&["operator.read"])), bad("/scopes", "must be empty: a node has no scopes"));
        assert_eq!(ask(Some("gateway"), None), bad("/role", "must be equal to one of the allowed values"));
        assert_eq!(ask(None, Some(&["operator.reed"])), bad("/scopes", "must hold known scopes only"));
    }

    #[test]
    fn a_phone_never_gets_pairing() {
        for (profile, access) in [
            (Profile::Full, SetupAccess::Full),
            (Profile::Limited, SetupAccess::Limited),
            (Profile::VoiceNode, SetupAccess::Limited),
            (Profile::Node, SetupAccess::Node),
        ] {
            let rights = phone_rights(profile);
            assert!(rights.node && !rights.operator.is_some_and(|scopes| scopes.has(Scope::Pairing)));
            assert_eq!(rights.access(), access, "{profile:?}");
        }
    }
}
