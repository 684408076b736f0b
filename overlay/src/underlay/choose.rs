//! The rules of the choice.

use std::net::IpAddr;

use lease::Family;

use super::{Address, Choice, End, Interface, Interfaces, Underlay, UnderlayError};

/// Chooses for these families: at least one, of which the first decides where only one can.
///
/// # Errors
/// [`UnderlayError`], with what was looked for and what there is.
pub fn choose(choice: &Choice, families: &[Family], interfaces: &Interfaces) -> Result<Underlay, UnderlayError> {
    let Choice { iface, iface_regex, can_reach, public_v4: _, public_v6: _ } = choice;
    let mut search = Search { choice, families, interfaces, amiss: Vec::new() };
    let found = if iface.is_empty() && iface_regex.is_empty() && can_reach.is_none() {
        search.by_public_address().or_else(|| search.by_default())
    } else {
        let named = iface.iter().find_map(|wanted| search.by_name_or_address(wanted));
        let named = named.or_else(|| iface_regex.iter().find_map(|regex| search.by_pattern(regex)));
        named.or_else(|| can_reach.and_then(|target| search.by_reach(target)))
    };
    found.ok_or_else(|| UnderlayError::NoneFits { looked_for: search.amiss.join(", "), there: there(interfaces, families) })
}

/// A choice under way, with what was amiss so far.
struct Search<'a> {
    choice: &'a Choice,
    families: &'a [Family],
    interfaces: &'a Interfaces,
    amiss: Vec<String>,
}

impl<'a> Search<'a> {
    fn by_public_address(&mut self) -> Option<Underlay> {
        let (choice, families) = (self.choice, self.families);
        families.iter().filter_map(|family| choice.public(*family)).find_map(|owned| self.by_address(owned))
    }

    fn by_name_or_address(&mut self, wanted: &str) -> Option<Underlay> {
        if let Ok(address) = wanted.parse() {
            let found = self.by_address(address);
            if found.is_none() {
                self.amiss.push(format!("none has the address {address}"));
            }
            return found;
        }
        let Some(interface) = self.candidates().find(|interface| interface.name == wanted) else {
            let why = if is_vtep(wanted) { "is a tunnel itself" } else { "is not there" };
            self.amiss.push(format!("{wanted} {why}"));
            return None;
        };
        self.with(interface, None)
    }

    fn by_address(&mut self, wanted: IpAddr) -> Option<Underlay> {
        let found = self.usable().find(|(_, address)| *address == wanted);
        found.and_then(|(interface, address)| self.with(interface, Some(address)))
    }

    fn by_pattern(&mut self, regex: &regex::Regex) -> Option<Underlay> {
        let by_address = self.usable().find(|(_, address)| regex.is_match(&address.to_string()));
        let found = by_address.and_then(|(interface, address)| self.with(interface, Some(address))).or_else(|| {
            let named: Vec<_> = self.candidates().filter(|interface| regex.is_match(&interface.name)).collect();
            named.into_iter().find_map(|interface| self.with(interface, None))
        });
        if found.is_none() {
            self.amiss.push(format!("none matches {regex}"));
        }
        found
    }

    fn by_reach(&mut self, target: IpAddr) -> Option<Underlay> {
        let Some(reach) = self.interfaces.reach else {
            self.amiss.push(format!("there is no route to {target}"));
            return None;
        };
        let Some(interface) = self.candidates().find(|interface| interface.index == reach.index) else {
            self.amiss.push(format!("the route to {target} leaves by none that can carry a tunnel"));
            return None;
        };
        self.with(interface, reach.source)
    }

    /// In dual-stack both default routes have to leave by the same interface.
    fn by_default(&mut self) -> Option<Underlay> {
        let mut found: Option<&Interface> = None;
        for family in self.families {
            let Some(interface) = self.candidates().find(|interface| Some(interface.index) == self.interfaces.default_route(*family))
            else {
                self.amiss.push(format!("there is no {family} default route, so name an interface with --iface"));
                return None;
            };
            if let Some(other) = found.filter(|other| other.index != interface.index) {
                let (a, b) = (&other.name, &interface.name);
                self.amiss.push(format!("the IPv4 default route leaves by {a}, the IPv6 one by {b}, so name one of them with --iface"));
                return None;
            }
            found = Some(interface);
        }
        found.and_then(|interface| self.with(interface, None))
    }

    /// Takes this interface, with this address where it is known, and else the best that it has of each family.
    fn with(&mut self, interface: &Interface, known: Option<IpAddr>) -> Option<Underlay> {
        let mut end = |family: Family| {
            if !self.families.contains(&family) {
                return Some(None);
            }
            let known = known.filter(|known| Family::of(*known) == family);
            let Some(address) = known.or_else(|| best_address(interface, family)) else {
                self.amiss.push(format!("{} has no usable {family} address", interface.name));
                return None;
            };
            Some(Some(End { address, public: self.choice.public(family).unwrap_or(address) }))
        };
        let (v4, v6) = (end(Family::V4)?, end(Family::V6)?);
        let Interface { index, name, mtu, mac, up: _, addresses: _ } = interface;
        Some(Underlay { index: *index, name: name.clone(), mtu: *mtu, mac: *mac, v4, v6 })
    }

    fn candidates(&self) -> impl Iterator<Item = &'a Interface> + use<'a> {
        self.interfaces.list.iter().filter(|interface| !is_vtep(&interface.name))
    }

    /// The usable addresses of the families that are on, with their interfaces.
    fn usable(&self) -> impl Iterator<Item = (&'a Interface, IpAddr)> + use<'a> {
        let families = self.families;
        self.candidates().flat_map(move |interface| {
            let addresses = interface.addresses.iter().filter(|address| usable(address)).map(|address| address.address);
            addresses.filter(|address| families.contains(&Family::of(*address))).map(move |address| (interface, address))
        })
    }
}

/// The interfaces with their addresses of these families, for people.
fn there(interfaces: &Interfaces, families: &[Family]) -> String {
    let none = || format!("no {} address", families.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "));
    let shown = interfaces.list.iter().map(|interface| {
        let addresses =
            interface.addresses.iter().map(|address| address.address).filter(|address| families.contains(&Family::of(*address)));
        let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
        format!("{} ({})", interface.name, if addresses.is_empty() { none() } else { addresses.join(", ") })
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The address to take of an interface: known far before known near, permanent before temporary, certain before tentative.
fn best_address(interface: &Interface, family: Family) -> Option<IpAddr> {
    let rank = |address: &&Address| (address.scope, address.temporary, address.tentative);
    let of_family = interface.addresses.iter().filter(|address| usable(address) && Family::of(address.address) == family);
    of_family.min_by_key(rank).map(|best| best.address)
}

/// Whether a tunnel can start there. One of IPv6 that is only known on its link would need the link named with it, and our device is
/// bound to none.
fn usable(address: &Address) -> bool {
    let on_link_only = matches!(address.address, IpAddr::V6(address) if address.is_unicast_link_local());
    !address.unusable && !on_link_only
}

/// `flannel.<VNI>` and `flannel-v6.<VNI>`: a tunnel through itself leads nowhere.
fn is_vtep(name: &str) -> bool {
    let vni = name.strip_prefix("flannel.").or_else(|| name.strip_prefix("flannel-v6."));
    vni.is_some_and(|vni| !vni.is_empty() && vni.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use lease::{MacAddr, Mtu};
    use regex::Regex;

    use super::*;
    use crate::IfIndex;
    use crate::underlay::Reach;

    fn address(text: &str) -> Address {
        Address { address: text.parse().unwrap(), len: 24, scope: 0, temporary: false, tentative: false, unusable: false }
    }

    fn interfaces(list: &[(&str, &[Address])]) -> Interfaces {
        let list = list.iter().zip(1..).map(|((name, addresses), index)| Interface {
            index: IfIndex(index),
            name: (*name).to_owned(),
            mtu: Mtu(1500),
            mac: MacAddr::new([0; 6]),
            up: true,
            addresses: addresses.to_vec(),
        });
        Interfaces { list: list.collect(), ..Interfaces::default() }
    }

    fn machine() -> Interfaces {
        let loopback = Address { scope: 254, ..address("127.0.0.1") };
        let eth0 = [address("192.0.2.10"), address("192.0.2.11")];
        let list: [(&str, &[Address]); 5] = [
            ("lo", &[loopback]),
            ("eth0", &eth0),
            ("eth1", &[address("198.51.100.7")]),
            ("eth2", &[]),
            ("flannel.1", &[address("10.5.1.0")]),
        ];
        Interfaces { default_v4: Some(IfIndex(3)), ..interfaces(&list) }
    }

    fn chosen(choice: &Choice) -> (String, String) {
        let underlay = choose(choice, &[Family::V4], &machine()).unwrap();
        (underlay.name, underlay.v4.unwrap().address.to_string())
    }

    fn refused(choice: &Choice) -> String {
        choose(choice, &[Family::V4], &machine()).unwrap_err().to_string()
    }

    fn pair(name: &str, address: &str) -> (String, String) {
        (name.to_owned(), address.to_owned())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn patterns(patterns: &[&str]) -> Vec<Regex> {
        patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect()
    }

    #[test]
    fn without_a_wish_the_default_routes_interface_is_taken() {
        assert_eq!(chosen(&Choice::default()), pair("eth1", "198.51.100.7"));
    }

    #[test]
    fn without_a_wish_the_owner_of_the_public_address_goes_first() {
        let owned = Choice { public_v4: Some("192.0.2.11".parse().unwrap()), ..Choice::default() };
        assert_eq!(chosen(&owned), pair("eth0", "192.0.2.11"));
        let translated = Choice { public_v4: Some("203.0.113.9".parse().unwrap()), ..Choice::default() };
        let underlay = choose(&translated, &[Family::V4], &machine()).unwrap();
        let end = underlay.v4.unwrap();
        assert_eq!((underlay.name.as_str(), end.address.to_string().as_str()), ("eth1", "198.51.100.7"));
        assert_eq!(Some(end.public), translated.public_v4);
    }

    #[test]
    fn the_first_named_interface_that_is_there_wins() {
        assert_eq!(chosen(&Choice { iface: names(&["eth9", "eth0", "eth1"]), ..Choice::default() }), pair("eth0", "192.0.2.10"));
        assert_eq!(chosen(&Choice { iface: names(&["eth2", "eth1"]), ..Choice::default() }), pair("eth1", "198.51.100.7"));
        assert_eq!(chosen(&Choice { iface: names(&["192.0.2.11"]), ..Choice::default() }), pair("eth0", "192.0.2.11"));
    }

    #[test]
    fn a_pattern_is_tried_on_addresses_before_names_and_after_all_named_interfaces() {
        assert_eq!(chosen(&Choice { iface_regex: patterns(&["^eth"]), ..Choice::default() }), pair("eth0", "192.0.2.10"));
        assert_eq!(chosen(&Choice { iface_regex: patterns(&[r"^198\.|lo"]), ..Choice::default() }), pair("eth1", "198.51.100.7"));
        assert_eq!(chosen(&Choice { iface_regex: patterns(&["nothing", r"\.11$"]), ..Choice::default() }), pair("eth0", "192.0.2.11"));
        let both = Choice { iface: names(&["eth9", "eth1"]), iface_regex: patterns(&["eth0"]), ..Choice::default() };
        assert_eq!(chosen(&both), pair("eth1", "198.51.100.7"));
    }

    #[test]
    fn can_reach_takes_the_kernels_interface_and_source() {
        let choice = Choice { can_reach: Some("203.0.113.1".parse().unwrap()), ..Choice::default() };
        let source = Some("192.0.2.11".parse().unwrap());
        let machine = Interfaces { reach: Some(Reach { index: IfIndex(2), source }), ..machine() };
        let underlay = choose(&choice, &[Family::V4], &machine).unwrap();
        assert_eq!((underlay.name.as_str(), underlay.v4.map(|end| end.address)), ("eth0", source));
        assert!(refused(&choice).contains("there is no route to 203.0.113.1"));
    }

    #[test]
    fn our_own_tunnel_is_never_taken() {
        assert!(refused(&Choice { iface: names(&["flannel.1"]), ..Choice::default() }).contains("flannel.1 is a tunnel itself"));
        assert!(refused(&Choice { iface_regex: patterns(&["flannel", "^10\\."]), ..Choice::default() }).contains("none matches"));
        assert!(!is_vtep("flannel.eth0") && !is_vtep("flannel0") && is_vtep("flannel-v6.42"));
    }

    #[test]
    fn the_best_address_is_global_permanent_and_certain() {
        let (near, temporary) = (Address { scope: 253, ..address("fe80::1") }, Address { temporary: true, ..address("2001:db8::2") });
        let (tentative, dead) =
            (Address { tentative: true, ..address("2001:db8::3") }, Address { unusable: true, ..address("2001:db8::4") });
        let good = address("2001:db8::5");
        let best = |addresses: &[Address]| {
            let machine = interfaces(&[("eth0", addresses)]);
            choose(&Choice { iface: names(&["eth0"]), ..Choice::default() }, &[Family::V6], &machine)
                .map(|underlay| underlay.v6.unwrap().address)
                .map_err(|error| error.to_string())
        };
        assert_eq!(best(&[near, dead, temporary, tentative, good]), Ok(good.address));
        assert_eq!(best(&[near, dead, temporary, tentative]), Ok(tentative.address));
        assert_eq!(best(&[near, dead, temporary]), Ok(temporary.address));
        assert!(best(&[dead, near]).unwrap_err().contains("eth0 has no usable IPv6 address"), "not one that is known on the link alone");
        assert_eq!(
            best(&[dead]).unwrap_err(),
            "no interface for the tunnel: eth0 has no usable IPv6 address; there are: eth0 (2001:db8::4)"
        );
    }

    #[test]
    fn a_refusal_says_what_was_looked_for_and_what_there_is() {
        let message = refused(&Choice { iface: names(&["eth9", "192.0.2.99"]), iface_regex: patterns(&["^wg"]), ..Choice::default() });
        assert_eq!(
            message,
            "no interface for the tunnel: eth9 is not there, none has the address 192.0.2.99, none matches ^wg; there are: lo (127.0.0.1), \
             eth0 (192.0.2.10, 192.0.2.11), eth1 (198.51.100.7), eth2 (no IPv4 address), flannel.1 (10.5.1.0)"
        );
        let nothing = choose(&Choice::default(), &[Family::V4], &Interfaces { default_v4: None, ..machine() }).unwrap_err();
        assert!(nothing.to_string().contains("no IPv4 default route, so name an interface with --iface"));
    }

    #[test]
    fn in_dual_stack_one_interface_carries_both_and_its_addresses_are_chosen_apart() {
        let both = [Family::V4, Family::V6];
        let eth0 = [address("192.0.2.10"), address("2001:db8:a::10")];
        let eth1 = [address("198.51.100.7"), address("2001:db8:b::7"), address("2001:db8:b::8")];
        let machine = interfaces(&[("eth0", &eth0), ("eth1", &eth1), ("eth2", &[address("192.0.2.99")])]);
        let chosen = |choice: &Choice, defaults: (u32, u32)| {
            let machine = Interfaces { default_v4: Some(IfIndex(defaults.0)), default_v6: Some(IfIndex(defaults.1)), ..machine.clone() };
            choose(choice, &both, &machine)
                .map(|underlay| (underlay.name, underlay.v4.unwrap().address.to_string(), underlay.v6.unwrap().address.to_string()))
                .map_err(|error| error.to_string())
        };
        let triple = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(chosen(&Choice::default(), (2, 2)), triple("eth1", "198.51.100.7", "2001:db8:b::7"));
        let refused = chosen(&Choice::default(), (1, 2)).unwrap_err();
        assert!(refused.contains("the IPv4 default route leaves by eth0, the IPv6 one by eth1"), "{refused}");
        let named = |name: &str| Choice { iface: names(&[name]), ..Choice::default() };
        assert_eq!(chosen(&named("2001:db8:b::8"), (1, 1)), triple("eth1", "198.51.100.7", "2001:db8:b::8"));
        let refused = chosen(&named("eth2"), (1, 1)).unwrap_err();
        assert!(refused.contains("eth2 has no usable IPv6 address"), "{refused}");
        let owned = Choice { public_v6: Some("2001:db8:b::8".parse().unwrap()), ..Choice::default() };
        assert_eq!(chosen(&owned, (1, 1)), triple("eth1", "198.51.100.7", "2001:db8:b::8"));
    }
}
