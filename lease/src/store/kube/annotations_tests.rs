use super::*;

/// What flanneld has written on a Node of a dual-stack cluster.
const FLANNELS: &str = include_str!("../../../tests/golden/kube/node1.json");

fn names() -> Names {
    Names::new("flannel.alpha.coreos.com").unwrap()
}

fn node(metadata: &Value) -> Node {
    let annotations = &metadata["annotations"];
    let metadata = json!({ "name": "n1", "uid": "0a", "resourceVersion": "7", "creationTimestamp": "2026-11-20T21:48:50Z", "annotations": annotations });
    serde_json::from_value(json!({ "metadata": metadata, "spec": { "podCIDR": "10.244.1.0/24" } })).unwrap()
}

fn record(annotations: Value) -> Result<LeaseRecord, String> {
    match names().read(&node(&json!({ "annotations": annotations }))) {
        Said::Lease(entry) => entry.record.map_err(|error| error.to_string()),
        said => panic!("{said:?}"),
    }
}

fn annotated(pairs: &[(&str, &str)]) -> Value {
    let own = pairs.iter().map(|(end, value)| (format!("flannel.alpha.coreos.com/{end}"), json!(value)));
    Value::Object(own.chain([("flannel.alpha.coreos.com/kube-subnet-manager".to_owned(), json!("true"))]).collect())
}

#[test]
fn what_flanneld_writes_is_read_and_written_the_same() {
    let golden: Value = serde_json::from_str(FLANNELS).unwrap();
    let node: Node =
        serde_json::from_value(json!({ "metadata": { "name": "n1", "annotations": golden["annotations"] }, "spec": golden["spec"] }))
            .unwrap();
    let Said::Lease(entry) = names().read(&node) else { panic!("no lease") };
    assert_eq!(entry.key.to_string(), "10.244.1.0-24&fc00:244:1::-64");
    let record = entry.record.unwrap();
    assert_eq!((record.public_ip, record.public_ipv6), ("192.168.77.1".parse().ok(), "fd77::1".parse().ok()));
    let vtep = record.vtep.unwrap();
    assert_eq!((vtep.vni.get(), vtep.mac.to_string().as_str()), (1, "b2:0e:c1:b3:1c:c5"));
    let mut flannels = golden["annotations"].clone();
    flannels.as_object_mut().unwrap().retain(|name, _| name.starts_with("flannel."));
    assert_eq!(names().patch(&node, &record), flannels);
}

#[test]
fn a_node_without_the_annotation_is_no_peer() {
    for managed in ["false", "", "TRUE"] {
        let annotations =
            json!({ "flannel.alpha.coreos.com/kube-subnet-manager": managed, "flannel.alpha.coreos.com/public-ip": "192.0.2.1" });
        assert_eq!(names().read(&node(&json!({ "annotations": annotations }))), Said::Nothing);
    }
}

#[test]
fn an_address_that_a_person_overwrites_is_told_in_its_place_and_written_so() {
    let annotations = annotated(&[("public-ip", "192.0.2.1"), ("public-ip-overwrite", "203.0.113.1"), ("backend-type", "host-gw")]);
    let read = record(annotations.clone()).unwrap();
    assert_eq!(read.public_ip, "203.0.113.1".parse().ok());
    let own = LeaseRecord { public_ip: "192.0.2.1".parse().ok(), ..read };
    let patch = names().patch(&node(&json!({ "annotations": annotations })), &own);
    assert_eq!(patch["flannel.alpha.coreos.com/public-ip"], "203.0.113.1");
    assert_eq!(patch.get("flannel.alpha.coreos.com/public-ip-overwrite"), None, "it is a person's");
}

#[test]
fn what_cannot_be_read_is_told_with_node_and_annotation() {
    for (pairs, said) in [
        (&[("public-ip", "10.0.0")][..], "annotations of Node n1: public-ip is \"10.0.0\""),
        (&[("backend-type", "vxlan")], "annotations of Node n1: lacks public-ip"),
        (
            &[("public-ip", "192.0.2.1"), ("backend-type", "vxlan"), ("backend-data", "{")],
            "annotations of Node n1: not a lease record: backend-data",
        ),
        (&[("public-ip", "192.0.2.1"), ("backend-type", "vxlan"), ("backend-data", r#"{"VNI":1,"VtepMAC":"x"}"#)], "VtepMAC is \"x\""),
        (&[("public-ip", "192.0.2.1"), ("public-ipv6-overwrite", "x")], "public-ipv6 is \"x\""),
    ] {
        let error = record(annotated(pairs)).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn data_that_a_backend_has_none_of_is_null() {
    let read = record(annotated(&[("public-ip", "192.0.2.1"), ("backend-type", "vxlan"), ("backend-data", "null")])).unwrap();
    assert_eq!((read.backend.clone(), read.vtep), (BackendType::Vxlan, None));
    let host_gw = LeaseRecord { backend: BackendType::HostGw, ..read };
    let patch = names().patch(&Node::default(), &host_gw);
    assert_eq!(
        (&patch["flannel.alpha.coreos.com/backend-data"], &patch["flannel.alpha.coreos.com/backend-v6-data"]),
        (&json!("null"), &Value::Null)
    );
    assert_eq!(patch["flannel.alpha.coreos.com/public-ipv6"], Value::Null, "what the other family has left goes");
}

#[test]
fn a_prefix_is_taken_as_flannel_takes_it() {
    for (prefix, full) in [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/kube-subnet-manager"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/kube-subnet-manager"),
        ("example.com/my", "example.com/my-kube-subnet-manager"),
        ("example.com/my-", "example.com/my-kube-subnet-manager"),
    ] {
        assert_eq!(Names::new(prefix).unwrap().managed, full);
    }
    for bad in ["", "flannel", "a.b/c/d", "A.b", "a..b", "a.b/c d"] {
        assert!(Names::new(bad).is_err(), "{bad:?} was taken");
    }
}

#[test]
fn what_a_person_says_of_the_addresses_is_read_and_rubbish_is_named() {
    let read = |pairs: &[(&str, &str)]| names().own_addresses(&node(&json!({ "annotations": annotated(pairs) })));
    let wanted = OwnAddresses { ip: "192.0.2.7".parse().ok(), overwrite_ipv6: "fd00::7".parse().ok(), ..OwnAddresses::default() };
    assert_eq!(read(&[("node-public-ip", "192.0.2.7"), ("public-ipv6-overwrite", "fd00::7")]), Ok(wanted));
    let error = read(&[("node-public-ipv6", "192.0.2.7")]).unwrap_err().to_string();
    assert!(error.contains("Node n1") && error.contains("flannel.alpha.coreos.com/node-public-ipv6"), "{error}");
}
