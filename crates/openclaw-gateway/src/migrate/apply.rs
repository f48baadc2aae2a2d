//! Comparing with what is here, and writing what is not.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use openclaw_config::{
    Paths,
    device_tokens::{DeviceToken as CachedToken, DeviceTokens},
    files, identity,
};
use openclaw_protocol::DeviceId;
use rusqlite::{Connection, OpenFlags};

use super::{
    Done, Item, ItemKind, ItemState, MigrateError, MigrationPlan, MigrationReport, Outcome, json,
    source::{ClientToken, SourceState, digest},
};
use crate::{
    lock::{Owner, StateLock},
    pairing::{DeviceChange, PairedDevice},
    store::{self, Store},
};

const APPROVALS: &str = "exec-approvals.json";

/// Imports a plan. Holds the target's state lock meanwhile, so no gateway runs on it. What is here already is kept, unless
/// `overwrite`; replaced files are kept as `<name>.before-migrate`. Doing it again changes nothing.
///
/// Blocks; not for use inside an async runtime.
///
/// # Errors
/// [`MigrateError::Lock`] when a gateway owns the target. After any other error, what was imported so far stays, and the
/// next run goes on from there.
pub fn apply(
    plan: &MigrationPlan,
    target: &Paths,
    overwrite: bool,
    now_ms: i64,
) -> Result<MigrationReport, MigrateError> {
    let me = Owner {
        pid: std::process::id(),
        started_at_ms: now_ms,
        version: concat!(env!("CARGO_PKG_VERSION"), " (migrate)").into(),
        url: None,
    };
    let _lock = StateLock::acquire(&target.lock_file(), me)?;
    // The target may have changed since the plan was made.
    let items = compare(&plan.state, target)?;
    let mut writer = Writer { target, overwrite, report: MigrationReport::default() };
    writer.report.warnings.clone_from(&plan.warnings);
    writer.devices(&plan.state, &items)?;
    for item in &items {
        writer.item(&plan.state, item)?;
    }
    Ok(writer.report)
}

/// How each thing of the source relates to the target.
pub(super) fn compare(state: &SourceState, target: &Paths) -> Result<Vec<Item>, MigrateError> {
    let mut items = Vec::new();
    let mut file = |kind, name: String, content: &[u8], path: &Path| -> Result<(), MigrateError> {
        let item_state = match json::read(path)? {
            _ if state.in_place => ItemState::InPlace,
            None => ItemState::New,
            Some(here) if digest(&here) == digest(content) => ItemState::Same,
            Some(_) => ItemState::Conflict,
        };
        items.push(Item { kind, name, state: item_state, detail: None });
        Ok(())
    };
    for (path, content) in &state.includes {
        file(ItemKind::Include, path.display().to_string(), content, &include_target(target, path))?;
    }
    if let Some(content) = &state.dotenv {
        file(ItemKind::DotEnv, ".env".into(), content, &target.dotenv())?;
    }
    if let Some(content) = &state.config {
        file(ItemKind::Config, "openclaw.json".into(), content, &target.config_file)?;
    }
    if let Some(source) = &state.approvals {
        let item_state = match json::read(&approvals_file(target))? {
            Some(_) if state.in_place && source.in_file => ItemState::InPlace,
            None => ItemState::New,
            Some(here) if digest(&here) == digest(&source.text) => ItemState::Same,
            Some(_) => ItemState::Conflict,
        };
        items.push(Item { kind: ItemKind::ExecApprovals, name: APPROVALS.into(), state: item_state, detail: None });
    }
    if let Some(source) = &state.identity {
        let id = source.key.id();
        let item_state = match current_identity(target)? {
            Some(here) if here == id => ItemState::Same,
            None => ItemState::New,
            Some(_) => ItemState::Conflict,
        };
        let name = format!("device {}", id.short());
        items.push(Item { kind: ItemKind::Identity, name, state: item_state, detail: None });
    }
    for token in &state.client_tokens {
        let item_state = match state.identity.as_ref().map(|source| cached(target, source.key.id(), token)) {
            None => continue,
            Some(here) => match here? {
                Some(here) if here.token == token.token => ItemState::Same,
                Some(_) => ItemState::Conflict,
                None => ItemState::New,
            },
        };
        items.push(Item { kind: ItemKind::ClientToken, name: token_name(token), state: item_state, detail: None });
    }
    let here = current_devices(target)?;
    for device in &state.devices {
        let item_state = match here.get(&device.id) {
            None => ItemState::New,
            Some(here) if here == device => ItemState::Same,
            Some(_) => ItemState::Conflict,
        };
        let detail = Some(device_detail(device));
        items.push(Item { kind: ItemKind::Device, name: device_name(device), state: item_state, detail });
    }
    Ok(items)
}

struct Writer<'a> {
    target: &'a Paths,
    overwrite: bool,
    report: MigrationReport,
}

impl Writer<'_> {
    /// All devices in one transaction.
    fn devices(&mut self, state: &SourceState, items: &[Item]) -> Result<(), MigrateError> {
        let items = items.iter().filter(|item| item.kind == ItemKind::Device);
        let wanted: Vec<DeviceChange> = state
            .devices
            .iter()
            .zip(items)
            .filter(|(_, item)| self.writes(item.state))
            .map(|(device, _)| DeviceChange::PutDevice(Box::new(device.clone())))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let store = Store::open(&self.target.state_db())?;
        let saved = store.commit_blocking(wanted);
        store.close();
        Ok(saved?)
    }

    fn item(&mut self, state: &SourceState, item: &Item) -> Result<(), MigrateError> {
        if self.writes(item.state) {
            match item.kind {
                ItemKind::Device => {}
                ItemKind::Include => {
                    let found = state.includes.iter().find(|(path, _)| path.display().to_string() == item.name);
                    if let Some((path, content)) = found {
                        self.file(&include_target(self.target, path), content)?;
                    }
                }
                ItemKind::DotEnv => self.optional_file(&self.target.dotenv(), state.dotenv.as_deref())?,
                ItemKind::Config => {
                    self.optional_file(&self.target.config_file.clone(), state.config.as_deref())?;
                }
                ItemKind::ExecApprovals => {
                    let text = state.approvals.as_ref().map(|approvals| approvals.text.as_slice());
                    self.optional_file(&approvals_file(self.target), text)?;
                }
                ItemKind::Identity => {
                    if let Some(source) = &state.identity {
                        self.back_up(&self.target.identity_file())?;
                        identity::store(self.target, &source.key, source.created_at_ms)?;
                    }
                }
                ItemKind::ClientToken => self.client_token(state, item)?,
            }
        }
        let outcome = match item.state {
            ItemState::New => Outcome::Imported,
            ItemState::Conflict if self.overwrite => Outcome::Replaced,
            ItemState::Conflict => Outcome::Kept,
            ItemState::Same | ItemState::InPlace => Outcome::Unchanged,
        };
        self.report.done.push(Done { kind: item.kind, name: item.name.clone(), outcome });
        Ok(())
    }

    fn client_token(&mut self, state: &SourceState, item: &Item) -> Result<(), MigrateError> {
        let Some(source) = &state.identity else { return Ok(()) };
        let id = source.key.id();
        if current_identity(self.target)?.as_ref() != Some(&id) {
            let text = format!("the token for {} belongs to the identity that was not imported", item.name);
            self.report.warnings.push(text);
            return Ok(());
        }
        for token in state.client_tokens.iter().filter(|token| token_name(token) == item.name) {
            let kept = CachedToken {
                token: token.token.clone(),
                role: token.role,
                scopes: token.scopes,
                updated_at_ms: token.updated_at_ms,
            };
            DeviceTokens::new(self.target, id.clone()).put(&token.origin, &kept)?;
        }
        Ok(())
    }

    fn writes(&self, state: ItemState) -> bool {
        state == ItemState::New || (state == ItemState::Conflict && self.overwrite)
    }

    fn optional_file(&mut self, path: &Path, content: Option<&[u8]>) -> Result<(), MigrateError> {
        content.map_or(Ok(()), |content| self.file(path, content))
    }

    fn file(&mut self, path: &Path, content: &[u8]) -> Result<(), MigrateError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
            files::create_private_dir(parent)?;
        }
        self.back_up(path)?;
        Ok(files::write_private_atomic(path, content)?)
    }

    /// Keeps what is about to be replaced, never over an earlier copy.
    fn back_up(&mut self, path: &Path) -> Result<(), MigrateError> {
        let Some(content) = json::read(path)? else { return Ok(()) };
        let name = |number: u32| {
            let mut name = path.as_os_str().to_owned();
            name.push(if number == 0 { ".before-migrate".into() } else { format!(".before-migrate.{number}") });
            PathBuf::from(name)
        };
        let free = (0..).map(name).find(|copy| fs::symlink_metadata(copy).is_err());
        if let Some(copy) = free {
            files::write_new_private(&copy, &content)?;
            self.report.backups.push(copy);
        }
        Ok(())
    }
}

fn approvals_file(target: &Paths) -> PathBuf {
    target.state_dir.join(APPROVALS)
}

fn include_target(target: &Paths, relative: &Path) -> PathBuf {
    target.config_file.parent().unwrap_or(&target.state_dir).join(relative)
}

fn current_identity(target: &Paths) -> Result<Option<DeviceId>, MigrateError> {
    Ok(identity::load(target)?.map(|key| key.id()))
}

fn cached(target: &Paths, id: DeviceId, token: &ClientToken) -> Result<Option<CachedToken>, MigrateError> {
    Ok(DeviceTokens::new(target, id).get(&token.origin, token.role)?)
}

/// Devices of the target, read without creating or changing its database.
fn current_devices(target: &Paths) -> Result<HashMap<DeviceId, PairedDevice>, MigrateError> {
    let path = target.state_db();
    if fs::metadata(&path).map_or(0, |meta| meta.len()) == 0 {
        return Ok(HashMap::new());
    }
    let explain = |error: rusqlite::Error| {
        let reason = format!("our own database cannot be read ({error}); `openclaw doctor` says more");
        MigrateError::Unreadable { path: path.clone(), reason }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(explain)?;
    let pairing = store::devices::load(&connection).map_err(explain)?;
    let (_, devices) = pairing.list(0);
    Ok(devices.into_iter().map(|device| (device.id.clone(), device.clone())).collect())
}

fn token_name(token: &ClientToken) -> String {
    format!("{} as {}", token.origin, token.role)
}

fn device_name(device: &PairedDevice) -> String {
    let name = device.shown_name().map(|name| name.escape_debug().to_string());
    name.map_or_else(|| device.id.short().to_owned(), |name| format!("{name} ({})", device.id.short()))
}

fn device_detail(device: &PairedDevice) -> String {
    let roles: Vec<&str> = device.roles.iter().map(|role| role.as_str()).collect();
    if roles.is_empty() {
        return "revoked".into();
    }
    let scopes = device.approved_scopes.names();
    if scopes.is_empty() { roles.join(", ") } else { format!("{}: {}", roles.join(", "), scopes.join(", ")) }
}
