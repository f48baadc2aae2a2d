//! Tables of the pairing room: devices, their tokens, pending requests.

use std::{collections::BTreeMap, net::IpAddr};

use openclaw_protocol::{DeviceId, PublicKey, Role, ScopeSet, Secret};
use rusqlite::{Connection, Row, params, types::Type};

use super::{Touch, bootstrap};
use crate::{
    auth::decide::PairReason,
    pairing::{
        ApprovedVia, ClientMeta, DeviceChange, DevicePairing, DeviceToken, IssuerGeneration, PairedDevice,
        PairingRequest, PendingDevice, RequestId,
    },
};

pub(super) const SCHEMA_1: &str = "
    CREATE TABLE devices (
        device_id        TEXT PRIMARY KEY,
        public_key       TEXT NOT NULL,
        display_name     TEXT,
        platform         TEXT,
        device_family    TEXT,
        client_id        TEXT,
        client_mode      TEXT,
        browser_origin   TEXT,
        label            TEXT,
        role             TEXT NOT NULL,
        roles            TEXT NOT NULL, -- space separated, as are all scopes below
        approved_scopes  TEXT NOT NULL,
        approved_via     TEXT,
        created_at_ms    INTEGER NOT NULL,
        approved_at_ms   INTEGER NOT NULL,
        last_seen_at_ms  INTEGER,
        last_seen_reason TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE device_tokens (
        device_id        TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
        role             TEXT NOT NULL,
        token            TEXT NOT NULL, -- empty once revoked
        scopes           TEXT NOT NULL,
        created_at_ms    INTEGER NOT NULL,
        rotated_at_ms    INTEGER,
        revoked_at_ms    INTEGER,
        last_used_at_ms  INTEGER,
        issuer           TEXT,
        PRIMARY KEY (device_id, role)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE pairing_requests (
        request_id       TEXT PRIMARY KEY,
        device_id        TEXT NOT NULL UNIQUE,
        public_key       TEXT NOT NULL,
        display_name     TEXT,
        platform         TEXT,
        device_family    TEXT,
        client_id        TEXT,
        client_mode      TEXT,
        browser_origin   TEXT,
        role             TEXT NOT NULL,
        scopes           TEXT NOT NULL,
        remote_ip        TEXT,
        reason           TEXT NOT NULL,
        silent           INTEGER NOT NULL,
        requested_at_ms  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// A device may wait in both roles at once.
pub(super) const SCHEMA_2: &str = "
    CREATE TABLE pairing_requests_2 (
        request_id       TEXT PRIMARY KEY,
        device_id        TEXT NOT NULL,
        public_key       TEXT NOT NULL,
        display_name     TEXT,
        platform         TEXT,
        device_family    TEXT,
        client_id        TEXT,
        client_mode      TEXT,
        browser_origin   TEXT,
        role             TEXT NOT NULL,
        scopes           TEXT NOT NULL,
        remote_ip        TEXT,
        reason           TEXT NOT NULL,
        silent           INTEGER NOT NULL,
        requested_at_ms  INTEGER NOT NULL,
        UNIQUE (device_id, role)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO pairing_requests_2 SELECT * FROM pairing_requests;
    DROP TABLE pairing_requests;
    ALTER TABLE pairing_requests_2 RENAME TO pairing_requests;
";

const REASONS: [PairReason; 4] =
    [PairReason::NotPaired, PairReason::RoleUpgrade, PairReason::ScopeUpgrade, PairReason::MetadataUpgrade];

pub(super) fn apply(connection: &Connection, change: &DeviceChange) -> rusqlite::Result<()> {
    match change {
        DeviceChange::PutDevice(device) => put_device(connection, device),
        DeviceChange::DeleteDevice(id) => {
            connection.prepare_cached("DELETE FROM devices WHERE device_id = ?1")?.execute([id.as_str()]).map(drop)
        }
        DeviceChange::PutRequest(pending) => put_request(connection, pending),
        DeviceChange::DeleteRequest(id) => connection
            .prepare_cached("DELETE FROM pairing_requests WHERE request_id = ?1")?
            .execute([id.as_str()])
            .map(drop),
        DeviceChange::PutBootstrap(bootstrap) => bootstrap::put(connection, bootstrap),
        DeviceChange::DeleteBootstrap(digest) => bootstrap::delete(connection, digest),
    }
}

/// Writes when a device was last here, and when its token was last used if that is known.
pub(super) fn apply_touch(connection: &Connection, touch: &Touch, used_at_ms: Option<i64>) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE devices SET last_seen_at_ms = ?2, last_seen_reason = ?3 WHERE device_id = ?1")?
        .execute(params![touch.device_id.as_str(), touch.at_ms, touch.seen.as_str()])?;
    if let Some(used_at_ms) = used_at_ms {
        connection
            .prepare_cached("UPDATE device_tokens SET last_used_at_ms = ?3 WHERE device_id = ?1 AND role = ?2")?
            .execute(params![touch.device_id.as_str(), touch.role.as_str(), used_at_ms])?;
    }
    Ok(())
}

fn put_device(connection: &Connection, device: &PairedDevice) -> rusqlite::Result<()> {
    let client = &device.client;
    let roles: Vec<&str> = device.roles.iter().map(|role| role.as_str()).collect();
    connection
        .prepare_cached(
            "INSERT INTO devices VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)
             ON CONFLICT (device_id) DO UPDATE SET public_key = ?2, display_name = ?3, platform = ?4,
                device_family = ?5, client_id = ?6, client_mode = ?7, browser_origin = ?8, label = ?9, role = ?10,
                roles = ?11, approved_scopes = ?12, approved_via = ?13, created_at_ms = ?14, approved_at_ms = ?15,
                last_seen_at_ms = ?16, last_seen_reason = ?17",
        )?
        .execute(params![
            device.id.as_str(),
            device.public_key.to_wire(),
            client.display_name,
            client.platform,
            client.device_family,
            client.client_id,
            client.client_mode,
            client.browser_origin,
            device.label,
            device.role.as_str(),
            roles.join(" "),
            joined(device.approved_scopes),
            device.approved_via.map(ApprovedVia::as_str),
            device.created_at_ms,
            device.approved_at_ms,
            device.last_seen_at_ms,
            device.last_seen_reason,
        ])?;
    connection.prepare_cached("DELETE FROM device_tokens WHERE device_id = ?1")?.execute([device.id.as_str()])?;
    for (role, token) in &device.tokens {
        connection.prepare_cached("INSERT INTO device_tokens VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)")?.execute(
            params![
                device.id.as_str(),
                role.as_str(),
                token.secret.expose(),
                joined(token.scopes),
                token.created_at_ms,
                token.rotated_at_ms,
                token.revoked_at_ms,
                token.last_used_at_ms,
                token.issuer.as_ref().map(IssuerGeneration::as_str),
            ],
        )?;
    }
    Ok(())
}

fn put_request(connection: &Connection, pending: &PendingDevice) -> rusqlite::Result<()> {
    let (request, client) = (&pending.request, &pending.request.client);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO pairing_requests VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
        )?
        .execute(params![
            pending.id.as_str(),
            request.device_id.as_str(),
            request.public_key.to_wire(),
            client.display_name,
            client.platform,
            client.device_family,
            client.client_id,
            client.client_mode,
            client.browser_origin,
            request.role.as_str(),
            joined(request.scopes),
            request.remote_ip.map(|ip| ip.to_string()),
            request.reason.as_str(),
            request.silent,
            pending.requested_at_ms,
        ])
        .map(drop)
}

/// Reads the whole pairing state. A row that makes no sense fails the load by name: dropping it silently would unpair a
/// device, or lose a revocation.
pub(crate) fn load(connection: &Connection) -> rusqlite::Result<DevicePairing> {
    let mut tokens: BTreeMap<String, BTreeMap<Role, DeviceToken>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT * FROM device_tokens")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let role = parsed(row, "role", Role::parse)?;
        tokens.entry(row.get("device_id")?).or_default().insert(role, token(row)?);
    }
    let mut statement = connection.prepare("SELECT * FROM devices")?;
    let devices =
        statement.query_and_then([], |row| device(row, &mut tokens))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut statement = connection.prepare("SELECT * FROM pairing_requests")?;
    let pending = statement.query_and_then([], request)?.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(DevicePairing::from_rows(devices, pending).with_bootstraps(bootstrap::load(connection)?))
}

fn device(row: &Row<'_>, tokens: &mut BTreeMap<String, BTreeMap<Role, DeviceToken>>) -> rusqlite::Result<PairedDevice> {
    let roles = |text: &str| text.split_whitespace().map(Role::parse).collect::<Option<_>>();
    Ok(PairedDevice {
        id: parsed(row, "device_id", DeviceId::parse)?,
        public_key: parsed(row, "public_key", PublicKey::parse)?,
        client: client(row)?,
        label: row.get("label")?,
        role: parsed(row, "role", Role::parse)?,
        roles: parsed(row, "roles", roles)?,
        approved_scopes: scopes(row, "approved_scopes")?,
        approved_via: row.get::<_, Option<String>>("approved_via")?.as_deref().and_then(ApprovedVia::parse),
        tokens: tokens.remove(&row.get::<_, String>("device_id")?).unwrap_or_default(),
        created_at_ms: row.get("created_at_ms")?,
        approved_at_ms: row.get("approved_at_ms")?,
        last_seen_at_ms: row.get("last_seen_at_ms")?,
        last_seen_reason: row.get("last_seen_reason")?,
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<DeviceToken> {
    Ok(DeviceToken {
        secret: Secret::new(row.get::<_, String>("token")?),
        scopes: scopes(row, "scopes")?,
        created_at_ms: row.get("created_at_ms")?,
        rotated_at_ms: row.get("rotated_at_ms")?,
        revoked_at_ms: row.get("revoked_at_ms")?,
        last_used_at_ms: row.get("last_used_at_ms")?,
        issuer: row.get::<_, Option<String>>("issuer")?.map(IssuerGeneration::new),
    })
}

fn request(row: &Row<'_>) -> rusqlite::Result<PendingDevice> {
    let reason = |text: &str| REASONS.into_iter().find(|reason| reason.as_str() == text);
    Ok(PendingDevice {
        id: RequestId::new(row.get::<_, String>("request_id")?),
        request: PairingRequest {
            device_id: parsed(row, "device_id", DeviceId::parse)?,
            public_key: parsed(row, "public_key", PublicKey::parse)?,
            role: parsed(row, "role", Role::parse)?,
            scopes: scopes(row, "scopes")?,
            client: client(row)?,
            remote_ip: row.get::<_, Option<String>>("remote_ip")?.and_then(|ip| ip.parse::<IpAddr>().ok()),
            reason: parsed(row, "reason", reason)?,
            silent: row.get("silent")?,
        },
        requested_at_ms: row.get("requested_at_ms")?,
    })
}

fn client(row: &Row<'_>) -> rusqlite::Result<ClientMeta> {
    Ok(ClientMeta {
        display_name: row.get("display_name")?,
        platform: row.get("platform")?,
        device_family: row.get("device_family")?,
        client_id: row.get("client_id")?,
        client_mode: row.get("client_mode")?,
        browser_origin: row.get("browser_origin")?,
    })
}

pub(super) fn joined(scopes: ScopeSet) -> String {
    scopes.names().join(" ")
}

/// Scopes from a later version are dropped: an unknown scope is no right.
pub(super) fn scopes(row: &Row<'_>, column: &str) -> rusqlite::Result<ScopeSet> {
    let text: String = row.get(column)?;
    Ok(ScopeSet::parse(&text.split_whitespace().collect::<Vec<_>>()))
}

pub(super) fn parsed<T>(
    row: &Row<'_>,
    column: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    parse(&text).ok_or_else(|| {
        let problem = format!("column {column} holds {text:?}");
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, problem.into())
    })
}
