//! The numbers of the rtnetlink interface that are used here, from the kernel's include/uapi/linux (v6.18). They are ABI:
//! the kernel never changes one.

/// netlink.h: message types, request flags, the mask that leaves an attribute's type.
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
/// rtnetlink.h: where its own message types begin (`RTM_BASE`).
pub(super) const RTM_BASE: u16 = 16;

pub(super) const NLM_F_REQUEST: u16 = 0x01;
pub(super) const NLM_F_ACK: u16 = 0x04;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_CAPPED: u16 = 0x100;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// The same bits have other meanings in requests that put something.
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;

pub(super) const NLA_F_NESTED: u16 = 0x8000;
pub(super) const NLA_TYPE_MASK: u16 = 0x3fff;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;

/// rtnetlink.h: message types.
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;
pub(super) const RTM_NEWNETCONF: u16 = 80;

/// rtnetlink.h: multicast groups.
pub(super) const RTNLGRP_LINK: u32 = 1;
pub(super) const RTNLGRP_NEIGH: u32 = 3;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(super) const RTNLGRP_IPV4_ROUTE: u32 = 7;
pub(super) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(super) const RTNLGRP_IPV6_ROUTE: u32 = 11;
pub(super) const RTNLGRP_IPV4_NETCONF: u32 = 24;
pub(super) const RTNLGRP_IPV6_NETCONF: u32 = 25;

/// include/linux/socket.h: address families.
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

/// if.h, if_link.h: links.
pub(super) const IFF_UP: u32 = 1;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_EXT_MASK: u16 = 29;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const IFLA_INET6_CONF: u16 = 2;
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
pub(super) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// ipv6.h: the place of `accept_ra` among the words of `IFLA_INET6_CONF`.
pub(super) const DEVCONF_ACCEPT_RA: usize = 3;
/// rtnetlink.h: leaves counters out of a link's description.
pub(super) const RTEXT_FILTER_SKIP_STATS: u32 = 8;

/// if_link.h: VXLAN.
pub(super) const IFLA_VXLAN_ID: u16 = 1;
pub(super) const IFLA_VXLAN_LINK: u16 = 3;
pub(super) const IFLA_VXLAN_LOCAL: u16 = 4;
pub(super) const IFLA_VXLAN_LEARNING: u16 = 7;
pub(super) const IFLA_VXLAN_PORT: u16 = 15;
pub(super) const IFLA_VXLAN_LOCAL6: u16 = 17;
pub(super) const IFLA_VXLAN_GBP: u16 = 23;
pub(super) const IFLA_VXLAN_COLLECT_METADATA: u16 = 25;
pub(super) const IFLA_VXLAN_GPE: u16 = 27;
pub(super) const IFLA_VXLAN_VNIFILTER: u16 = 30;

/// if_addr.h: addresses.
pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFA_FLAGS: u16 = 8;
/// `IFA_F_TEMPORARY` of IPv6, `IFA_F_SECONDARY` of IPv4.
pub(super) const IFA_F_TEMPORARY: u32 = 0x01;
pub(super) const IFA_F_DADFAILED: u32 = 0x08;
pub(super) const IFA_F_DEPRECATED: u32 = 0x20;
pub(super) const IFA_F_TENTATIVE: u32 = 0x40;
pub(super) const IFA_F_NODAD: u8 = 0x02;

/// neighbour.h: neighbours and FDB.
pub(super) const NDA_DST: u16 = 1;
pub(super) const NDA_LLADDR: u16 = 2;
pub(super) const NDA_CACHEINFO: u16 = 3;
pub(super) const NDA_IFINDEX: u16 = 8;
pub(super) const NDA_LINK_NETNSID: u16 = 10;
pub(super) const NTF_SELF: u8 = 0x02;
pub(super) const NTF_PROXY: u8 = 0x08;
pub(super) const NUD_NOARP: u16 = 0x40;
pub(super) const NUD_PERMANENT: u16 = 0x80;

/// rtnetlink.h: routes.
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_PREFSRC: u16 = 7;
pub(super) const RTA_CACHEINFO: u16 = 12;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_PREF: u16 = 20;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTPROT_KERNEL: u8 = 2;
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(super) const RT_SCOPE_LINK: u8 = 253;
pub(super) const RT_SCOPE_NOWHERE: u8 = 255;
pub(super) const RTNH_F_ONLINK: u32 = 4;
pub(super) const RTM_F_CLONED: u32 = 0x200;

/// netconf.h: settings of interfaces.
pub(super) const NETCONFA_IFINDEX: u16 = 1;
pub(super) const NETCONFA_FORWARDING: u16 = 2;
/// `NETCONFA_IFINDEX_ALL`, -1: all interfaces.
pub(super) const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;
