//! The limit of open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files as far as the system allows, as servers in Go do. Returns the
/// limit.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised,
        Err(_) => limit,
    };
    in_force.current.unwrap_or(u64::MAX)
}

/// The number of connections from senders, of which at most a third of the open files is for them:
/// the rest is for the bus, services, rules and the admin endpoint.
pub fn connections_within(most: usize, files: u64) -> usize {
    let third = usize::try_from(files / 3).unwrap_or(usize::MAX);
    most.min(third.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_file_descriptors() {
        assert_eq!(connections_within(1024, 1_048_576), 1024);
        assert_eq!(connections_within(1024, 1024), 341);
        assert_eq!(connections_within(1024, 0), 1);
        assert!(raise_limit() > 0);
    }
}
