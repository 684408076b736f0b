//! The network configuration that comes on standard input, checked: what else is in it is not the plugin's business.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::call::is_name;
use super::failure::{Code, Failure};

/// An object of JSON.
pub type Object = Map<String, Value>;

/// The largest configuration that is read (bytes): that of a GC names every attachment of a host, some 150 bytes each.
pub(super) const MOST: u64 = 4 * 1024 * 1024;

/// The field of a GC that names what there is.
pub(super) const ATTACHMENTS: &str = "cni.dev/valid-attachments";

const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_DIR: &str = "/var/lib/cni/flannel";

/// The plugin's part of a network configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct NetConf {
    /// CNI's version that it is of; empty where it does not say.
    pub version: String,
    /// The network's name.
    pub name: String,
    /// The agent's subnet file.
    pub subnet_file: PathBuf,
    /// Where the delegates' configurations are kept.
    pub data_dir: PathBuf,
    /// What the delegate's configuration begins with. Bears no name and no ipam; its type, if any, is a plugin's name.
    pub delegate: Object,
    /// What the delegate's ipam begins with. Its routes, if any, are a list.
    pub ipam: Object,
    /// What the runtime says of the container by the plugin's capabilities.
    pub runtime_config: Option<Value>,
    /// What ADD had printed.
    pub prev_result: Option<Value>,
    /// The attachments that there are, for GC: a list of objects, each with a containerID.
    pub attachments: Option<Value>,
}

impl NetConf {
    /// What standard input says.
    ///
    /// # Errors
    /// [`Code::Decode`] for what is no JSON, [`Code::Config`] for what cannot be used, with the field.
    pub fn parse(text: &[u8]) -> Result<Self, Failure> {
        let value: Value = serde_json::from_slice(text)
            .map_err(|error| Failure::new(Code::Decode, format!("the network configuration on standard input is no JSON: {error}")))?;
        let Value::Object(mut fields) = value else { return Err(wrong("the network configuration", &value, "an object")) };
        let name = string(&mut fields, "name")?.unwrap_or_default();
        if !is_name(&name) {
            let name: String = name.chars().take(64).collect();
            return Err(config(format!(
                "the network's name is {name:?}: letters, digits, _ . and - are wanted, the first a letter or a digit"
            )));
        }
        Ok(Self {
            version: string(&mut fields, "cniVersion")?.unwrap_or_default(),
            subnet_file: string(&mut fields, "subnetFile")?.filter(|path| !path.is_empty()).map_or(SUBNET_FILE.into(), PathBuf::from),
            data_dir: string(&mut fields, "dataDir")?.filter(|path| !path.is_empty()).map_or(DATA_DIR.into(), PathBuf::from),
            delegate: delegate(object(&mut fields, "delegate")?.unwrap_or_default())?,
            ipam: ipam(object(&mut fields, "ipam")?.unwrap_or_default())?,
            runtime_config: object(&mut fields, "runtimeConfig")?.map(Value::Object),
            prev_result: object(&mut fields, "prevResult")?.map(Value::Object),
            attachments: attachments(take(&mut fields, ATTACHMENTS))?,
            name,
        })
    }

    /// Whether a container is among the attachments that there are.
    #[must_use]
    pub fn is_attached(&self, container: &str) -> bool {
        self.attachments.as_ref().and_then(Value::as_array).into_iter().flatten().any(|one| container_of(one) == Some(container))
    }
}

fn delegate(fields: Object) -> Result<Object, Failure> {
    for (field, whence) in [("name", "the network's own is put there"), ("ipam", "it stands beside delegate")] {
        if fields.contains_key(field) {
            return Err(config(format!("delegate must not have {field}: {whence}")));
        }
    }
    match fields.get("type") {
        None => {}
        Some(Value::String(name)) if !name.is_empty() && !name.contains('/') => {}
        Some(Value::String(name)) => return Err(config(format!("delegate.type is {name:?}: the name of a plugin is wanted, no path"))),
        Some(other) => return Err(wrong("delegate.type", other, "a string")),
    }
    Ok(fields)
}

fn ipam(mut fields: Object) -> Result<Object, Failure> {
    match fields.get("routes") {
        None | Some(Value::Array(_)) => {}
        Some(Value::Null) => drop(fields.remove("routes")),
        Some(other) => return Err(wrong("ipam.routes", other, "a list")),
    }
    Ok(fields)
}

fn attachments(value: Option<Value>) -> Result<Option<Value>, Failure> {
    let Some(value) = value else { return Ok(None) };
    let Some(list) = value.as_array() else { return Err(wrong(ATTACHMENTS, &value, "a list")) };
    // One that is passed over would count as gone.
    if list.iter().any(|one| container_of(one).is_none()) {
        return Err(config(format!("{ATTACHMENTS} has one without containerID")));
    }
    Ok(Some(value))
}

fn container_of(attachment: &Value) -> Option<&str> {
    attachment.get("containerID")?.as_str()
}

/// A field taken out; null is none, as for Go.
fn take(fields: &mut Object, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| !value.is_null())
}

fn string(fields: &mut Object, name: &str) -> Result<Option<String>, Failure> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(name, &other, "a string")),
    }
}

fn object(fields: &mut Object, name: &str) -> Result<Option<Object>, Failure> {
    match take(fields, name) {
        None => Ok(None),
        Some(Value::Object(fields)) => Ok(Some(fields)),
        Some(other) => Err(wrong(name, &other, "an object")),
    }
}

fn config(message: String) -> Failure {
    Failure::new(Code::Config, message)
}

fn wrong(what: &str, value: &Value, wanted: &str) -> Failure {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    config(format!("{what} is {kind}, and {wanted} is wanted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_with_the_code_of_its_kind() {
        for (text, code, named) in [
            ("", Code::Decode, "no JSON"),
            ("{", Code::Decode, "no JSON"),
            ("[]", Code::Config, "is a list"),
            ("{}", Code::Config, "name"),
            (r#"{"name":""}"#, Code::Config, "name"),
            (r#"{"name":"../x"}"#, Code::Config, "name"),
            (r#"{"name":7}"#, Code::Config, "name is a number"),
            (r#"{"name":"n","cniVersion":1}"#, Code::Config, "cniVersion"),
            (r#"{"name":"n","delegate":[]}"#, Code::Config, "delegate is a list"),
            (r#"{"name":"n","delegate":{"name":"x"}}"#, Code::Config, "delegate must not have name"),
            (r#"{"name":"n","delegate":{"ipam":{}}}"#, Code::Config, "delegate must not have ipam"),
            (r#"{"name":"n","delegate":{"type":7}}"#, Code::Config, "delegate.type is a number"),
            (r#"{"name":"n","delegate":{"type":"../sh"}}"#, Code::Config, "no path"),
            (r#"{"name":"n","ipam":"host-local"}"#, Code::Config, "ipam is a string"),
            (r#"{"name":"n","ipam":{"routes":{}}}"#, Code::Config, "ipam.routes"),
            (r#"{"name":"n","subnetFile":{}}"#, Code::Config, "subnetFile"),
            (r#"{"name":"n","dataDir":1}"#, Code::Config, "dataDir"),
            (r#"{"name":"n","runtimeConfig":1}"#, Code::Config, "runtimeConfig"),
            (r#"{"name":"n","cni.dev/valid-attachments":[{}]}"#, Code::Config, "containerID"),
        ] {
            let failure = NetConf::parse(text.as_bytes()).unwrap_err();
            assert!(failure.code == code && failure.to_string().contains(named), "{text}: {failure:?}");
        }
    }

    #[test]
    fn what_is_not_given_or_null_has_its_default() {
        let bare = NetConf::parse(br#"{"name":"n"}"#).unwrap();
        assert_eq!((bare.subnet_file.to_str(), bare.data_dir.to_str()), (Some(SUBNET_FILE), Some(DATA_DIR)));
        let nulls = br#"{"name":"n","cniVersion":null,"subnetFile":"","dataDir":null,"delegate":null,"ipam":{"routes":null},"runtimeConfig":null,"prevResult":null,"cni.dev/valid-attachments":null}"#;
        assert_eq!(NetConf::parse(nulls).unwrap(), bare);
    }
}
