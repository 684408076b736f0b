//! Whatever a runtime gives the CNI plugin: it is refused in a short line, or what the delegate is told has this network's name and this
//! host's addresses, and nothing of what was given is lost.
#![no_main]

use lease::Mtu;
use libfuzzer_sys::fuzz_target;
use loden::cni::{NetConf, render};
use loden::subnet_env::{FamilyEnv, SubnetEnv};
use serde_json::Value;

fuzz_target!(|text: &[u8]| {
    let conf = match NetConf::parse(text) {
        Ok(conf) => conf,
        Err(failure) => {
            let said = failure.json("1.1.0");
            assert!(said.len() < 1_000 && said.lines().count() == 1, "{said}");
            return;
        }
    };
    let family = |network: &str, subnet: &str| Some(FamilyEnv { network: network.parse().ok()?, subnet: subnet.parse().ok()? });
    let (v4, v6) = (family("10.5.0.0/16", "10.5.52.0/24"), family("fd05::/48", "fd05:0:0:34::/64"));
    assert!(v4.is_some() && v6.is_some());
    for (v4, v6, ranges) in [(v4, None, 1), (None, v6, 1), (v4, v6, 2)] {
        let env = SubnetEnv { v4, v6, mtu: Mtu(1450), ip_masq: true };
        let told = render(&conf, &env);
        assert_eq!(told, render(&conf, &env));
        assert_eq!(told.get("name").and_then(Value::as_str), Some(conf.name.as_str()));
        let ipam = told.get("ipam").expect("an ipam");
        assert_eq!(ipam.get("ranges").and_then(Value::as_array).map(Vec::len), Some(ranges));
        let given = conf.ipam.get("routes").and_then(Value::as_array).map_or(0, Vec::len);
        assert_eq!(ipam.get("routes").and_then(Value::as_array).map(Vec::len), Some(given + ranges));
        let rendered = ["runtimeConfig", "cniVersion"];
        assert!(conf.delegate.iter().all(|(field, value)| rendered.contains(&field.as_str()) || told.get(field) == Some(value)));
        // What the delegate reads is what was meant.
        let text = Value::Object(told.clone()).to_string();
        assert_eq!(serde_json::from_str::<Value>(&text).ok(), Some(Value::Object(told)));
    }
});
