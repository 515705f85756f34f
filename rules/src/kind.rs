//! The properties of provider types that rules need: the name, and the family, which decides which
//! events a type accepts.
//!
//! The table itself is in tidings-workers. The executable passes it in.

/// Which events a provider type accepts, in addition to the criteria of the Alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Chats, incidents and queues: all events except those with `commit_status: update`.
    Message,
    /// generic and generic-hmac: all events.
    Generic,
    /// Commit statuses: events with a commit.
    CommitStatus,
    /// Comments on change requests: events with a change request, except those with `commit_status:
    /// update`.
    ChangeRequest,
}

/// A provider type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `spec.type` of the Provider.
    pub name: &'static str,
    /// Which events the type accepts.
    pub family: Family,
}

/// All types of this executable.
pub type Kinds = &'static [Kind];

/// Finds a type by name.
pub fn find(kinds: Kinds, name: &str) -> Option<Kind> {
    kinds.iter().copied().find(|kind| kind.name == name)
}
