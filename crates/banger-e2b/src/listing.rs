//! Lists of sandboxes: filters, order and pages.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use banger_api::vm::{VmState, VmSummary};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::rest::{ENVD_VERSION, json};
use crate::sandboxes::Sandbox;
use crate::server::Server;

/// Sandboxes of a page without another limit.
const PAGE: usize = 100;

/// Parameters of a list.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Listing {
    metadata: Option<String>,
    state: Option<String>,
    template: Option<String>,
    started_after: Option<String>,
    order: Option<String>,
    limit: Option<usize>,
    next_token: Option<usize>,
}

/// A sandbox in a list.
pub fn listed(server: &Server, sandbox: &Sandbox, vm: &VmSummary) -> Value {
    let left = SignedDuration::try_from(sandbox.left()).unwrap_or_default();
    let end = Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX);
    let disk = vm.disk.as_ref().map_or(0, |disk| disk.root_bytes >> 20);
    json!({
        "sandboxID": sandbox.id(),
        "templateID": sandbox.wanted.template,
        "alias": sandbox.wanted.template,
        "clientID": server.id,
        "startedAt": sandbox.started.to_string(),
        "endAt": end.to_string(),
        "cpuCount": vm.vcpus.unwrap_or(0),
        "memoryMB": vm.memory_mib.unwrap_or(0),
        "diskSizeMB": disk,
        "state": if vm.state == VmState::Paused { "paused" } else { "running" },
        "envdVersion": ENVD_VERSION,
        "metadata": sandbox.wanted.metadata,
    })
}

/// Answers a request for a list.
///
/// # Errors
/// A malformed parameter; the daemon's.
pub async fn list(server: &Server, uri: &Uri) -> Result<Response, Failure> {
    let Query(wanted) = Query::<Listing>::try_from_uri(uri)
        .map_err(|error| Failure::invalid(format!("the list: {error}")))?;
    let metadata = pairs(wanted.metadata.as_deref().unwrap_or_default());
    let after: Option<Timestamp> = wanted
        .started_after
        .map(|text| text.parse())
        .transpose()
        .map_err(|error| Failure::invalid(format!("`startedAfter`: {error}")))?;
    let machines: BTreeMap<String, VmSummary> = {
        let vms = server.client.vms().await?;
        vms.into_iter().map(|vm| (vm.id.to_string(), vm)).collect()
    };
    let mut found: Vec<(Timestamp, Value)> = Vec::new();
    for sandbox in server.sandboxes.all() {
        let Some(vm) = machines.get(sandbox.id()) else {
            server.sandboxes.forget(sandbox.id());
            continue;
        };
        let value = listed(server, &sandbox, vm);
        let states = wanted.state.as_deref().unwrap_or_default();
        let has = |(key, value): &(String, String)| sandbox.wanted.metadata.get(key) == Some(value);
        let is_wanted = metadata.iter().all(has)
            && (states.is_empty() || states.split(',').any(|state| value["state"] == state))
            && wanted.template.as_deref().is_none_or(|name| sandbox.wanted.template == name)
            && after.is_none_or(|time| sandbox.started > time);
        if is_wanted {
            found.push((sandbox.started, value));
        }
    }
    found.sort_by_key(|(started, _)| *started);
    if wanted.order.as_deref() != Some("asc") {
        found.reverse();
    }
    let (begin, limit) =
        (wanted.next_token.unwrap_or(0), wanted.limit.unwrap_or(PAGE).clamp(1, PAGE));
    let total = found.len();
    let page: Vec<Value> =
        found.into_iter().skip(begin).take(limit).map(|(_, value)| value).collect();
    let next = begin.saturating_add(page.len());
    let mut response = json(StatusCode::OK, &Value::Array(page));
    if let (true, Ok(token)) = (next < total, HeaderValue::from_str(&next.to_string())) {
        response.headers_mut().insert(HeaderName::from_static("x-next-token"), token);
    }
    Ok(response)
}

/// The pairs of a filter: `KEY=VALUE&…`, both encoded twice.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(&decoded(key)), decoded(&decoded(value)))).collect()
}

/// A percent-encoded text, decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (other, _) => {
                bytes.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_encoded_twice() {
        let found = pairs("team=a%2520b%2526c&x=%252B");
        assert_eq!(found, [("team".into(), "a b&c".into()), ("x".into(), "+".into())]);
        assert_eq!(decoded("a%2"), "a%2");
    }
}
