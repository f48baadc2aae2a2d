//! TLS towards servers that the model or the config names.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Trusts what the system trusts. Without `https` nothing is trusted, and no certificates are read.
///
/// # Errors
/// When the system's certificates cannot be used.
pub(crate) fn config(https: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = if https {
        let verified = config.with_platform_verifier();
        verified.map_err(|error| format!("the system's certificates cannot be used ({error})"))?
    } else {
        config.with_root_certificates(RootCertStore::empty())
    };
    Ok(config.with_no_client_auth())
}
