//! The agent as a whole: a real process on hosts in network namespaces, with a real etcd.

mod alloc;
mod bad_input;
mod bad_records;
mod cluster;
mod commands;
mod conflicts;
mod direct_routing;
mod dual_stack;
mod fights;
mod forward;
mod handover;
mod healing;
mod kube;
mod kube_faults;
mod last_state;
mod leases;
mod live_config;
mod networks;
mod packet_filter;
mod peer_filter;
mod peers;
mod restart;
mod security;
mod start;
mod store;
mod underlay;
