//! How devices and requests are shown. Every text in them was chosen by a device.

use openclaw_protocol::{
    PublicKey, Role, ScopeSet,
    limits::PAIRING_TTL,
    method::device::{DevicePairings, PairedDevice, PendingDevice},
};

use crate::output::{
    Style, Tone, inert,
    table::{self, Cell},
    time,
};

pub fn render(style: Style, list: &DevicePairings, now: i64) -> String {
    if list.pending.is_empty() && list.paired.is_empty() {
        return "No device pairing entries.\n".to_owned();
    }
    let mut text = String::new();
    if !list.pending.is_empty() {
        text.push_str(&render_pending(style, &list.pending, now));
        text.push('\n');
    }
    text.push_str(&format!("{}\n", style.paint(Tone::Title, &format!("Paired ({})", list.paired.len()))));
    let rows: Vec<Vec<Cell>> = list.paired.iter().map(|device| paired_row(style, device, now)).collect();
    if !rows.is_empty() {
        text.push_str(&table::columns(
            style,
            &["device", "name", "role", "scopes", "platform", "approved", "seen"],
            &rows,
        ));
    }
    text
}

fn paired_row(style: Style, device: &PairedDevice, now: i64) -> Vec<Cell> {
    let roles = if device.roles.is_empty() { device.role.clone().unwrap_or_default() } else { device.roles.join(", ") };
    let seen = match (device.connected, device.last_seen_at_ms) {
        (Some(true), _) => Cell::toned(Tone::Good, if style.unicode() { "● connected" } else { "connected" }),
        (_, Some(at)) => Cell::from(time::ago(at, now)),
        _ => Cell::toned(Tone::Dim, "-"),
    };
    let live: Vec<&str> = device.tokens.iter().filter(|t| t.revoked_at_ms.is_none()).map(|t| t.role.as_str()).collect();
    let scopes = scopes(&device.scopes);
    vec![
        Cell::from(short(&device.device_id)),
        Cell::from(inert(device.display_name.as_deref().or(device.client_id.as_deref()).unwrap_or("-")).into_owned()),
        Cell::from(inert(&roles).into_owned()),
        if live.is_empty() {
            Cell::toned(Tone::Warn, format!("{scopes} (no valid token)"))
        } else {
            Cell::from(scopes)
        },
        Cell::from(inert(device.platform.as_deref().unwrap_or("-")).into_owned()),
        Cell::from(match device.approved_via.as_deref() {
            Some(via) => format!("{} ({})", time::ago(device.approved_at_ms, now), inert(via)),
            None => time::ago(device.approved_at_ms, now),
        }),
        seen,
    ]
}

pub fn render_pending(style: Style, pending: &[PendingDevice], now: i64) -> String {
    if pending.is_empty() {
        return "No pending device pairing requests.\n".to_owned();
    }
    let rows: Vec<Vec<Cell>> = pending
        .iter()
        .map(|request| {
            let ttl = i64::try_from(PAIRING_TTL.as_millis()).unwrap_or(i64::MAX);
            vec![
                Cell::toned(Tone::Command, short(&request.request_id)),
                Cell::from(words(request).unwrap_or_else(|| "-".to_owned())),
                Cell::from(pending_name(request)),
                Cell::from(inert(request.role.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(scopes(&request.scopes)),
                Cell::from(inert(request.remote_ip.as_deref().unwrap_or("-")).into_owned()),
                Cell::from(time::ago(request.ts.saturating_add(ttl), now)),
            ]
        })
        .collect();
    let mut text = format!("{}\n", style.paint(Tone::Title, &format!("Pending ({})", pending.len())));
    text.push_str(&table::columns(style, &["request", "words", "device", "role", "scopes", "from", "expires"], &rows));
    let example = pending.first().map(|request| short(&request.request_id)).unwrap_or_default();
    text.push_str(&format!(
        "Approve: {}\n",
        style.paint(Tone::Command, &format!("openclaw devices approve {example}"))
    ));
    text
}

pub fn pending_name(request: &PendingDevice) -> String {
    let name = request.display_name.as_deref().or(request.client_id.as_deref()).unwrap_or("?");
    let name = format!("{} ({})", inert(name), short(&request.device_id));
    if request.is_repair { format!("{name}, known, asks for more") } else { name }
}

/// The three words both sides show.
pub fn words(request: &PendingDevice) -> Option<String> {
    use openclaw_gateway::pairing::words::{RequestDigest, three_words};
    let key = PublicKey::parse(&request.public_key)?;
    let role = Role::parse(request.role.as_deref()?)?;
    Some(three_words(&RequestDigest::of(key, role, ScopeSet::parse(&request.scopes))).join("-"))
}

/// `read, write` for `operator.read`, `operator.write`.
pub fn scopes(names: &[String]) -> String {
    if names.is_empty() {
        return "-".to_owned();
    }
    let short = names.iter().map(|name| inert(name.strip_prefix("operator.").unwrap_or(name)).into_owned());
    short.collect::<Vec<_>>().join(", ")
}

/// The first eight characters of an id.
pub fn short(id: &str) -> String {
    inert(id.get(..8).unwrap_or(id)).into_owned()
}

pub fn name_of(device: &PairedDevice) -> String {
    match device.display_name.as_deref() {
        Some(name) => format!("{} ({})", inert(name), short(&device.device_id)),
        None => short(&device.device_id),
    }
}

/// A text that stays one word inside single quotes.
pub fn shell_safe(text: &str) -> bool {
    !text.contains('\'') && inert(text) == text
}

pub fn undo_line(style: Style, command: &str) -> String {
    format!("\nUndo: {}", style.paint(Tone::Command, command))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pending(id: &str, name: &str) -> PendingDevice {
        serde_json::from_value(json!({"requestId": id, "deviceId": "be6491d56626acf8", "publicKey": "x",
            "displayName": name, "role": "operator", "scopes": ["operator.read", "operator.write"], "ts": 0}))
        .expect("a request")
    }

    #[test]
    fn p_09_device_names_are_inert() {
        let list = DevicePairings { pending: vec![pending("8a98d942", "\u{1b}[31mroot\u{202e}")], paired: vec![] };
        let text = render(Style::plain(), &list, 1000);
        assert!(text.contains("\\u{1b}[31mroot\\u{202e} (be6491d5)"), "{text}");
        assert!(
            text.contains("read, write")
                && text.contains("in 4m")
                && text.contains("openclaw devices approve 8a98d942")
        );
    }

    #[test]
    fn nothing_to_show() {
        assert_eq!(render(Style::plain(), &DevicePairings::default(), 0), "No device pairing entries.\n");
    }
}
