//! `loden install-cni`: installs the CNI plugin and its configuration, once or for as long as it runs.

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::InstallCniOptions;
use crate::{install, logging};

/// Installs, and says what was installed, a line each; with `--watch` until it is told to end.
///
/// # Errors
/// When something cannot be installed. With `--watch` that is logged, and tried again.
pub fn install_cni(options: &InstallCniOptions) -> anyhow::Result<String> {
    let InstallCniOptions { what, subnet_file, watch, verbosity } = options;
    if !watch {
        return Ok(install::install(what, subnet_file)?);
    }
    logging::start(*verbosity);
    super::run(async {
        let (mut end, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = end.recv() => {}
            _ = interrupt.recv() => {}
            () = install::keep(what.clone(), install::subnet(subnet_file), drop) => {}
        }
        Ok(String::new())
    })
}
