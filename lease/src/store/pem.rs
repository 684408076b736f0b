//! PEM files, looked through before a client sees them: it would take rubbish for an empty list of certificates and blame
//! the server later.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::Denied;

/// A TLS file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS file {}: {reason}", file.display())]
pub struct PemError {
    file: PathBuf,
    reason: String,
}

/// The text of a file with certificates.
pub(super) fn certificates(file: &Path) -> Result<Vec<u8>, PemError> {
    let text = read(file)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text).collect();
    if found.is_empty() {
        return Err(unusable(file, "no certificate in PEM form is in it"));
    }
    for (index, certificate) in found.into_iter().enumerate() {
        match certificate {
            Ok(certificate) if is_der(&certificate) => (),
            Ok(_) => return Err(unusable(file, &format!("certificate {} is damaged", index + 1))),
            Err(error) => return Err(unusable(file, &format!("certificate {}: {error}", index + 1))),
        }
    }
    Ok(text)
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    std::fs::read(file).map_err(|error| unusable(file, &format!("{error}{}", Denied::of(file, &error))))
}

pub(super) fn unusable(file: &Path, reason: &str) -> PemError {
    PemError { file: file.to_owned(), reason: reason.to_owned() }
}

/// One DER sequence that is as long as it says (X.690 §8.1.3, §8.9): what every certificate and key is at the outside.
pub(super) fn is_der(bytes: &[u8]) -> bool {
    let Some((0x30, [first, rest @ ..])) = bytes.split_first().map(|(tag, rest)| (*tag, rest)) else { return false };
    if *first < 0x80 {
        return rest.len() == usize::from(*first);
    }
    let count = usize::from(first & 0x7f);
    rest.split_at_checked(count).is_some_and(|(length, content)| {
        let length = length.iter().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)));
        length == Some(content.len())
    })
}
