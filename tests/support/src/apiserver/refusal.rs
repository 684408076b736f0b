//! What the API server says when it does not do what it is asked: a `Status` object.

use serde_json::{Value, json};

/// A refusal, in the server's own words.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message }
    }

    pub(super) fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} {name:?} not found"))
    }

    pub(super) fn already_exists(resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} {name:?} already exists"))
    }

    pub(super) fn conflict(name: &str) -> Self {
        let said = "the object has been modified; please apply your changes to the latest version and try again";
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on nodes {name:?}: {said}"))
    }

    pub(super) fn gone(why: &str) -> Self {
        Self::new(410, "Expired", why.to_owned())
    }

    pub(super) fn invalid(why: &str) -> Self {
        Self::new(422, "Invalid", why.to_owned())
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    pub(super) fn forbidden(verb: &str, resource: &str) -> Self {
        let user = "system:serviceaccount:kube-flannel:flannel";
        let message =
            format!("{resource} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group \"\" at the cluster scope");
        Self::new(403, "Forbidden", message)
    }

    pub(super) fn unsupported(what: &str) -> Self {
        Self::new(415, "UnsupportedMediaType", format!("the stand-in does not know {what}"))
    }

    pub(super) fn on_demand(code: u16) -> Self {
        Self::new(code, "InternalError", "the test wants it so".to_owned())
    }

    pub(super) fn status(&self) -> Value {
        let Self { code, reason, message } = self;
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code })
    }
}
