//! The HTTP side of a stand-in API server: one function that takes every request.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use super::patch::Form;
use super::refusal::Refusal;
use super::watch::Watching;

/// What is asked for, out of the request's query.
#[derive(Debug, Default)]
pub(super) struct Query {
    watch: bool,
    pub(super) bookmarks: bool,
    limit: usize,
    revision: Option<u64>,
    /// A list as a watch (`sendInitialEvents`), which an older server does not know either.
    streaming: bool,
    proceed: Option<String>,
    pub(super) seconds: Option<u64>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "watch" => query.watch = value == "true",
                "allowWatchBookmarks" => query.bookmarks = value == "true",
                "sendInitialEvents" => query.streaming = value == "true",
                "limit" => query.limit = value.parse().unwrap_or(0),
                "resourceVersion" => query.revision = value.parse().ok(),
                "continue" => query.proceed = Some(value.to_owned()),
                "timeoutSeconds" => query.seconds = value.parse().ok(),
                _ => (),
            }
        }
        query
    }
}

/// Answers one request.
pub(super) async fn answer(shared: Arc<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    shared.while_hanging().await;
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let query = Query::parse(uri.query().unwrap_or_default());
    shared.note_request(&method, uri.path(), query.watch);
    match route(&shared, &method, &path, query, &headers, &body) {
        Ok(response) => response,
        Err(refusal) => shared.json(refusal.code, &refusal.status()),
    }
}

fn route(
    shared: &Arc<Shared>,
    method: &Method,
    path: &[&str],
    query: Query,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Refusal> {
    let (verb, resource) = named(method, path, &query);
    shared.admit(verb, resource, headers)?;
    let given = || serde_json::from_slice::<Value>(body).map_err(|error| Refusal::invalid(&error.to_string()));
    match (verb, path) {
        (_, ["healthz" | "readyz" | "livez"]) => Ok("ok".into_response()),
        ("list", ["api", "v1", "nodes"]) => list(shared, &query),
        ("watch", ["api", "v1", "nodes"]) if query.streaming => Err(Refusal::invalid("sendInitialEvents: Forbidden")),
        ("watch", ["api", "v1", "nodes"]) => {
            let from = query.revision.unwrap_or(0);
            Ok(Watching::new(Arc::clone(shared), from, &query).response())
        }
        ("create", ["api", "v1", "nodes"]) => {
            let mut node = given()?;
            if let Some(metadata) = node.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("creationTimestamp");
            }
            shared.write(|world| world.create(node))
        }
        ("get", ["api", "v1", "nodes", name]) => Ok(shared.json(200, &shared.world().node(name)?)),
        ("delete", ["api", "v1", "nodes", name]) => shared.write(|world| world.delete(name)),
        ("patch", ["api", "v1", "nodes", name, rest @ ..]) => {
            let form = match headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes()) {
                Some(b"application/merge-patch+json") => Form::Merge,
                Some(b"application/strategic-merge-patch+json") => Form::Strategic,
                other => return Err(Refusal::unsupported(&format!("{other:?}"))),
            };
            let patch = given()?;
            shared.write(|world| world.patch(name, &patch, form, rest == ["status"]))
        }
        ("get", ["api", "v1", "namespaces", namespace, "pods", name]) => {
            let world = shared.world();
            let node = world.pods.get(&format!("{namespace}/{name}")).ok_or_else(|| Refusal::not_found("pods", name))?;
            Ok(shared.json(200, &json!({ "metadata": { "name": name, "namespace": namespace }, "spec": { "nodeName": node } })))
        }
        ("create", ["api", "v1", "namespaces", _, "events"]) => {
            let event = given()?;
            shared.write(|world| {
                world.events.push(event.clone());
                Ok(event)
            })
        }
        _ => Err(Refusal::not_found("paths", &path.join("/"))),
    }
}

/// The verb and the resource as RBAC names them.
fn named<'a>(method: &Method, path: &[&'a str], query: &Query) -> (&'static str, &'a str) {
    let (resource, one) = match path {
        ["api", "v1", "namespaces", _, resource, rest @ ..] | ["api", "v1", resource, rest @ ..] => (*resource, rest),
        _ => ("", path),
    };
    let verb = match *method {
        Method::GET if query.watch => "watch",
        Method::GET if one.is_empty() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    };
    let status = one.last() == Some(&"status");
    (verb, if status && resource == "nodes" { "nodes/status" } else { resource })
}

/// A page of the Nodes. The token to go on with is the revision and the last name, since names have neither colon nor percent.
fn list(shared: &Shared, query: &Query) -> Result<Response, Refusal> {
    let page = {
        let world = shared.world();
        let (at, after) = match query.proceed.as_deref().map(|token| token.split_once('.')) {
            Some(Some((at, after))) => (at.parse().unwrap_or(0), Some(after)),
            Some(None) => return Err(Refusal::gone("invalid continue token")),
            None => (world.revision, None),
        };
        world.page(at, after, query.limit)?
    };
    let mut text = String::from(r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":""#);
    text.push_str(&page.revision.to_string());
    text.push('"');
    if let Some(next) = &page.next {
        text.push_str(&format!(r#","continue":"{}.{next}""#, page.revision));
    }
    text.push_str(r#"},"items":["#);
    for (index, node) in page.nodes.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        text.push_str(node);
    }
    text.push_str("]}");
    if shared.faults().cuts_this_page() {
        text.truncate(text.len() / 2);
        return Ok(cut_off(text));
    }
    Ok(shared.text(200, text))
}

/// An answer whose connection breaks where it ends.
pub(super) fn cut_off(text: String) -> Response {
    let pieces = [Ok(Bytes::from(text)), Err(io::Error::other("cut off by the test"))];
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
