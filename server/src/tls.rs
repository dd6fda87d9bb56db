//! TLS towards others: one provider, and certificates checked against the system's roots.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{CertificateError, ClientConfig, RootCertStore};

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

/// What helps against an error of TLS; nothing when it is none.
pub fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error gives the cause of what it wraps, not what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        let found = wrapped.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(why)) = found {
            return Some(match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "renew the server's certificate, and check this machine's clock"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "use the host name that the server's certificate is for"
                }
                _ => "trust the certificate's issuer on this machine, or name a file of trusted ones in SSL_CERT_FILE",
            });
        }
        next = error.source();
    }
    None
}
