//! Who this host is: the same after a restart, a reboot or a change of address; different on a clone with another network card.
//!
//! The [`Owner`] is derived from the machine's id and the underlay interface's MAC, in Kubernetes from the Node's name; the VTEP's
//! MAC from that. All are promises to the store: what goes into the digests never changes.

use std::fs;
use std::path::Path;

use lease::{Boot, Family, MacAddr, Owner, Vni};
use sha2::{Digest, Sha256};

/// What the digests begin with, so that none is ever taken for another use of the machine's id (machine-id(5) asks for that).
const OWNER_DOMAIN: &str = "loden owner v1";
const NODE_DOMAIN: &str = "loden node v1";
const VTEP_DOMAIN: &str = "loden vtep mac v1";
const VTEP_V6_DOMAIN: &str = "loden vtep mac v1 ipv6";
const BOOT_DOMAIN: &str = "loden boot v1";

/// Where the machine's id is (machine-id(5)); the second is D-Bus's, on machines without systemd.
const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// What tells this machine from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its id, or its name where it has none.
    pub id: String,
    /// What a person should know of it.
    pub warning: Option<String>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn read() -> Self {
        let name = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::from_files(&MACHINE_ID.map(Path::new), &name)
    }

    fn from_files(files: &[&Path], hostname: &str) -> Self {
        let id = files.iter().find_map(|path| machine_id(&fs::read_to_string(path).ok()?));
        match id {
            Some(id) => Self { id, warning: None },
            None => Self {
                id: format!("hostname {hostname}"),
                warning: Some(format!(
                    "{} holds no machine id: this host is told from others by its name {hostname:?} and its network card; run systemd-machine-id-setup",
                    MACHINE_ID.join(" or ")
                )),
            },
        }
    }

    /// The identity of this machine with this card.
    #[must_use]
    pub fn owner(&self, underlay: MacAddr) -> Owner {
        let Self { id, warning: _ } = self;
        Owner::new(first(&digest(&[OWNER_DOMAIN.as_bytes(), id.as_bytes(), &underlay.octets()])))
    }
}

/// The identity of a Node of Kubernetes: that is its name, whatever machine it is today.
#[must_use]
pub fn node_owner(name: &str) -> Owner {
    Owner::new(first(&digest(&[NODE_DOMAIN.as_bytes(), name.as_bytes()])))
}

/// This boot of the machine; none where the kernel does not tell (random(4)).
#[must_use]
pub fn boot() -> Option<Boot> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(Boot::new(u64::from_be_bytes(first(&digest(&[BOOT_DOMAIN.as_bytes(), id.trim().as_bytes()])))))
}

/// The VTEP's MAC where neither the lease nor the device has one: the same at every start.
#[must_use]
pub fn vtep_mac(owner: Owner, vni: Vni, family: Family) -> MacAddr {
    let domain = family.pick(VTEP_DOMAIN, VTEP_V6_DOMAIN);
    let digest = digest(&[domain.as_bytes(), owner.to_string().as_bytes(), &vni.get().to_be_bytes()]);
    MacAddr::new(first(&digest)).locally_administered()
}

/// 32 hex digits, and not the placeholders of an image that has not been booted yet.
fn machine_id(text: &str) -> Option<String> {
    let id = text.trim();
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then(|| id.to_ascii_lowercase())
}

/// SHA-256 over the parts, each with its length in front so that none runs into the next.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn first<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    const { assert!(N <= 32) };
    let mut octets = [0; N];
    octets.iter_mut().zip(digest).for_each(|(octet, from)| *octet = *from);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const CARD: MacAddr = MacAddr::new([0x52, 0x54, 0, 0, 0, 1]);
    const OTHER_CARD: MacAddr = MacAddr::new([0x52, 0x54, 0, 0, 0, 2]);

    fn machine(id: &str) -> Machine {
        Machine { id: id.to_owned(), warning: None }
    }

    #[test]
    fn machine_and_card_make_the_owner_and_nothing_else_does() {
        let owner = machine(ID).owner(CARD);
        assert_eq!(owner, machine(ID).owner(CARD));
        assert_ne!(owner, machine(ID).owner(OTHER_CARD));
        assert_ne!(owner, machine("fedcba9876543210fedcba9876543210").owner(CARD));
    }

    #[test]
    fn the_derivation_is_a_promise_and_stays_what_it_is() {
        let owner = machine(ID).owner(CARD);
        assert_eq!(owner.to_string(), "dc0fe6da37acde96a41598d5f03e325d");
        assert_eq!(vtep_mac(owner, Vni::new(1).unwrap(), Family::V4).to_string(), "b2:6e:ec:24:3d:de");
    }

    #[test]
    fn the_vtep_mac_is_a_local_station_address_of_its_own_for_each_vni_and_family() {
        let owner = machine(ID).owner(CARD);
        let macs: Vec<MacAddr> =
            (0..64).flat_map(|vni| Family::ALL.map(|family| vtep_mac(owner, Vni::new(vni).unwrap(), family))).collect();
        assert!(macs.iter().all(|mac| mac.is_station() && *mac == mac.locally_administered()));
        let mut distinct = macs.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), macs.len());
    }

    #[test]
    fn the_first_good_file_counts_and_without_one_the_name_does_with_a_warning() {
        let root = tempfile::tempdir().unwrap();
        let (etc, dbus) = (root.path().join("etc"), root.path().join("dbus"));
        let files = [etc.as_path(), dbus.as_path()];
        let nameless = Machine::from_files(&files, "host1");
        assert_eq!(nameless.id, "hostname host1");
        assert!(nameless.warning.unwrap().contains("systemd-machine-id-setup"));
        for placeholder in ["", "uninitialized\n", "00000000000000000000000000000000\n"] {
            fs::write(&etc, placeholder).unwrap();
            fs::write(&dbus, format!("{}\n", ID.to_uppercase())).unwrap();
            assert_eq!(Machine::from_files(&files, "host1"), machine(ID), "{placeholder:?}");
        }
    }
}
