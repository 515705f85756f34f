//! Provider types as rules know them: a name, and the family that decides which events it takes.
//!
//! The table itself belongs to the workers; the executable hands it in.

/// Which events go to a provider type, beside what the Alert says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Chats, incidents, queues: everything but `commit_status: update`.
    Message,
    /// generic and generic-hmac: everything.
    Generic,
    /// The six forges' commit statuses: events that say which commit they are about.
    CommitStatus,
    /// Comments on change requests: events that name a change request, never `commit_status:
    /// update`.
    ChangeRequest,
}

/// One provider type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `spec.type` of the Provider.
    pub name: &'static str,
    /// Which events it takes.
    pub family: Family,
}

/// All types that this executable can deliver to.
pub type Kinds = &'static [Kind];

/// Finds a type by its name.
pub fn find(kinds: Kinds, name: &str) -> Option<Kind> {
    kinds.iter().copied().find(|kind| kind.name == name)
}
