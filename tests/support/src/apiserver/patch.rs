//! JSON merge patch (RFC 7396), and as much of Kubernetes' strategic form as a Node's status needs.

use serde_json::{Map, Value};

/// How lists are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/merge-patch+json`: a list replaces a list.
    Merge,
    /// `application/strategic-merge-patch+json`: of a list of conditions, each is merged into the one of its type.
    Strategic,
}

/// Merges `patch` into `target`; a null deletes.
pub(super) fn merge(target: &mut Value, patch: &Value, form: Form) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
            continue;
        }
        let place = object.entry(name.clone()).or_insert(Value::Null);
        match (value, form) {
            (Value::Array(items), Form::Strategic) if name == "conditions" => merge_by_type(place, items),
            _ => merge(place, value, form),
        }
    }
}

fn merge_by_type(target: &mut Value, items: &[Value]) {
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(there) = target else { return };
    for item in items {
        match there.iter_mut().find(|other| other["type"] == item["type"]) {
            Some(other) => merge(other, item, Form::Strategic),
            None => there.push(item.clone()),
        }
    }
}
