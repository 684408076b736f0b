use super::*;

fn read(text: &str) -> NetworkConfig {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    text.parse::<NetworkConfig>().expect_err(text).to_string()
}

fn v4(text: &str) -> (String, u8, String, String) {
    shown(read(text).v4.unwrap())
}

fn v6(text: &str) -> (String, u8, String, String) {
    shown(read(&format!(r#"{{"EnableIPv4":false,"EnableIPv6":true,{text}}}"#)).v6.unwrap())
}

fn shown(pool: Pool) -> (String, u8, String, String) {
    (pool.network.to_string(), pool.subnet_len, pool.min.to_string(), pool.max.to_string())
}

fn pool(network: &str, len: u8, min: &str, max: &str) -> (String, u8, String, String) {
    (network.into(), len, min.into(), max.into())
}

fn vxlan(backend: &str) -> VxlanConfig {
    match read(&format!(r#"{{"Network":"10.5.0.0/16","Backend":{backend}}}"#)).backend {
        Backend::Vxlan(vxlan) => vxlan,
        other => panic!("{other}"),
    }
}

#[test]
fn every_configuration_that_flanneld_ran_with_is_read() {
    for case in
        ["alloc", "host-gw", "vxlan-direct-routing", "vxlan-dual", "vxlan-ipv4-options", "vxlan-ipv4", "vxlan-ipv6-only", "vxlan-nftables"]
    {
        let path = format!("{}/tests/golden/{case}/config.json", env!("CARGO_MANIFEST_DIR"));
        let config = read(&std::fs::read_to_string(path).unwrap());
        assert_eq!(config.nftables, case == "vxlan-nftables");
        assert_eq!(config.v4.is_none(), case == "vxlan-ipv6-only");
    }
}

#[test]
fn the_subnet_length_is_24_or_two_more_than_a_small_network() {
    assert_eq!(v4(r#"{"Network":"10.5.0.0/16"}"#), pool("10.5.0.0/16", 24, "10.5.1.0/24", "10.5.255.0/24"));
    assert_eq!(v4(r#"{"Network":"10.5.0.0/22"}"#), pool("10.5.0.0/22", 24, "10.5.1.0/24", "10.5.3.0/24"));
    assert_eq!(v4(r#"{"Network":"10.5.0.0/23"}"#), pool("10.5.0.0/23", 25, "10.5.0.128/25", "10.5.1.128/25"));
    assert_eq!(v4(r#"{"Network":"10.5.0.0/28"}"#), pool("10.5.0.0/28", 30, "10.5.0.4/30", "10.5.0.12/30"));
    assert_eq!(v4(r#"{"Network":"64.0.0.0/2"}"#).1, 24);
}

#[test]
fn in_ipv6_the_subnet_length_is_64_or_two_more() {
    assert_eq!(v6(r#""IPv6Network":"fc00::/48""#), pool("fc00::/48", 64, "fc00:0:0:1::/64", "fc00:0:0:ffff::/64"));
    assert_eq!(v6(r#""IPv6Network":"fc00::/62""#).1, 64);
    assert_eq!(v6(r#""IPv6Network":"fc00::/63""#).1, 65);
    assert_eq!(v6(r#""IPv6Network":"fc00::/124""#), pool("fc00::/124", 126, "fc00::4/126", "fc00::c/126"));
    assert_eq!(v6(r#""IPv6Network":"::/0","IPv6SubnetLen":126"#).1, 126);
    for network in ["0.0.0.0/0", "127.0.0.0/8", "224.0.0.0/8", "240.0.0.0/8"] {
        assert!(refused(&format!(r#"{{"Network":"{network}"}}"#)).contains("no host can have such an address"), "{network}");
    }
    let small = refused(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/125"}"#);
    assert_eq!(small, "IPv6Network is fc00::/125: it has to be a /124 or larger to have room for subnets");
    let long = refused(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/64","IPv6SubnetLen":127}"#);
    assert_eq!(long, "IPv6SubnetLen is 127: 66 to 126 are possible");
}

#[test]
fn a_network_smaller_than_28_is_refused() {
    assert_eq!(refused(r#"{"Network":"10.5.0.0/29"}"#), "Network is 10.5.0.0/29: it has to be a /28 or larger to have room for subnets");
}

#[test]
fn the_subnet_length_lies_between_network_plus_two_and_30() {
    assert_eq!(v4(r#"{"Network":"10.5.0.0/16","SubnetLen":18}"#).1, 18);
    assert_eq!(v4(r#"{"Network":"10.5.0.0/16","SubnetLen":30}"#).1, 30);
    assert_eq!(v4(r#"{"Network":"10.5.0.0/16","SubnetLen":0}"#).1, 24);
    let large = refused(r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#);
    assert_eq!(large, "SubnetLen is 17: in 10.5.0.0/16 it has to be 18 or more, so that more than two subnets fit");
    for len in ["31", "256", "-1", "9223372036854775807"] {
        let error = refused(&format!(r#"{{"Network":"10.5.0.0/16","SubnetLen":{len}}}"#));
        assert_eq!(error, format!("SubnetLen is {len}: 18 to 30 are possible"));
    }
}

#[test]
fn bounds_lie_in_the_network_on_a_boundary_and_in_order() {
    let with = |bounds: &str| format!(r#"{{"Network":"10.5.0.0/16",{bounds}}}"#);
    let given = v4(&with(r#""SubnetMin":"10.5.10.0","SubnetMax":"10.5.99.0""#));
    assert_eq!(given, pool("10.5.0.0/16", 24, "10.5.10.0/24", "10.5.99.0/24"));
    assert_eq!(v4(&with(r#""SubnetMin":"10.5.0.0","SubnetMax":"10.5.0.0""#)).3, "10.5.0.0/24");
    for (bounds, error) in [
        (r#""SubnetMin":"10.6.0.0""#, "SubnetMin is 10.6.0.0, which does not lie in 10.5.0.0/16"),
        (r#""SubnetMax":"10.4.255.0""#, "SubnetMax is 10.4.255.0, which does not lie in 10.5.0.0/16"),
        (r#""SubnetMin":"fc00::""#, "SubnetMin is fc00::, which does not lie in 10.5.0.0/16"),
        (r#""SubnetMin":"10.5.10.1""#, "SubnetMin is 10.5.10.1, which is not the beginning of a subnet of length 24"),
        (r#""SubnetMax":"10.5.255.255""#, "SubnetMax is 10.5.255.255, which is not the beginning of a subnet of length 24"),
        (r#""SubnetMin":"10.5.10.0/24""#, "SubnetMin is \"10.5.10.0/24\", which is not an IP address"),
        (r#""SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0""#, "SubnetMin is 10.5.9.0/24, which lies behind the last subnet, 10.5.8.0/24"),
    ] {
        assert_eq!(refused(&with(bounds)), error);
    }
}

#[test]
fn in_ipv6_too() {
    let with = |bounds: &str| format!(r#"{{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48",{bounds}}}"#);
    let config = read(&with(r#""IPv6SubnetMin":"fc00:0:0:10::","IPv6SubnetMax":"fc00:0:0:20::""#));
    assert_eq!(shown(config.v6.unwrap()), pool("fc00::/48", 64, "fc00:0:0:10::/64", "fc00:0:0:20::/64"));
    assert!(refused(&with(r#""IPv6SubnetMin":"fc01::""#)).starts_with("IPv6SubnetMin is fc01::, which does not lie in"));
    assert!(refused(&with(r#""IPv6SubnetMax":"fc00::1""#)).starts_with("IPv6SubnetMax is fc00::1, which is not the beginning"));
}

#[test]
fn a_network_must_be_there_for_each_family_that_is_on() {
    assert_eq!(refused("{}"), "Network is missing");
    assert_eq!(refused(r#"{"Network":null}"#), "Network is missing");
    assert_eq!(refused(r#"{"Network":"10.5.0.0/16","EnableIPv6":true}"#), "IPv6Network is missing");
    assert!(refused(r#"{"EnableIPv4":false,"Network":"10.5.0.0/16"}"#).starts_with("EnableIPv4 is false and EnableIPv6 is not true"));
    assert_eq!(read(r#"{"Network":"10.5.0.0/16","IPv6Network":"rubbish"}"#).v6, None);
}

#[test]
fn a_network_that_is_none_is_refused_and_host_bits_are_dropped() {
    assert_eq!(v4(r#"{"Network":"10.5.3.7/16"}"#).0, "10.5.0.0/16");
    for bad in ["10.5.0.0", "10.5.0.0/255.255.0.0", "10.5.0.0/+16", "10.5.0.0/33", "rubbish"] {
        assert!(refused(&format!(r#"{{"Network":"{bad}"}}"#)).starts_with("Network: "), "{bad}");
    }
    assert_eq!(refused(r#"{"Network":"fc00::/16"}"#), "Network is fc00::/16, which is of the other address family");
}

#[test]
fn keys_match_in_any_case_at_every_level_and_the_last_wins() {
    let config =
        read(r#"{"network":"10.9.0.0/16","NETWORK":"10.5.0.0/16","x":{},"backend":{"TYPE":"VXLAN","vni":7,"Vni":8,"directrouting":true}}"#);
    assert_eq!(config.v4.unwrap().network.to_string(), "10.5.0.0/16");
    let Backend::Vxlan(vxlan) = config.backend else { panic!("{}", config.backend) };
    assert_eq!((vxlan.vni.get(), vxlan.direct_routing), (8, true));
}

#[test]
fn without_a_backend_it_is_vxlan_with_the_kernels_port() {
    let default = VxlanConfig { vni: Vni::new(1).unwrap(), port: 8472, gbp: false, learning: false, direct_routing: false, mtu: None };
    assert_eq!(read(r#"{"Network":"10.5.0.0/16"}"#).backend, Backend::Vxlan(default));
    assert_eq!(vxlan(r#"{"Port":0,"MTU":0,"MacPrefix":"0E-2A","Name":"n"}"#), default);
}

#[test]
fn the_backends_numbers_are_checked() {
    let full = vxlan(r#"{"Type":"vxlan","VNI":16777215,"Port":65535,"GBP":true,"Learning":true,"MTU":1400}"#);
    assert_eq!((full.vni.get(), full.port, full.gbp, full.learning, full.mtu), (16_777_215, 65_535, true, true, Some(Mtu(1400))));
    assert_eq!((vxlan(r#"{"MTU":118}"#).mtu, vxlan(r#"{"VNI":0}"#).vni.get()), (Some(Mtu(118)), 0));
    for (field, wrong, range) in [
        ("VNI", "16777216", "0 to 16777215"),
        ("VNI", "-1", "0 to 16777215"),
        ("Port", "65536", "0 to 65535"),
        ("MTU", "117", "118 to 65535"),
        ("MTU", "65536", "118 to 65535"),
        ("MTU", "-1400", "118 to 65535"),
    ] {
        let error = refused(&format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"{field}":{wrong}}}}}"#));
        assert_eq!(error, format!("Backend.{field} is {wrong}: {range} are possible"));
    }
}

#[test]
fn other_backends_do_not_look_at_vxlans_settings() {
    let backend = |text: &str| read(&format!(r#"{{"Network":"10.5.0.0/16","Backend":{text}}}"#)).backend;
    assert_eq!(backend(r#"{"Type":"host-gw","VNI":"x"}"#), Backend::HostGw);
    assert_eq!(backend(r#"{"Type":"Alloc"}"#), Backend::Alloc);
    let error = refused(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"wireguard"}}"#);
    assert_eq!(error, "Backend.Type is \"wireguard\", which is not supported: vxlan, host-gw and alloc are");
}

#[test]
fn what_is_no_json_says_where() {
    for (text, part) in
        [("", "EOF"), ("[]", "an object"), (r#"{"Network":16}"#, "Network: invalid type"), (r#"{"Network":"10.5.0.0/16"}}"#, "trailing")]
    {
        let error = refused(text);
        assert!(error.starts_with("not a network configuration: ") && error.contains(part) && error.contains("line 1"), "{error}");
    }
}
