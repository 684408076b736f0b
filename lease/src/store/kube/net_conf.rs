//! The network configuration in a file, which a ConfigMap volume swaps as a whole.
//!
//! It is read once a second and not watched: the file is small, and a volume that is swapped by a link in another folder
//! takes more to watch than to read.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use crate::Denied;
use crate::store::{ConfigText, StoreError};

/// How often the file is looked at. The kubelet itself takes up to a minute to swap it.
const LOOK: Duration = Duration::from_secs(1);

/// The text, or none where there is no such file.
pub(super) async fn read(file: &Path) -> Result<ConfigText, StoreError> {
    match tokio::fs::read(file).await {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::Denied(format!("{}: {error}{}", file.display(), Denied::of(file, &error)))),
    }
}

/// Sends the text, then each change of it, until nobody listens. What cannot be read is as it was.
pub(super) async fn follow(file: &Path, texts: mpsc::Sender<ConfigText>) {
    let mut told: Option<ConfigText> = None;
    let mut trouble: Option<StoreError> = None;
    while !texts.is_closed() {
        match read(file).await {
            Ok(text) => {
                trouble = None;
                if told.as_ref() != Some(&text) {
                    told = Some(text.clone());
                    if texts.send(text).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                if trouble.as_ref() != Some(&error) {
                    warn!(%error, "network configuration cannot be read; it is tried again until it can");
                }
                trouble = Some(error);
            }
        }
        tokio::select! { () = sleep(LOOK) => (), () = texts.closed() => () }
    }
}
