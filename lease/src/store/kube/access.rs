//! How the API server is reached: by a kubeconfig, by the service account of our pod, or by a bare URL.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::KubeOptions;
use super::connection::PATIENCE;
use super::failure::Failure;
use crate::store::StoreError;
use crate::store::causes::with_causes;
use crate::store::pem;

/// Where a pod finds its cluster's authority (Kubernetes, "Accessing the API from a Pod").
const POD_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// Looks the options through, so that a mistake in them is named at the start.
pub(super) fn check(options: &KubeOptions) -> Result<(), StoreError> {
    if let Some(url) = &options.api_url {
        Config::new(parse(url)?);
    }
    match (&options.kubeconfig, &options.api_url) {
        (Some(file), _) => kubeconfig(file).map(drop),
        (None, Some(_)) => Ok(()),
        (None, None) => in_pod().map(drop),
    }
}

/// Whoever makes a client holds it: one that hangs is not joined by more.
pub(super) type Making = Arc<Mutex<()>>;

/// A client with the credentials as they stand in their files now, or as a program that the kubeconfig names says them: so it is made
/// where nobody else is held up, and not waited for longer than for an answer.
pub(super) async fn client(options: &KubeOptions, making: &Making) -> Result<Client, Failure> {
    let alone = Arc::clone(making).lock_owned();
    let (options, runtime) = (options.clone(), Handle::current());
    let made = async {
        let alone = alone.await;
        let make = move || {
            let _alone = alone;
            runtime.block_on(make(&options))
        };
        spawn_blocking(make).await.unwrap_or_else(|error| Err(Failure::Unreachable(error.to_string())))
    };
    let late = |_| Err(Failure::Denied(format!("no credentials within {} s: {LATE}", PATIENCE.as_secs())));
    timeout(PATIENCE, made).await.unwrap_or_else(late)
}

const LATE: &str = "the program that the kubeconfig names for them, or the file, does not answer";

async fn make(options: &KubeOptions) -> Result<Client, Failure> {
    let denied = |error: StoreError| Failure::Denied(error.to_string());
    let mut config = match (&options.kubeconfig, &options.api_url) {
        (Some(file), _) => {
            let read = kubeconfig(file).map_err(denied)?;
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            config.map_err(|error| denied(unusable(&format!("kubeconfig {}", file.display()), &error)))?
        }
        (None, Some(url)) => Config::new(parse(url).map_err(denied)?),
        (None, None) => in_pod().map_err(denied)?,
    };
    if let Some(url) = &options.api_url {
        config.cluster_url = parse(url).map_err(denied)?;
    }
    // We try again by ourselves, and know until when.
    config.default_retry = false;
    Client::try_from(config).map_err(Failure::from)
}

/// The URL in a form of the HTTP library's, whose type goes unnamed here.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(url: &str) -> Result<T, StoreError> {
    let wrong = |why: String| StoreError::Denied(format!("--kube-api-url: {url:?} {why}"));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(wrong("is not of the form https://HOST:PORT".to_owned()));
    }
    url.parse().map_err(|error: T::Err| wrong(format!("is no URL: {error}")))
}

fn kubeconfig(file: &Path) -> Result<Kubeconfig, StoreError> {
    let read = Kubeconfig::read_from(file).map_err(|error| unusable(&format!("kubeconfig {}", file.display()), &error))?;
    for cluster in read.clusters.iter().filter_map(|named| named.cluster.as_ref()) {
        if let (Some(ca), None) = (&cluster.certificate_authority, &cluster.certificate_authority_data) {
            pem::certificates(Path::new(ca)).map_err(|error| unusable(&format!("kubeconfig {}", file.display()), &error))?;
        }
    }
    Ok(read)
}

fn in_pod() -> Result<Config, StoreError> {
    let outside = "the service account of our pod cannot be used; outside a pod give --kubeconfig-file, or --kube-api-url";
    let config = Config::incluster().map_err(|error| unusable(outside, &error))?;
    pem::certificates(Path::new(POD_CA)).map_err(|error| unusable(outside, &error))?;
    Ok(config)
}

fn unusable(what: &str, error: &(dyn StdError + 'static)) -> StoreError {
    StoreError::Denied(format!("{what}: {}", with_causes(error.to_string(), error.source())))
}
