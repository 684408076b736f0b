//! All that a host's VTEP is and carries, as a value that can be compared: read from the kernel in milliseconds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use crate::netlink::{Message, Socket};
use crate::{Host, Table};

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/if.h.
const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFA_LOCAL: u16 = 2;
const IFF_UP: u32 = 1;
/// The length of `struct ifinfomsg` and of `struct ifaddrmsg`, and where index and flags stand in them.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const INDEX: usize = 4;
const FLAGS: usize = 8;
/// So many entries are shown that should not be there.
const SURPLUS_SHOWN: usize = 3;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;

/// What a device is and carries. Two of them are equal when nobody could tell the devices apart, but for their index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Whether it is up, its MTU, MAC and kind with all of that kind's settings; none when it is not there.
    pub link: Option<Link>,
    /// Its IPv4 addresses, with their prefix lengths.
    pub addresses: Vec<Vec<u8>>,
    /// Its routes, neighbours and forwarding entries: key, and where that leads.
    pub entries: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// Whether its packets are handed on by kernel threads, as `/sys` has it.
    pub threaded: String,
    /// `ip_forward`.
    pub forwarding: String,
    /// The subnet file.
    pub subnet_file: String,
}

/// A link's own properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: u32,
    /// Its MAC.
    pub mac: Vec<u8>,
    /// Its kind and that kind's settings, as the kernel tells them.
    pub kind: Vec<u8>,
}

/// Looks at one device of one host.
#[derive(Debug)]
pub struct Eye {
    host: Host,
    device: String,
    socket: Socket,
    forwarding: File,
}

impl Eye {
    /// For this device.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(host: &Host, device: &str) -> Result<Self> {
        let forwarding = host.within(|| Ok(File::open("/proc/sys/net/ipv4/ip_forward")?))?;
        Ok(Self { host: host.clone(), device: device.to_owned(), socket: Socket::open(host, 0)?, forwarding })
    }

    /// What is there now.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn look(&self) -> Result<Image> {
        let (mut image, index) = self.look_at_device()?;
        let Some(index) = index else { return Ok(image) };
        for table in [Table::Route, Table::Neighbour, Table::Fdb] {
            for entry in crate::KernelEntry::list_of(&self.socket, table, index)? {
                // What the kernel learned by itself comes and goes.
                if let Some(value) = entry.value() {
                    image.entries.insert((table_number(table), entry.key.clone()), value);
                }
            }
        }
        Ok(image)
    }

    /// The same without the entries: cheaper where they cannot have been harmed.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn glance(&self) -> Result<Image> {
        self.look_at_device().map(|(image, _)| image)
    }

    fn look_at_device(&self) -> Result<(Image, Option<u32>)> {
        let mut bytes = [0; 4];
        let length = self.forwarding.read_at(&mut bytes, 0)?;
        let read = |path: &str| fs::read_to_string(format!("/proc/{}/root{path}", self.host.pid())).unwrap_or_default();
        let mut image = Image {
            forwarding: String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned(),
            subnet_file: read("/run/flannel/subnet.env"),
            threaded: read(&format!("/sys/class/net/{}/threaded", self.device)),
            ..Image::default()
        };
        let links = self.socket.dump_of(RTM_GETLINK, AF_UNSPEC, IFINFO)?;
        let name =
            |link: &&Message| link.attribute_behind(IFINFO, IFLA_IFNAME).and_then(|name| name.split_last()).map(|(_, name)| name.to_vec());
        let Some(link) = links.iter().find(|link| name(link).is_some_and(|name| name == self.device.as_bytes())) else {
            return Ok((image, None));
        };
        let index = link.number_at(INDEX).context("a link without an index")?;
        let attribute = |wanted| link.attribute_behind(IFINFO, wanted).map(<[u8]>::to_vec).unwrap_or_default();
        image.link = Some(Link {
            up: link.number_at(FLAGS).is_some_and(|flags| flags & IFF_UP != 0),
            mtu: attribute(IFLA_MTU).first_chunk().map_or(0, |mtu| u32::from_ne_bytes(*mtu)),
            mac: attribute(IFLA_ADDRESS),
            kind: attribute(IFLA_LINKINFO),
        });
        for address in self.socket.dump_of(RTM_GETADDR, AF_INET, IFADDR)? {
            if address.number_at(INDEX) == Some(index) {
                let mut bytes = address.attribute_behind(IFADDR, IFA_LOCAL).unwrap_or_default().to_vec();
                bytes.extend(address.body.get(1));
                image.addresses.push(bytes);
            }
        }
        image.addresses.sort();
        Ok((image, Some(index)))
    }
}

fn table_number(table: Table) -> u8 {
    match table {
        Table::Route => 0,
        Table::Neighbour => 1,
        Table::Fdb => 2,
    }
}

impl Image {
    /// In what two differ, for a person.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> String {
        let Self { link, addresses, entries, threaded, forwarding, subnet_file } = self;
        let mut amiss = Vec::new();
        if link != &other.link {
            amiss.push(format!("the link is {link:?}, not {:?}", other.link));
        }
        if addresses != &other.addresses {
            amiss.push(format!("the addresses are {addresses:?}, not {:?}", other.addresses));
        }
        let missing = other.entries.iter().filter(|(key, value)| entries.get(*key) != Some(*value)).count();
        let surplus: Vec<_> = entries.iter().filter(|(key, _)| !other.entries.contains_key(*key)).take(SURPLUS_SHOWN).collect();
        if missing + surplus.len() > 0 {
            amiss.push(format!("{missing} entries of {} are missing or wrong; these are too many: {surplus:?}", other.entries.len()));
        }
        for (what, have, wanted) in [
            ("threaded", threaded, &other.threaded),
            ("ip_forward", forwarding, &other.forwarding),
            ("the subnet file", subnet_file, &other.subnet_file),
        ] {
            if have != wanted {
                amiss.push(format!("{what} is {have:?}, not {wanted:?}"));
            }
        }
        amiss.join("; ")
    }
}
