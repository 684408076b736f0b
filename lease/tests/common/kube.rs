//! Nodes in an API server, and the store in them. What is done to them from outside goes the same way to any API server.

#![expect(clippy::expect_used, reason = "tests say what went wrong by failing")]

use std::path::{Path, PathBuf};
use std::sync::MutexGuard;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use lease::store::contract::Bench;
use lease::store::kube::{KubeOptions, KubeStore, NodeRef};
use lease::{LeaseKey, LeaseRecord};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ApiServer;

use super::apiserver;

/// flannel's annotations begin so.
pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com";

const NODES: &str = "/api/v1/nodes";

/// A stand-in API server and the network configuration's file.
pub(crate) struct Nodes {
    pub(crate) server: ApiServer,
    pub(crate) files: TempDir,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { server: ApiServer::alone().expect("a stand-in API server"), files: TempDir::new().expect("a folder") }
    }
}

impl Nodes {
    pub(crate) fn options(&self, node: &str) -> KubeOptions {
        KubeOptions { node: NodeRef::Name(node.to_owned()), ..options(Some(self.server.url()), None, self.files.path()) }
    }

    /// The store as the agent of a Node sees it.
    pub(crate) fn of(&self, node: &str) -> KubeStore {
        KubeStore::new(self.options(node)).expect("usable options")
    }
}

fn options(api_url: Option<String>, kubeconfig: Option<PathBuf>, files: &Path) -> KubeOptions {
    let (node, net_config) = (NodeRef::Name("onlooker".to_owned()), files.join("net-conf.json"));
    KubeOptions { api_url, kubeconfig, node, annotation_prefix: PREFIX.to_owned(), net_config }
}

/// Nodes in the stand-in, or, where `KUBE_APISERVER_BIN` names one, in a real API server; and the store as a host sees it
/// whose Node is not registered.
pub(crate) struct AnyNodes {
    options: KubeOptions,
    store: KubeStore,
    hands: Hands,
    _stand_in: Option<Nodes>,
    _turn: Option<MutexGuard<'static, ()>>,
    _files: TempDir,
}

/// Who changes Nodes from outside.
struct Hands(Client);

impl AnyNodes {
    /// Without a Node.
    pub(crate) async fn fresh() -> Self {
        let files = TempDir::new().expect("a folder");
        let (mut options, stand_in, turn) = if apiserver::binary().is_some() {
            let (server, turn) = apiserver::take();
            (options(None, Some(server.kubeconfig.clone()), files.path()), None, Some(turn))
        } else {
            let stand_in = Nodes::default();
            (stand_in.options("onlooker"), Some(stand_in), None)
        };
        options.net_config = files.path().join("net-conf.json");
        let hands = Hands(client(&options).await);
        hands.delete_all().await;
        let store = KubeStore::new(options.clone()).expect("usable options");
        Self { options, store, hands, _stand_in: stand_in, _turn: turn, _files: files }
    }

    fn of(&self, node: &str) -> KubeStore {
        KubeStore::new(KubeOptions { node: NodeRef::Name(node.to_owned()), ..self.options.clone() }).expect("usable options")
    }
}

/// A client of our own.
async fn client(options: &KubeOptions) -> Client {
    let config = match (&options.kubeconfig, &options.api_url) {
        (Some(file), _) => {
            let read = Kubeconfig::read_from(file).expect("a kubeconfig");
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.expect("a configuration")
        }
        (None, url) => Config::new(url.as_ref().expect("a URL").parse().expect("a URL")),
    };
    Client::try_from(config).expect("a client")
}

impl Hands {
    async fn ask(&self, request: Result<http::Request<Vec<u8>>, kube::core::request::Error>) -> Result<Value, kube::Error> {
        self.0.request(request.expect("a request")).await
    }

    /// Registers a Node with these annotations, or puts them where it is there.
    async fn put(&self, name: &str, cidrs: &[String], annotations: Value) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "annotations": annotations },
            "spec": if cidrs.is_empty() { json!({}) } else { json!({ "podCIDR": cidrs.first(), "podCIDRs": cidrs }) },
        });
        let made = self.ask(Request::new(NODES).create(&PostParams::default(), node.to_string().into())).await;
        if let Err(kube::Error::Api(status)) = &made
            && status.code == 409
        {
            let patch = Patch::Merge(json!({ "metadata": { "annotations": annotations } }));
            self.ask(Request::new(NODES).patch(name, &PatchParams::default(), &patch)).await.expect("a patch");
            return;
        }
        made.expect("a Node");
    }

    async fn delete_all(&self) {
        let all: Value = self.ask(Request::new(NODES).list(&ListParams::default())).await.expect("a list");
        let name = |node: &Value| node.pointer("/metadata/name").and_then(Value::as_str).expect("a name").to_owned();
        for name in all.get("items").and_then(Value::as_array).into_iter().flatten().map(name) {
            self.delete(&name).await;
        }
    }

    async fn delete(&self, name: &str) {
        self.ask(Request::new(NODES).delete(name, &DeleteParams::default())).await.expect("a Node to delete");
    }
}

fn name(key: LeaseKey) -> String {
    key.to_string().replace(['.', ':', '&'], "-")
}

fn cidrs(key: LeaseKey) -> Vec<String> {
    [key.v4(), key.v6()].into_iter().flatten().map(|subnet| subnet.to_string()).collect()
}

/// As flanneld writes them with the backend host-gw, all but the address.
pub(crate) fn annotations(address: &str) -> Value {
    json!({
        format!("{PREFIX}/kube-subnet-manager"): "true",
        format!("{PREFIX}/backend-type"): "host-gw",
        format!("{PREFIX}/backend-data"): "null",
        format!("{PREFIX}/public-ip"): address,
    })
}

impl Bench for AnyNodes {
    type Store = KubeStore;
    const EXPIRES: bool = false;
    fn store(&self) -> &KubeStore {
        &self.store
    }
    async fn host(&self, key: LeaseKey) -> KubeStore {
        self.hands.put(&name(key), &cidrs(key), json!({})).await;
        self.of(&name(key))
    }
    async fn configure(&self, text: Option<&str>) {
        let file = &self.options.net_config;
        match text {
            Some(text) => {
                let beside = file.with_extension("new");
                std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file)).expect("a file");
            }
            None => std::fs::remove_file(file).expect("the file is there"),
        }
    }
    async fn put_record(&self, key: LeaseKey, record: &LeaseRecord) {
        let address = record.public_ip.expect("an address").to_string();
        self.hands.put(&name(key), &cidrs(key), annotations(&address)).await;
    }
    async fn put_damaged(&self, key: LeaseKey) {
        self.hands.put(&name(key), &cidrs(key), annotations("x")).await;
    }
    async fn put_stray(&self, name: &str) {
        self.hands.put(name, &[], annotations("192.0.2.9")).await;
    }
    async fn delete_stray(&self, name: &str) {
        self.hands.delete(name).await;
    }
    async fn delete(&self, key: LeaseKey) {
        self.hands.delete(&name(key)).await;
    }
}
