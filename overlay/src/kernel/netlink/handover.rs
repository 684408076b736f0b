//! For going back to flanneld: what of ours it would not take away, and whether its own is there for the same.
//!
//! Looked at are all routing tables and rules, whatever wrote them. Ours is what bears our protocol number, within our network: a second
//! network's agent on this host has the same number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lease::Subnet;
use netlink_packet_core::{DecodeError, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::dump::{Question, What, ask, dump};
use super::encode::family;
use super::entry::{address, route_address};
use super::interfaces::vxlan_links;
use super::requests::Requests;
use super::wire::{Message, decode};
use crate::desired::flannelds_key;
use crate::kernel::KernelError;
use crate::{IfIndex, ROUTE_PROTOCOL, RouteKey, TABLE_MAIN};

/// How often an interrupted dump is begun anew.
const TRIES: usize = 20;

/// Something of ours in the kernel that flanneld does not manage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The command that removes it.
    pub command: String,
    /// Why it cannot go yet, as a clause; none where it can.
    pub waits_for: Option<String>,
    /// The command that removes it and does no more.
    alone: String,
    /// What is put in its place first.
    instead: Option<RouteNetlinkMessage>,
    removal: RouteNetlinkMessage,
}

/// A route as far as it counts here.
struct Route {
    prefix: Subnet,
    table: u32,
    metric: u32,
    protocol: RouteProtocol,
    kind: RouteType,
    message: RouteMessage,
}

/// Our routes and rules for a network, in the order in which they can go: rules come last, and wait for the routes of their table.
///
/// # Errors
/// [`KernelError`] when the kernel cannot be asked.
pub async fn leftovers(network: Subnet) -> Result<Vec<Leftover>, KernelError> {
    let family = family(network.address());
    let mut routes: Vec<Route> = Vec::new();
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    let question = Question::dump("dump all routes", RouteNetlinkMessage::GetRoute(message));
    ask(&question, TRIES, &mut routes, |routes, message| {
        // What cannot be decoded is not ours: we write plain ones.
        routes.extend(route(message).ok().flatten().filter(|route| network.covers(route.prefix)));
        Ok(())
    })
    .await?;
    let mut rules: Vec<RuleMessage> = Vec::new();
    let mut message = RuleMessage::default();
    message.header.family = family;
    let question = Question::dump("dump the rules", RouteNetlinkMessage::GetRule(message));
    ask(&question, TRIES, &mut rules, |rules, message| {
        rules.extend(rule(message).ok().flatten().filter(|rule| is_ours(rule, network)));
        Ok(())
    })
    .await?;

    let ours = RouteProtocol::from(ROUTE_PROTOCOL);
    let theirs: BTreeSet<Subnet> = routes.iter().filter(|route| route.is_flannelds()).map(|route| route.prefix).collect();
    // With host-gw, flanneld finds our route to the same next hop, takes it for its own, and puts none.
    let tunnelled = has_vtep(network).await?;
    let mut leftovers = Vec::new();
    let mut kept = Vec::new();
    for route in routes.iter().filter(|route| route.protocol == ours) {
        // What a blackhole swallows goes nowhere without it either.
        let needed = route.kind != RouteType::BlackHole && !theirs.contains(&route.prefix);
        let instead = route.as_flannelds().filter(|_| needed && !tunnelled);
        let waits_for = (needed && instead.is_none()).then(|| format!("flanneld has no route to {} yet", route.prefix));
        if waits_for.is_some() {
            kept.push(route.table);
        }
        let (command, alone) = (route.command(instead.is_some()), route.command(false));
        leftovers.push(Leftover { command, waits_for, alone, instead, removal: route.removal() });
    }
    leftovers.extend(rules.iter().map(|rule| {
        let table = table_of(rule);
        let waits_for = (table != TABLE_MAIN && kept.contains(&table)).then(|| format!("table {table} still has such routes"));
        let command = rule_command(rule, destination(rule).unwrap_or(network));
        Leftover { alone: command.clone(), command, waits_for, instead: None, removal: rule_removal(rule) }
    }));
    Ok(leftovers)
}

/// Whether there is a VTEP of this network: one that bears an address of it.
async fn has_vtep(network: Subnet) -> Result<bool, KernelError> {
    for (_, device) in vxlan_links().await?.iter().filter(|(name, _)| name.starts_with("flannel")) {
        let mut addresses: Vec<IpAddr> = Vec::new();
        dump(What::Addresses(Some(device.index)), &mut addresses, |addresses, message| {
            addresses.extend(address(message, Some(device.index))?.map(|found| found.address));
            Ok(())
        })
        .await?;
        if addresses.iter().any(|address| network.contains(*address)) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Leftover {
    /// As it is to go where flanneld does not take over: at once, and with nothing in its place.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { command: self.alone.clone(), waits_for: None, instead: None, ..self }
    }

    /// Removes it, once what takes its place is there. What is gone already is removed.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel refuses.
    pub async fn remove(&self) -> Result<(), KernelError> {
        const CALL: &str = "remove what flanneld does not manage";
        let mut requests = Requests::open()?;
        let put = self.instead.iter().map(|message| (message, NLM_F_CREATE | NLM_F_EXCL));
        for (message, flags) in put.chain([(&self.removal, 0)]) {
            match requests.order(CALL, message.clone(), flags).await? {
                None => {}
                // There already, or gone.
                Some(refusal) if matches!(refusal.errno, Errno::EEXIST | Errno::ESRCH | Errno::ENOENT | Errno::ENODEV) => {}
                Some(refusal) => return Err(refusal.into_error(CALL)),
            }
        }
        Ok(())
    }
}

/// Lets the kernel give the device an IPv6 link-local address again, as it does flanneld's. False where IPv6 is off.
///
/// # Errors
/// [`KernelError`] when the kernel refuses.
pub async fn allow_link_local(device: IfIndex) -> Result<bool, KernelError> {
    const CALL: &str = "allow a link-local address";
    let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64)]);
    let link = LinkUnspec::new_with_index(device.0).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]));
    match Requests::open()?.order(CALL, RouteNetlinkMessage::NewLink(link.build()), 0).await? {
        None => Ok(true),
        Some(refusal) if matches!(refusal.errno, Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::ENODEV) => Ok(false),
        Some(refusal) => Err(refusal.into_error(CALL)),
    }
}

impl Route {
    /// Whether it is as flanneld puts it, which leaves protocol, metric and table as they are by default.
    fn is_flannelds(&self) -> bool {
        let Self { prefix, table, metric, protocol, kind, message: _ } = self;
        let key = RouteKey { prefix: *prefix, metric: *metric, table: *table };
        (key, *protocol, *kind) == (flannelds_key(*prefix), RouteProtocol::Boot, RouteType::Unicast)
    }

    /// The command that deletes it, after the one that puts what takes its place.
    fn command(&self, replaced: bool) -> String {
        let Self { prefix, table, metric, kind, .. } = self;
        let ip = if prefix.is_ipv4() { "ip" } else { "ip -6" };
        let kind = if *kind == RouteType::BlackHole { "blackhole " } else { "" };
        let table = if *table == TABLE_MAIN { String::new() } else { format!(" table {table}") };
        let put =
            self.gateway().filter(|_| replaced).map_or_else(String::new, |gateway| format!("{ip} route add {prefix} via {gateway}; "));
        format!("{put}{ip} route del {kind}{prefix} proto {ROUTE_PROTOCOL} metric {metric}{table}")
    }

    fn gateway(&self) -> Option<IpAddr> {
        self.message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => route_address(address).ok(),
            _ => None,
        })
    }

    /// The message that puts the route to the same next hop as flanneld puts it; none where this has none.
    fn as_flannelds(&self) -> Option<RouteNetlinkMessage> {
        self.gateway()?;
        let RouteNetlinkMessage::DelRoute(mut message) = self.removal() else { return None };
        message.header.protocol = RouteProtocol::Boot;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Priority(_) | RouteAttribute::Table(_)));
        Some(RouteNetlinkMessage::NewRoute(message))
    }

    /// The message that deletes just this one.
    fn removal(&self) -> RouteNetlinkMessage {
        let mut message = self.message.clone();
        // What the kernel says of the next hop's state is no part of what it is asked.
        message.header.flags = Default::default();
        message.attributes.retain(|attribute| {
            use RouteAttribute::{Destination, Gateway, Oif, Priority, Table};
            matches!(attribute, Destination(_) | Gateway(_) | Oif(_) | Priority(_) | Table(_))
        });
        RouteNetlinkMessage::DelRoute(message)
    }
}

fn route(message: &Message<'_>) -> Result<Option<Route>, DecodeError> {
    let RouteNetlinkMessage::NewRoute(message) = decode(message)? else { return Ok(None) };
    let RouteMessage { header, attributes, .. } = &message;
    let (mut destination, mut metric, mut table) = (None, 0, u32::from(header.table));
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = route_address(address).ok(),
            RouteAttribute::Priority(priority) => metric = *priority,
            // A number that does not fit the header.
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let RouteHeader { protocol, kind, destination_prefix_length, .. } = *header;
    let prefix = destination.and_then(|address| Subnet::new(address, destination_prefix_length).ok());
    Ok(prefix.map(|prefix| Route { prefix, table, metric, protocol, kind, message }))
}

fn rule(message: &Message<'_>) -> Result<Option<RuleMessage>, DecodeError> {
    Ok(match decode(message)? {
        RouteNetlinkMessage::NewRule(rule) => Some(rule),
        _ => None,
    })
}

fn is_ours(rule: &RuleMessage, network: Subnet) -> bool {
    let protocol = RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL));
    rule.attributes.contains(&protocol) && destination(rule).is_some_and(|to| network.covers(to))
}

/// What the rule is for: the network, or our own subnet, whose containers' routes are asked before a blackhole.
fn destination(rule: &RuleMessage) -> Option<Subnet> {
    let address = |attribute: &RuleAttribute| if let RuleAttribute::Destination(address) = attribute { Some(*address) } else { None };
    Subnet::new(rule.attributes.iter().find_map(address)?, rule.header.dst_len).ok()
}

fn table_of(rule: &RuleMessage) -> u32 {
    let number = |attribute: &RuleAttribute| if let RuleAttribute::Table(number) = attribute { Some(*number) } else { None };
    rule.attributes.iter().find_map(number).unwrap_or(rule.header.table.into())
}

fn rule_command(rule: &RuleMessage, to: Subnet) -> String {
    let priority = |attribute: &RuleAttribute| if let RuleAttribute::Priority(number) = attribute { Some(*number) } else { None };
    let priority = rule.attributes.iter().find_map(priority).unwrap_or_default();
    let ip = if to.is_ipv4() { "ip" } else { "ip -6" };
    format!("{ip} rule del to {to} lookup {} priority {priority} protocol {ROUTE_PROTOCOL}", table_of(rule))
}

fn rule_removal(rule: &RuleMessage) -> RouteNetlinkMessage {
    let mut message = rule.clone();
    message.attributes.retain(|attribute| {
        use RuleAttribute::{Destination, Priority, Protocol, Table};
        matches!(attribute, Destination(_) | Priority(_) | Protocol(_) | Table(_))
    });
    RouteNetlinkMessage::DelRule(message)
}
