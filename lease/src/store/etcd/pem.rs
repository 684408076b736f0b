//! The TLS files of etcd, in the client's types.

use std::path::Path;

use etcd_client::{Certificate, Identity};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::store::pem::{PemError, certificates, is_der, read, unusable};

/// The authorities in a CA file.
pub(super) fn authorities(file: &Path) -> Result<Certificate, PemError> {
    certificates(file).map(Certificate::from_pem)
}

/// A certificate chain and its key.
pub(super) fn identity(cert: &Path, key: &Path) -> Result<Identity, PemError> {
    let chain = certificates(cert)?;
    let text = read(key)?;
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(found) if is_der(found.secret_der()) => Ok(Identity::from_pem(chain, text)),
        Ok(_) => Err(unusable(key, "its private key is damaged")),
        Err(error) => Err(unusable(key, &format!("no private key in PEM form is in it: {error}"))),
    }
}
