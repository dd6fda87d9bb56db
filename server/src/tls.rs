//! TLS towards others: one provider, and certificates checked against the system's roots.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// How this process speaks TLS as a client.
///
/// # Errors
/// When the provider offers no protocol version, which is a fault of the build.
pub fn client_config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}
