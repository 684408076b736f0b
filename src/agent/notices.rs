//! What the lease set has to say, as log lines: a few in full, the rest as a number, so that a store full of bad records
//! does not fill a disk.

use overlay::Notice;

/// So many of one batch are told one by one.
const IN_FULL: usize = 10;

pub(crate) fn log(notices: Vec<Notice>) {
    let more = notices.len().saturating_sub(IN_FULL);
    for notice in notices.into_iter().take(IN_FULL) {
        match notice {
            Notice::Rejected(key, reason) => tracing::warn!(%key, %reason, "lease rejected: it is not acted on, no other peer is touched"),
            Notice::Recovered(key) => tracing::info!(%key, "lease accepted that had been rejected"),
            Notice::OtherBackend(key, backend) => tracing::warn!(%key, ?backend, "lease of another backend ignored"),
            Notice::Stray(key) => tracing::warn!(key, "key names no subnet: ignored"),
            Notice::Held { missing, of } => tracing::error!(
                missing,
                of,
                hold = ?overlay::MASS_HOLD,
                "the store suddenly lacks most peers: they are kept for now; look at the store"
            ),
            Notice::HoldOver(gone) => tracing::warn!(gone, "peers removed that the store has lacked all the time"),
        }
    }
    if more > 0 {
        tracing::warn!(more, "more of the same: loden status lists them");
    }
}
