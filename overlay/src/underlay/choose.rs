//! The rules of the choice.

use std::net::IpAddr;

use super::{Address, Choice, Interface, Interfaces, Underlay, UnderlayError};

/// Chooses.
///
/// # Errors
/// [`UnderlayError`], with what was looked for and what there is.
pub fn choose(choice: &Choice, interfaces: &Interfaces) -> Result<Underlay, UnderlayError> {
    let Choice { iface, iface_regex, can_reach, public_ip } = choice;
    let mut amiss = Vec::new();
    let found = if iface.is_empty() && iface_regex.is_empty() && can_reach.is_none() {
        public_ip.and_then(|owned| by_address(interfaces, owned)).or_else(|| by_default(interfaces, &mut amiss))
    } else {
        let named = iface.iter().find_map(|wanted| by_name_or_address(interfaces, wanted, &mut amiss));
        let named = named.or_else(|| iface_regex.iter().find_map(|regex| by_pattern(interfaces, regex, &mut amiss)));
        named.or_else(|| can_reach.and_then(|target| by_reach(interfaces, target, &mut amiss)))
    };
    let Some((interface, address)) = found else {
        return Err(UnderlayError::NoneFits { looked_for: amiss.join(", "), there: interfaces.to_string() });
    };
    let Interface { index, name, mtu, mac, up: _, addresses: _ } = interface;
    let public_ip = public_ip.unwrap_or(address);
    Ok(Underlay { index: *index, name: name.clone(), mtu: *mtu, mac: *mac, address, public_ip })
}

type Found<'a> = Option<(&'a Interface, IpAddr)>;

fn by_name_or_address<'a>(interfaces: &'a Interfaces, wanted: &str, amiss: &mut Vec<String>) -> Found<'a> {
    if let Ok(address) = wanted.parse() {
        let found = by_address(interfaces, address);
        if found.is_none() {
            amiss.push(format!("none has the address {address}"));
        }
        return found;
    }
    let Some(interface) = candidates(interfaces).find(|interface| interface.name == wanted) else {
        let why = if is_vtep(wanted) { "is a tunnel itself" } else { "is not there" };
        amiss.push(format!("{wanted} {why}"));
        return None;
    };
    with_best_address(interface, amiss)
}

fn by_address(interfaces: &Interfaces, wanted: IpAddr) -> Found<'_> {
    usable(interfaces).find(|(_, address)| *address == wanted)
}

fn by_pattern<'a>(interfaces: &'a Interfaces, regex: &regex::Regex, amiss: &mut Vec<String>) -> Found<'a> {
    let by_address = usable(interfaces).find(|(_, address)| regex.is_match(&address.to_string()));
    let found = by_address.or_else(|| {
        let named = candidates(interfaces).filter(|interface| regex.is_match(&interface.name));
        named.into_iter().find_map(|interface| with_best_address(interface, amiss))
    });
    if found.is_none() {
        amiss.push(format!("none matches {regex}"));
    }
    found
}

fn by_reach<'a>(interfaces: &'a Interfaces, target: IpAddr, amiss: &mut Vec<String>) -> Found<'a> {
    let Some(reach) = interfaces.reach else {
        amiss.push(format!("there is no route to {target}"));
        return None;
    };
    let Some(interface) = candidates(interfaces).find(|interface| interface.index == reach.index) else {
        amiss.push(format!("the route to {target} leaves by none that can carry a tunnel"));
        return None;
    };
    reach.source.map(|source| (interface, source)).or_else(|| with_best_address(interface, amiss))
}

fn by_default<'a>(interfaces: &'a Interfaces, amiss: &mut Vec<String>) -> Found<'a> {
    let family = if interfaces.ipv6 { "IPv6" } else { "IPv4" };
    let found = candidates(interfaces).find(|interface| Some(interface.index) == interfaces.default);
    if found.is_none() {
        amiss.push(format!("there is no {family} default route, so name an interface with --iface"));
    }
    found.and_then(|interface| with_best_address(interface, amiss))
}

/// The address to take of an interface: known far before known near, permanent before temporary, certain before tentative.
fn with_best_address<'a>(interface: &'a Interface, amiss: &mut Vec<String>) -> Found<'a> {
    let rank = |address: &&Address| (address.scope, address.temporary, address.tentative);
    let best = interface.addresses.iter().filter(|address| !address.unusable).min_by_key(rank);
    if best.is_none() {
        amiss.push(format!("{} has no usable address", interface.name));
    }
    best.map(|best| (interface, best.address))
}

fn candidates(interfaces: &Interfaces) -> impl Iterator<Item = &Interface> {
    interfaces.list.iter().filter(|interface| !is_vtep(&interface.name))
}

fn usable(interfaces: &Interfaces) -> impl Iterator<Item = (&Interface, IpAddr)> {
    let usable = |interface: &'_ Interface| {
        interface.addresses.iter().filter(|address| !address.unusable).map(|address| address.address).collect::<Vec<_>>()
    };
    candidates(interfaces).flat_map(move |interface| usable(interface).into_iter().map(move |address| (interface, address)))
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
        Interfaces { ipv6: false, list: list.collect(), default: None, reach: None }
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
        Interfaces { default: Some(IfIndex(3)), ..interfaces(&list) }
    }

    fn chosen(choice: &Choice) -> (String, String) {
        let underlay = choose(choice, &machine()).unwrap();
        (underlay.name, underlay.address.to_string())
    }

    fn refused(choice: &Choice) -> String {
        choose(choice, &machine()).unwrap_err().to_string()
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
        let owned = Choice { public_ip: Some("192.0.2.11".parse().unwrap()), ..Choice::default() };
        assert_eq!(chosen(&owned), pair("eth0", "192.0.2.11"));
        let translated = Choice { public_ip: Some("203.0.113.9".parse().unwrap()), ..Choice::default() };
        let underlay = choose(&translated, &machine()).unwrap();
        assert_eq!((underlay.name.as_str(), underlay.address.to_string().as_str()), ("eth1", "198.51.100.7"));
        assert_eq!(Some(underlay.public_ip), translated.public_ip);
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
        let underlay = choose(&choice, &machine).unwrap();
        assert_eq!((underlay.name.as_str(), Some(underlay.address)), ("eth0", source));
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
            let machine = Interfaces { ipv6: true, ..interfaces(&[("eth0", addresses)]) };
            choose(&Choice { iface: names(&["eth0"]), ..Choice::default() }, &machine)
                .map(|underlay| underlay.address)
                .map_err(|error| error.to_string())
        };
        assert_eq!(best(&[near, dead, temporary, tentative, good]), Ok(good.address));
        assert_eq!(best(&[near, dead, temporary, tentative]), Ok(tentative.address));
        assert_eq!(best(&[near, dead, temporary]), Ok(temporary.address));
        assert_eq!(best(&[dead, near]), Ok(near.address));
        assert_eq!(best(&[dead]).unwrap_err(), "no interface for the tunnel: eth0 has no usable address; there are: eth0 (2001:db8::4)");
    }

    #[test]
    fn a_refusal_says_what_was_looked_for_and_what_there_is() {
        let message = refused(&Choice { iface: names(&["eth9", "192.0.2.99"]), iface_regex: patterns(&["^wg"]), ..Choice::default() });
        assert_eq!(
            message,
            "no interface for the tunnel: eth9 is not there, none has the address 192.0.2.99, none matches ^wg; there are: lo (127.0.0.1), \
             eth0 (192.0.2.10, 192.0.2.11), eth1 (198.51.100.7), eth2 (no IPv4 address), flannel.1 (10.5.1.0)"
        );
        let nothing = choose(&Choice::default(), &Interfaces { default: None, ..machine() }).unwrap_err();
        assert!(nothing.to_string().contains("no IPv4 default route, so name an interface with --iface"));
    }
}
