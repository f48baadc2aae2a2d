//! What this node is called and which gateway it belongs to: `<STATE_DIR>/node.json`, as protocol-3 releases wrote it.

use openclaw_config::{
    Paths,
    files::{self, FileError},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const MAX_BYTES: u64 = 64 * 1024;

/// The file. Keys of other releases are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    pub version: u32,
    /// Id of this installation in `client.instanceId`; not the id by which a gateway knows the node.
    pub node_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<SavedGateway>,
    /// The only commands to offer, if the owner restricted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// Variables the owner lets requests set and programs inherit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_env: Vec<String>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Where the node last belonged to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedGateway {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_path: Option<String>,
    /// The identity it proved when this node was paired by a code: nothing is sent to any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_id: Option<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{file} is damaged: {reason}; repair it, or move it away to start anew (pairing is not affected)")]
    Damaged { file: String, reason: String },
}

impl NodeSettings {
    const VERSION: u32 = 1;

    /// The settings of this profile; fresh ones, with an id of their own, if there are none yet.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn load(paths: &Paths) -> Result<Self, SettingsError> {
        let file = paths.state_dir.join("node.json");
        let mut settings = match files::read_private(&file, MAX_BYTES)? {
            None => Self::default(),
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| SettingsError::Damaged { file: paths.display(&file), reason: error.to_string() })?,
        };
        settings.version = Self::VERSION;
        if settings.node_id.trim().is_empty() {
            settings.node_id = uuid::Uuid::new_v4().to_string();
        }
        Ok(settings)
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`SettingsError::File`].
    pub fn save(&self, paths: &Paths) -> Result<(), SettingsError> {
        files::create_private_dir(&paths.state_dir)?;
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        Ok(files::write_private_atomic(&paths.state_dir.join("node.json"), text.as_bytes())?)
    }
}

/// What this machine calls itself.
pub fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openclaw_config::{Env, Profile};

    #[test]
    fn a_file_of_protocol_3_is_read_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("OPENCLAW_STATE_DIR", dir.path().to_str().unwrap())]);
        let paths = Paths::resolve(&env, Profile::Default).unwrap();
        let fresh = NodeSettings::load(&paths).unwrap();
        assert_eq!((fresh.version, fresh.node_id.len()), (1, 36));

        let file = dir.path().join("node.json");
        let old = r#"{"version":1,"nodeId":"n1","displayName":"Box","gateway":{"host":"10.0.0.2","port":18789,"tls":false},"token":"x"}"#;
        std::fs::write(&file, old).unwrap();
        let mut read = NodeSettings::load(&paths).unwrap();
        assert_eq!((read.node_id.as_str(), read.display_name.as_deref()), ("n1", Some("Box")));
        assert_eq!(read.gateway.as_ref().and_then(|gateway| gateway.host.as_deref()), Some("10.0.0.2"));
        read.display_name = Some("Other".into());
        read.save(&paths).unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!((&written["displayName"], &written["token"]), (&"Other".into(), &"x".into()));

        std::fs::write(&file, "{").unwrap();
        assert!(matches!(NodeSettings::load(&paths), Err(SettingsError::Damaged { .. })));
    }
}
