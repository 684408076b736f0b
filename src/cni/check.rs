//! The result of an ADD, made ready for CHECK.
//!
//! host-local names no gateway for our routes, and the delegate then puts them by way of the address's own. Standard plugins older than
//! 1.3.0 look for exactly what the result says, find no route without a gateway, and fail (containernetworking/plugins#887); CRI-O calls
//! CHECK for every pod. With the gateway named, old and new ones look for the route that is there.

use serde_json::Value;

/// The result with a gateway for each route that has none: that of the address of its family.
#[must_use]
pub(super) fn with_gateways(mut result: Value) -> Value {
    let addresses = result.get("ips").and_then(Value::as_array).cloned().unwrap_or_default();
    let gateways: Vec<String> = addresses.iter().filter_map(|address| Some(address.get("gateway")?.as_str()?.to_owned())).collect();
    for route in result.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(fields) = route.as_object_mut().filter(|fields| !fields.contains_key("gw")) else { continue };
        let Some(v6) = fields.get("dst").and_then(Value::as_str).map(is_v6) else { continue };
        if let Some(gateway) = gateways.iter().find(|gateway| is_v6(gateway) == v6) {
            fields.insert("gw".to_owned(), gateway.as_str().into());
        }
    }
    result
}

fn is_v6(text: &str) -> bool {
    text.contains(':')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_without_a_gateway_gets_its_familys_and_all_else_stays() {
        let ips = json!([{ "address": "10.5.52.2/24", "gateway": "10.5.52.1" }, { "address": "fd05::2/64", "gateway": "fd05::1" }]);
        let routes = json!([{ "dst": "10.5.0.0/16" }, { "dst": "fd05::/48" }, { "dst": "10.9.0.0/16", "gw": "10.5.52.9" }]);
        let result = with_gateways(json!({ "ips": ips, "routes": routes, "dns": {} }));
        let wanted = json!([
            { "dst": "10.5.0.0/16", "gw": "10.5.52.1" },
            { "dst": "fd05::/48", "gw": "fd05::1" },
            { "dst": "10.9.0.0/16", "gw": "10.5.52.9" }
        ]);
        assert_eq!(result, json!({ "ips": ips, "routes": wanted, "dns": {} }));
        for odd in [json!({}), json!({ "ips": 1, "routes": [1, { "dst": 2 }] }), json!({ "routes": [{ "dst": "10.0.0.0/8" }] })] {
            assert_eq!(with_gateways(odd.clone()), odd);
        }
    }
}
