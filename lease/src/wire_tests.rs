use proptest::prelude::*;

use super::*;
use crate::{Boot, Owner};

fn decode(text: &str) -> Result<LeaseRecord, RecordError> {
    LeaseRecord::decode(text.as_bytes())
}

#[test]
fn what_flanneld_wrote_is_read_and_written_byte_for_byte() {
    let mut seen = 0;
    for case in
        ["alloc", "host-gw", "vxlan-direct-routing", "vxlan-dual", "vxlan-ipv4-options", "vxlan-ipv4", "vxlan-ipv6-only", "vxlan-nftables"]
    {
        let path = format!("{}/tests/golden/{case}/etcd.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        for value in text.lines().filter(|line| line.starts_with('{')) {
            assert_eq!(decode(value).unwrap().encode(), value, "{case}");
            seen += 1;
        }
    }
    assert_eq!(seen, 15);
}

#[test]
fn the_owner_comes_last() {
    let text = r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4a:d0:4b:61:b4:99"},"Owner":"00112233445566778899aabbccddeeff"}"#;
    let record = decode(text).unwrap();
    assert_eq!(record.owner.unwrap().to_string(), "00112233445566778899aabbccddeeff");
    assert_eq!(record.encode(), text);
}

#[test]
fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
    let record =
        decode(r#"{"publicip":"192.0.2.1","X":[{}],"backendType":"vxlan","BACKENDDATA":{"vni":3,"vtepmac":"4A:D0:4B:61:B4:99","Z":0}}"#);
    let vtep = record.unwrap().vtep.unwrap();
    assert_eq!((vtep.vni.get(), vtep.mac.to_string().as_str()), (3, "4a:d0:4b:61:b4:99"));
}

#[test]
fn a_backend_type_that_is_missing_is_alloc_and_anothers_data_is_not_read() {
    assert_eq!(decode(r#"{"PublicIP":"192.0.2.1"}"#).unwrap().backend, BackendType::Alloc);
    let other = decode(r#"{"PublicIP":"192.0.2.1","BackendType":"wireguard","BackendData":{"VNI":"x","PublicKey":"k"}}"#).unwrap();
    assert_eq!((other.backend, other.vtep), (BackendType::Other("wireguard".into()), None));
}

#[test]
fn the_address_0_0_0_0_stands_for_none_where_there_is_an_ipv6_one() {
    let record = decode(r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd77::2"}"#).unwrap();
    assert_eq!((record.public_ip, record.public_ipv6), (None, Some("fd77::2".parse().unwrap())));
    assert!(decode(r#"{"PublicIP":"0.0.0.0","PublicIPv6":null}"#).unwrap_err().to_string().starts_with("PublicIP is \"0.0.0.0\""));
}

#[test]
fn what_is_no_record_says_which_field() {
    let vxlan = |data: &str| format!(r#"{{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{data}}}"#);
    for (text, error) in [
        ("x".to_owned(), "not a lease record: expected value"),
        ("{}".to_owned(), "lacks PublicIP"),
        (r#"{"PublicIP":7}"#.to_owned(), "not a lease record: PublicIP: invalid type"),
        (r#"{"PublicIP":"192.0.2"}"#.to_owned(), "PublicIP is \"192.0.2\": invalid IPv4"),
        (r#"{"PublicIP":"192.0.2.1","PublicIPv6":"192.0.2.1"}"#.to_owned(), "PublicIPv6 is \"192.0.2.1\": invalid IPv6"),
        (vxlan("7"), "not a lease record: BackendData: invalid type"),
        (vxlan(r#"{"VNI":1}"#), "lacks VtepMAC"),
        (vxlan(r#"{"VtepMAC":"4a:d0:4b:61:b4:99"}"#), "lacks VNI"),
        (vxlan(r#"{"VNI":1,"VtepMAC":""}"#), "VtepMAC is \"\":"),
        (vxlan(r#"{"VNI":16777216,"VtepMAC":"4a:d0:4b:61:b4:99"}"#), "VNI is \"16777216\": 0 to 16777215"),
    ] {
        let got = decode(&text).expect_err(&text).to_string();
        assert!(got.starts_with(error), "{text}: {got}");
    }
}

fn vteps() -> impl Strategy<Value = Option<VtepData>> {
    prop::option::of(
        (0..=u64::from(Vni::MAX), any::<[u8; 6]>()).prop_map(|(vni, mac)| VtepData { vni: Vni::new(vni).unwrap(), mac: MacAddr::new(mac) }),
    )
}

prop_compose! {
    fn records()(
        v4 in 1u32.., v6 in prop::option::of(any::<u128>()), only_v6 in any::<bool>(), kind in 0..4u8,
        vtep in vteps(), vtep_v6 in vteps(), owner in prop::option::of(any::<[u8; 16]>()), name in "[a-z\"\\\\é]{1,9}",
    ) -> LeaseRecord {
        let (backend, vtep, vtep_v6) = match kind {
            0 => (BackendType::Vxlan, vtep, vtep_v6),
            1 => (BackendType::HostGw, None, None),
            2 => (BackendType::Alloc, None, None),
            _ => (BackendType::named(&name), None, None),
        };
        LeaseRecord {
            public_ip: (!only_v6 || v6.is_none()).then_some(Ipv4Addr::from_bits(v4)),
            public_ipv6: v6.map(Ipv6Addr::from_bits),
            backend, vtep, vtep_v6, owner: owner.map(Owner::new),
            boot: owner.map(|[first, ..]| Boot::new(first.into())),
        }
    }
}

proptest! {
    #[test]
    fn every_record_round_trips(record in records()) {
        prop_assert_eq!(LeaseRecord::decode(record.encode().as_bytes()), Ok(record));
    }

    #[test]
    fn whatever_the_bytes_are_reading_them_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = LeaseRecord::decode(&bytes);
    }
}

#[test]
fn an_owner_of_an_unknown_form_is_no_reason_to_lose_a_peer() {
    let record = LeaseRecord::decode(br#"{"PublicIP":"192.0.2.1","Owner":"a form of later"}"#).unwrap();
    assert_eq!(record.owner, None);
}

#[test]
fn what_is_quoted_of_a_huge_value_is_short() {
    let huge = "A".repeat(1 << 20);
    for value in [
        format!(r#"{{"PublicIP":"{huge}"}}"#),
        format!(r#"{{"PublicIP":["{huge}"]}}"#),
        format!(r#"{{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{huge}"}}}}"#),
        huge.clone(),
    ] {
        let error = decode(&value).unwrap_err().to_string();
        assert!(error.len() < 1_000, "{} bytes", error.len());
    }
    let other = decode(&format!(r#"{{"PublicIP":"192.0.2.1","BackendType":"{huge}"}}"#)).unwrap();
    assert!(other.encode().len() < 1_000);
}
