//! What a test does to a stand-in API server.

use std::collections::VecDeque;

/// How the server misbehaves.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Connections are taken and stay, and nothing is answered.
    pub(super) hang: bool,
    /// Whoever does not show this bearer token is turned away.
    pub(super) token: Option<String>,
    /// Verbs and resources that nobody may use.
    pub(super) forbidden: Vec<(String, String)>,
    /// The next requests are answered with these codes.
    pub(super) codes: VecDeque<u16>,
    /// So many pages of lists are sent before one is cut off in the middle.
    pub(super) cut_after: Option<usize>,
    /// The next write is done, and its answer cut off.
    pub(super) lose_reply: bool,
    /// How often all watches were closed.
    pub(super) closed: u64,
    /// Watches tell where they are when they have nothing to say.
    pub(super) bookmarks: u64,
}

impl Faults {
    /// Whether the page that is about to be sent is the one to cut off.
    pub(super) fn cuts_this_page(&mut self) -> bool {
        match self.cut_after {
            Some(0) => {
                self.cut_after = None;
                true
            }
            Some(left) => {
                self.cut_after = Some(left - 1);
                false
            }
            None => false,
        }
    }
}
