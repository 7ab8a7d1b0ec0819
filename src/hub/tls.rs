//! TLS for the client: which cryptography, which certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::error::{Error, Result};

/// The provider that the program has installed, else graviola where the processor has what it needs, else none.
pub(super) fn provider() -> Option<Arc<CryptoProvider>> {
    CryptoProvider::get_default().cloned().or_else(graviola)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn graviola() -> Option<Arc<CryptoProvider>> {
    // It checks as well, but panics.
    has_instructions().then(|| Arc::new(rustls_graviola::default_provider()))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn graviola() -> Option<Arc<CryptoProvider>> {
    None
}

#[cfg(target_arch = "x86_64")]
fn has_instructions() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("aes")
        && has!("pclmulqdq")
        && has!("ssse3")
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("adx")
}

#[cfg(target_arch = "aarch64")]
fn has_instructions() -> bool {
    use std::arch::is_aarch64_feature_detected as has;
    has!("neon") && has!("aes") && has!("pmull") && has!("sha2")
}

/// The client's settings: `provider`, and the certificates in the file `trusted` or else Mozilla's.
pub(super) fn config(provider: Arc<CryptoProvider>, trusted: Option<&Path>) -> Result<TlsConfig> {
    let roots = trusted.map_or(Ok(RootCerts::WebPki), read_certificates)?;
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(roots)
        .build())
}

fn read_certificates(path: &Path) -> Result<RootCerts> {
    let pem = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None, // keys, and what is not PEM
    });
    let certificates: Vec<_> = certificates.collect();
    if certificates.is_empty() {
        return Err(Error::Option {
            option: "SSL_CERT_FILE",
            problem: format!("`{}` holds no certificate", path.display()),
        });
    }
    Ok(certificates.into())
}
