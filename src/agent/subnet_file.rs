//! The subnet file, kept saying what it should for as long as a session lasts.

use std::path::PathBuf;
use std::sync::Arc;

use super::board::Board;
use crate::metrics::Metrics;
use crate::subnet_env::SubnetFile;

/// Writes it, and puts it back whenever somebody undoes it. Says each trouble once.
pub(super) async fn keep(path: PathBuf, content: String, board: Board, metrics: Arc<Metrics>) {
    let (mut file, unwatched) = SubnetFile::new(path.clone());
    if let Some(error) = unwatched {
        tracing::warn!(%error, "no inotify: the subnet file is looked at every half minute only");
    }
    let mut said = None;
    loop {
        match file.ensure(&content).await {
            Ok(written) => {
                if written {
                    tracing::info!(path = %path.display(), "subnet file written");
                }
                said = None;
                board.change(|facts| facts.subnet_file = None);
            }
            Err(error) => {
                let text = format!("{:#}", anyhow::Error::new(error));
                if said.as_ref() != Some(&text) {
                    tracing::error!(error = text, "subnet file cannot be written");
                    board.change(|facts| facts.subnet_file = Some(text.clone()));
                    said = Some(text);
                }
            }
        }
        let disturbance = file.changed().await;
        if said.is_none() {
            tracing::warn!(harm = ?disturbance.harm, in_a_row = disturbance.in_a_row, "subnet file was changed by somebody: putting it back");
            metrics.healed("subnet_file", 1);
        }
    }
}
