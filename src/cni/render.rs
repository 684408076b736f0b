//! The delegate's configuration: what flannel's own plugin makes of the same words and the same subnet file. Pure.
//!
//! `tests/golden/cni` holds what that one wrote.

use lease::Subnet;
use serde_json::{Value, json};

use super::config::{NetConf, Object};
use crate::subnet_env::SubnetEnv;

/// Who makes the interface, unless another is given.
const BRIDGE: &str = "bridge";
/// Who gives the address, unless another is given.
const HOST_LOCAL: &str = "host-local";

/// The delegate's configuration on a host with this subnet.
#[must_use]
pub fn delegate(conf: &NetConf, env: &SubnetEnv) -> Object {
    let mut config = conf.delegate.clone();
    let mut put = |field: &str, value: Value| drop(config.insert(field.to_owned(), value));
    put("name", conf.name.as_str().into());
    put("ipam", ipam(conf, env).into());
    if !conf.version.is_empty() {
        put("cniVersion", conf.version.as_str().into());
    }
    if let Some(said) = &conf.runtime_config {
        put("runtimeConfig", said.clone());
    }
    let mut default = |field: &str, value: Value| config.entry(field).or_insert(value).clone();
    let kind = default("type", BRIDGE.into());
    // Where the agent masquerades, the bridge need not.
    default("ipMasq", (!env.ip_masq).into());
    default("mtu", env.mtu.0.into());
    if kind == BRIDGE {
        default("isGateway", true.into());
    }
    config
}

/// Addresses from this host's subnets, a range for each family, and routes to the whole networks.
fn ipam(conf: &NetConf, env: &SubnetEnv) -> Object {
    let mut ipam = conf.ipam.clone();
    let families = || [env.v4, env.v6].into_iter().flatten();
    let text = |subnet: Subnet| Value::from(subnet.to_string());
    let ranges: Vec<Value> = families().map(|family| json!([{ "subnet": text(family.subnet) }])).collect();
    ipam.insert("ranges".to_owned(), ranges.into());
    let networks = families().map(|family| json!({ "dst": text(family.network) }));
    if let Value::Array(routes) = ipam.entry("routes").or_insert(Value::Array(Vec::new())) {
        routes.extend(networks);
    }
    ipam.entry("type").or_insert(HOST_LOCAL.into());
    ipam
}
