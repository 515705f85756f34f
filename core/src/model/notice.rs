//! Notices: deliveries of Tidings about itself.

use crate::model::terms::terms;

terms! {
    /// What a notice is for.
    pub enum NoticeKind in label "notice" {
        Watchdog = "watchdog",
            "Sent in each interval. Its absence says that notifications do not work.";
        Fallback = "fallback", "Reports dead letters, and circuits that stay open.";
    }
}

terms! {
    /// A failure that no fallback notice reports: the notice would cause the next failure.
    pub enum NoticeExclusion in label "what" {
        DeadLetter = "dead-letter", "A notice became a dead letter.";
        Circuit = "circuit", "A circuit of the fallback's Provider stays open.";
    }
}
