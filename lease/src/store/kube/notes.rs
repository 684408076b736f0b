//! What an operator should see with `kubectl describe node`.

/// Something to be told about our own Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeEvent {
    /// Whether a person has to act.
    pub kind: EventKind,
    /// One word in camel case, such as `DuplicatePodCIDR`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// How much a [`NodeEvent`] matters: Kubernetes knows these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It is good to know.
    Normal,
    /// A person should look.
    Warning,
}
