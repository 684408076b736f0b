//! A store's health, changed only when that is news: nobody is told the same at each attempt.

use std::fmt::Display;

use tokio::sync::watch;

use super::Health;

/// It answers; returns whether that is news.
pub(super) fn up(health: &watch::Sender<Health>) -> bool {
    health.send_if_modified(|health| {
        let changed = *health != Health::Up;
        *health = Health::Up;
        changed
    })
}

/// It does not, and this is why; returns whether that is news. A store that is down already stays so for the reason told first, unless
/// this one has to be told too.
pub(super) fn down(health: &watch::Sender<Health>, why: &impl Display, in_any_case: bool) -> bool {
    health.send_if_modified(|health| {
        let changed = in_any_case || !matches!(health, Health::Down(_));
        if changed {
            *health = Health::Down(why.to_string());
        }
        changed
    })
}
