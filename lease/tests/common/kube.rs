//! Nodes in an API server, and the store in them. What is done to them from outside goes the same way to any API server.

#![expect(clippy::expect_used, reason = "tests say what went wrong by failing")]

use std::path::PathBuf;

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use lease::store::contract::Bench;
use lease::store::kube::{KubeOptions, KubeStore, NodeRef};
use lease::{LeaseKey, LeaseRecord};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::ApiServer;

/// flannel's annotations begin so.
pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com";

const NODES: &str = "/api/v1/nodes";

/// A stand-in API server, and the store in it as a host sees it whose Node is not registered.
pub(crate) struct Nodes {
    pub(crate) server: ApiServer,
    pub(crate) files: TempDir,
    store: KubeStore,
    hands: Hands,
}

/// Who changes Nodes from outside.
struct Hands(Client);

impl Default for Nodes {
    fn default() -> Self {
        let server = ApiServer::alone().expect("a stand-in API server");
        let files = TempDir::new().expect("a folder");
        let options = KubeOptions {
            api_url: Some(server.url()),
            kubeconfig: None,
            node: NodeRef::Name("onlooker".to_owned()),
            annotation_prefix: PREFIX.to_owned(),
            net_config: files.path().join("net-conf.json"),
        };
        let config = kube::Config::new(server.url().parse().expect("a URL"));
        let hands = Hands(Client::try_from(config).expect("a client"));
        Self { server, files, store: KubeStore::new(options).expect("usable options"), hands }
    }
}

impl Nodes {
    /// Where the network configuration is.
    pub(crate) fn net_conf(&self) -> PathBuf {
        self.files.path().join("net-conf.json")
    }

    pub(crate) fn options(&self, node: &str) -> KubeOptions {
        KubeOptions {
            api_url: Some(self.server.url()),
            kubeconfig: None,
            node: NodeRef::Name(node.to_owned()),
            annotation_prefix: PREFIX.to_owned(),
            net_config: self.net_conf(),
        }
    }

    /// The store as the agent of a Node sees it.
    pub(crate) fn of(&self, node: &str) -> KubeStore {
        KubeStore::new(self.options(node)).expect("usable options")
    }
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

impl Bench for Nodes {
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
        let file = self.net_conf();
        match text {
            Some(text) => {
                let beside = file.with_extension("new");
                std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &file)).expect("a file");
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
