//! stand-in
use crate::IfIndex;
use lease::{MacAddr, Mtu};
use std::net::IpAddr;
/// x
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    pub index: IfIndex,
    pub name: String,
    pub mtu: Mtu,
    pub mac: MacAddr,
    pub address: IpAddr,
    pub public_ip: IpAddr,
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UnderlayError(pub String);
