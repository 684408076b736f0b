//! The network configuration field by field: what each may be, what a change of it reads like, and whether a running agent follows it.
//!
//! What containers and other hosts depend on takes another start: a change that touches any of it is not followed at all,
//! so that nothing runs with half of a configuration.

use std::collections::BTreeMap;
use std::fmt;

use lease::{Backend, LeaseKey, NetworkConfig, Pool, VxlanConfig};
use serde::{Deserialize, Serialize};

/// A field of the network configuration.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name in the JSON; fields of the backend with `Backend.` before it.
    pub name: &'static str,
    /// What it takes.
    pub kind: &'static str,
    /// What holds where it is missing.
    pub default: &'static str,
    /// What it has to keep to, or is for.
    pub rule: &'static str,
    /// What a running agent does when it changes.
    pub follows: Follows,
}

/// What a running agent does when a field changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// It takes the change over.
    AtOnce,
    /// The same, as long as this host's subnet still fits.
    WhileOurSubnetFits,
    /// It waits until it is started again.
    NextStart,
    /// It never looks at it.
    Ignored,
}

impl fmt::Display for Follows {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::AtOnce => "at once",
            Self::WhileOurSubnetFits => "at once, while this host's subnet still fits",
            Self::NextStart => "at the next start",
            Self::Ignored => "–",
        })
    }
}

const fn field(name: &'static str, kind: &'static str, default: &'static str, follows: Follows, rule: &'static str) -> Field {
    Field { name, kind, default, rule, follows }
}

use Follows::{AtOnce, Ignored, NextStart, WhileOurSubnetFits};

/// All of them, in the order of the documents.
pub const FIELDS: [Field; 21] = [
    field("Network", "IPv4 prefix", "required with IPv4", NextStart, "`/28` or larger"),
    field(
        "SubnetLen",
        "number",
        "24 if the Network is `/22` or larger, else its length + 2",
        NextStart,
        "at most 30, at least the Network's length + 2",
    ),
    field(
        "SubnetMin",
        "IPv4 address",
        "the second subnet",
        WhileOurSubnetFits,
        "in the Network, on a SubnetLen boundary. The first subnet is leased only where SubnetMin names it.",
    ),
    field(
        "SubnetMax",
        "IPv4 address",
        "the last subnet",
        WhileOurSubnetFits,
        "in the Network, on a SubnetLen boundary, not below SubnetMin",
    ),
    field("EnableIPv4", "boolean", "`true`", NextStart, "one of the two families has to be on"),
    field("EnableIPv6", "boolean", "`false`", NextStart, "the same"),
    field("IPv6Network", "IPv6 prefix", "required with IPv6", NextStart, "`/124` or larger"),
    field(
        "IPv6SubnetLen",
        "number",
        "64 if the IPv6Network is `/62` or larger, else its length + 2",
        NextStart,
        "at most 126, at least the IPv6Network's length + 2",
    ),
    field("IPv6SubnetMin", "IPv6 address", "the second subnet", WhileOurSubnetFits, "as for IPv4"),
    field("IPv6SubnetMax", "IPv6 address", "the last subnet", WhileOurSubnetFits, "as for IPv4"),
    field(
        "EnableNFTables",
        "boolean",
        "`false`",
        AtOnce,
        "the form of flanneld's filter rules. loden writes nf_tables rules of its own with either.",
    ),
    field("Backend.Type", "text", "`vxlan`", NextStart, "`vxlan`, `host-gw` or `alloc`. flanneld takes `udp` when it is missing."),
    field("Backend.VNI", "number", "1", NextStart, "0 to 16777215. The device is called `flannel.<VNI>`, in at most 15 bytes."),
    field("Backend.Port", "number", "0", NextStart, "UDP port; 0 is the kernel's 8472"),
    field(
        "Backend.MTU",
        "number",
        "the underlay's",
        AtOnce,
        "the **outer** MTU, 118 to 65535. The device gets 50 bytes less, 70 on an IPv6 underlay.",
    ),
    field("Backend.GBP", "boolean", "`false`", NextStart, "group-based policy extension"),
    field("Backend.Learning", "boolean", "`false`", AtOnce, "whether the device learns source addresses"),
    field("Backend.DirectRouting", "boolean", "`false`", AtOnce, "plain routes to peers on the same link"),
    field("Backend.MacPrefix", "text", "", Ignored, "for Windows"),
    field("Backend.Name", "text", "", Ignored, "for Windows"),
    field("others", "any", "", Ignored, "unknown keys are ignored"),
];

/// A field that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The field's name.
    pub field: String,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, from, to } = self;
        write!(out, "{field} from {from} to {to}")
    }
}

/// What has changed between two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Each field that is not what it was.
    pub all: Vec<Change>,
    /// Why a running agent does not follow: the fields that keep it from that. Empty when it does.
    pub held_up_by: Vec<String>,
}

impl Changes {
    /// What has changed on a host with these subnets.
    #[must_use]
    pub fn between(before: &NetworkConfig, after: &NetworkConfig, own: LeaseKey) -> Self {
        let (from, mut to) = (values(before), values(after));
        let fits = after.admits(own);
        let mut changes = Self::default();
        for Field { name, follows, .. } in FIELDS {
            // Of a family or a backend that comes or goes, that alone is said.
            let Some((from, to)) = from.get(name).zip(to.remove(name)).filter(|(from, to)| *from != to) else { continue };
            match follows {
                NextStart => changes.held_up_by.push(name.to_owned()),
                WhileOurSubnetFits if !fits => changes.held_up_by.push(format!("{name} (this host's subnet is {own})")),
                AtOnce | WhileOurSubnetFits | Ignored => {}
            }
            changes.all.push(Change { field: name.to_owned(), from: from.clone(), to });
        }
        changes
    }
}

/// The value of each field that is in force.
fn values(config: &NetworkConfig) -> BTreeMap<&'static str, String> {
    let NetworkConfig { v4, v6, nftables, backend } = config;
    let mut values = BTreeMap::from([
        ("EnableIPv4", v4.is_some().to_string()),
        ("EnableIPv6", v6.is_some().to_string()),
        ("EnableNFTables", nftables.to_string()),
        ("Backend.Type", backend.to_string()),
    ]);
    let families = [
        (v4, ["Network", "SubnetLen", "SubnetMin", "SubnetMax"]),
        (v6, ["IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"]),
    ];
    for (pool, names) in families {
        let Some(Pool { network, subnet_len, min, max }) = pool else { continue };
        values.extend(names.into_iter().zip([
            network.to_string(),
            subnet_len.to_string(),
            min.address().to_string(),
            max.address().to_string(),
        ]));
    }
    if let Backend::Vxlan(VxlanConfig { vni, port, gbp, learning, direct_routing, mtu }) = backend {
        values.extend([
            ("Backend.VNI", vni.to_string()),
            ("Backend.Port", port.to_string()),
            ("Backend.GBP", gbp.to_string()),
            ("Backend.Learning", learning.to_string()),
            ("Backend.DirectRouting", direct_routing.to_string()),
            ("Backend.MTU", mtu.map_or_else(|| "the underlay's".to_owned(), |mtu| mtu.to_string())),
        ]);
    }
    values
}

/// The changes as a list in a sentence.
#[must_use]
pub fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#""Network":"10.5.0.0/16","SubnetMin":"10.5.10.0","SubnetMax":"10.5.90.0""#;

    /// What changes when these fields are added to the base, on a host with 10.5.20.0/24.
    fn changes(before: &str, after: &str) -> (String, Vec<String>) {
        let config = |text: &str| text.parse::<NetworkConfig>().unwrap();
        let Changes { all, held_up_by } = Changes::between(&config(before), &config(after), "10.5.20.0-24".parse().unwrap());
        (listed(&all), held_up_by)
    }

    fn added(fields: &str) -> (String, Vec<String>) {
        changes(&format!("{{{BASE}}}"), &format!("{{{BASE},{fields}}}"))
    }

    fn vxlan(field: &str) -> (String, Vec<String>) {
        added(&format!(r#""Backend":{{"Type":"vxlan",{field}}}"#))
    }

    #[test]
    fn every_field_that_has_a_value_is_in_the_table() {
        let dual = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}"#;
        let values = values(&dual.parse().unwrap());
        let unknown: Vec<_> = values.keys().filter(|name| FIELDS.iter().all(|field| field.name != **name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let without: Vec<_> = FIELDS.iter().filter(|field| field.follows != Ignored && !values.contains_key(field.name)).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn what_leaves_containers_alone_is_followed() {
        assert_eq!(added(r#""EnableNFTables":true"#), ("EnableNFTables from false to true".to_owned(), vec![]));
        assert_eq!(vxlan(r#""MTU":1400"#), ("Backend.MTU from the underlay's to 1400".to_owned(), vec![]));
        assert_eq!(vxlan(r#""Learning":true"#).1, [""; 0]);
        assert_eq!(vxlan(r#""DirectRouting":true"#).1, [""; 0]);
        assert_eq!(added(r#""Comment":"a key that nobody knows""#), (String::new(), vec![]));
    }

    #[test]
    fn bounds_are_followed_while_our_subnet_lies_between_them() {
        let bounds = |min: &str, max: &str| {
            changes(
                &format!("{{{BASE}}}"),
                &format!(r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.{min}.0","SubnetMax":"10.5.{max}.0"}}"#),
            )
        };
        assert_eq!(bounds("20", "90"), ("SubnetMin from 10.5.10.0 to 10.5.20.0".to_owned(), vec![]));
        assert_eq!(bounds("10", "20"), ("SubnetMax from 10.5.90.0 to 10.5.20.0".to_owned(), vec![]));
        assert_eq!(bounds("21", "90").1, ["SubnetMin (this host's subnet is 10.5.20.0-24)"]);
        assert_eq!(bounds("10", "19").1, ["SubnetMax (this host's subnet is 10.5.20.0-24)"]);
    }

    #[test]
    fn what_containers_and_other_hosts_depend_on_waits_for_a_start_and_takes_the_rest_along() {
        for field in [r#""VNI":2"#, r#""Port":4789"#, r#""GBP":true"#] {
            let (all, held_up_by) = vxlan(field);
            assert_eq!(held_up_by.len(), 1, "{field}: {all}");
        }
        let (all, held_up_by) = vxlan(r#""VNI":2,"MTU":1400"#);
        assert_eq!(
            (all.as_str(), held_up_by),
            ("Backend.VNI from 1 to 2, Backend.MTU from the underlay's to 1400", vec!["Backend.VNI".into()])
        );
        assert_eq!(
            added(r#""Backend":{"Type":"host-gw"}"#),
            ("Backend.Type from vxlan to host-gw".to_owned(), vec!["Backend.Type".into()])
        );
        assert_eq!(added(r#""SubnetLen":25"#).1, ["SubnetLen"]);
        assert_eq!(added(r#""EnableIPv6":true,"IPv6Network":"fc00::/48""#).0, "EnableIPv6 from false to true");
        let v6_only = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48"}"#;
        assert_eq!(changes(&format!("{{{BASE}}}"), v6_only).1, ["EnableIPv4", "EnableIPv6"]);
        assert!(changes(&format!("{{{BASE}}}"), r#"{"Network":"10.0.0.0/8"}"#).1.contains(&"Network".to_owned()));
        let dual = |rest: &str| format!(r#"{{{BASE},"EnableIPv6":true,{rest}}}"#);
        let (before, after) = (dual(r#""IPv6Network":"fc00::/48""#), dual(r#""IPv6Network":"fc00::/48","IPv6SubnetLen":80"#));
        assert!(changes(&before, &after).1.contains(&"IPv6SubnetLen".to_owned()));
    }
}
