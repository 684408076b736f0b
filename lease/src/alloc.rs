//! Which subnet to lease: a random one of the first that are free, as flanneld chooses.
//!
//! Pure: what is taken and the randomness are passed in. Subnets of other lengths that overlap count as taken.

use crate::config::{NetworkConfig, Pool};

use crate::{LeaseKey, Rng, Subnet};

/// How many of the free subnets, from the lowest on, the choice is made among: flannel's `subnet/etcd` takes 100.
pub const CANDIDATES: usize = 100;

/// No subnet can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// Every subnet of the pool is leased.
    #[error(
        "no subnet is free: all {} of length {} from {} to {} in {} are leased; release some, or widen Network or SubnetMax in the configuration",
        .0.size(), .0.subnet_len, .0.min, .0.max, .0.network
    )]
    Exhausted(Pool),
    /// Neither family has a pool; a configuration that was parsed has one.
    #[error("the network configuration has neither an IPv4 nor an IPv6 network")]
    NoPool,
}

/// A key of which every subnet is free, each drawn among the first [`CANDIDATES`] of its family.
///
/// # Errors
/// [`AllocError`], with the pool that has none left.
pub fn choose(config: &NetworkConfig, taken: &[LeaseKey], rng: &mut Rng) -> Result<LeaseKey, AllocError> {
    let mut draw = |pool: Option<Pool>, family: fn(LeaseKey) -> Option<Subnet>| {
        let Some(pool) = pool else { return Ok(None) };
        let candidates = first_free(&pool, taken.iter().filter_map(|key| family(*key)), CANDIDATES);
        candidates.get(rng.below(candidates.len())).copied().map(Some).ok_or(AllocError::Exhausted(pool))
    };
    LeaseKey::new(draw(config.v4, LeaseKey::v4)?, draw(config.v6, LeaseKey::v6)?).ok_or(AllocError::NoPool)
}

/// The lowest subnets of the pool, at most `wanted`, that overlap nothing that is taken.
#[must_use]
pub fn first_free(pool: &Pool, taken: impl IntoIterator<Item = Subnet>, wanted: usize) -> Vec<Subnet> {
    let Some((mut next, last)) = pool.index_of(pool.min).zip(pool.index_of(pool.max)) else { return Vec::new() };
    let mut blocked: Vec<(u128, u128)> = taken.into_iter().filter_map(|subnet| blocked_by(pool, subnet)).collect();
    blocked.sort_unstable();
    let mut free = Vec::new();
    // A last block behind the end, so that the gap before it is walked like every other.
    for (from, to) in blocked.into_iter().chain([(last + 1, last + 1)]) {
        while next < from.min(last + 1) {
            if free.len() == wanted {
                return free;
            }
            free.extend(pool.at(next));
            next += 1;
        }
        next = next.max(to + 1);
    }
    free
}

/// The numbers, first and last, of the pool's subnets that overlap `subnet`.
fn blocked_by(pool: &Pool, subnet: Subnet) -> Option<(u128, u128)> {
    if subnet.covers(pool.network) {
        return Some((0, u128::MAX >> 1));
    }
    if !pool.network.covers(subnet) {
        return None;
    }
    let first = pool.index_of(Subnet::containing(subnet.address(), pool.subnet_len).ok()?)?;
    // At most 126 bits, since a subnet is at least two bits longer than the network: the sum cannot overflow.
    let more = (1_u128 << pool.subnet_len.saturating_sub(subnet.len()).min(126)) - 1;
    Some((first, first + more))
}

#[cfg(test)]
#[path = "alloc_tests.rs"]
mod tests;
