//! What an event says about the state of its object: one table for commit statuses, incidents and
//! the duplicates that ingest detects.
//!
//! A severity is not a state. Flux's controllers report with severity info what succeeded, what is
//! in progress, and what waits. So the reason decides. A reason that is not known says nothing,
//! unless it ends in `Succeeded` or `Succeed`: a state that is missing is found, a false success is
//! believed.

use std::collections::BTreeMap;

use tidings_proto::v1::Event;

use crate::model::{flux, time};

/// A sender's time counts up to this long after the time of receipt.
const MOST_AHEAD_MS: i64 = 60_000;

/// The state of an object, as an event reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectState {
    /// What the object asks for is done.
    Success,
    /// It failed.
    Failure,
    /// It is in progress.
    Pending,
    /// The event says nothing about it.
    None,
}

impl ObjectState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Pending, Self::None];

    /// The name in manifests and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Pending => "pending",
            Self::None => "none",
        }
    }

    /// Parses a name. `None` if there is no such state.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Failure for success, and success for failure. The other states have no opposite.
    pub fn opposite(self) -> Option<Self> {
        match self {
            Self::Success => Some(Self::Failure),
            Self::Failure => Some(Self::Success),
            Self::Pending | Self::None => None,
        }
    }
}

/// The states that a Provider gives to reasons of severity info. They precede the table.
pub type ReasonStates = BTreeMap<String, ObjectState>;

/// Which events of a reason a row of the table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// All of them.
    Always,
    /// Those of sources: [`SOURCES`].
    ToSources,
    /// Those with the metadata `commit_status: update`.
    ToStatusUpdates,
}

/// A row of the table: the state that a reason of severity info stands for.
#[derive(Clone, Copy, Debug)]
pub struct ReasonRow {
    /// The reason, exactly as the event has it.
    pub reason: &'static str,
    /// Which events of the reason the row is about. The others say nothing.
    pub applies: Applies,
    /// The state.
    pub state: ObjectState,
    /// The controllers that report it with severity info, or did so.
    pub reported_by: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// The kinds of sources.
pub const SOURCES: [&str; 7] = [
    "ArtifactGenerator",
    "Bucket",
    "ExternalArtifact",
    "GitRepository",
    "HelmChart",
    "HelmRepository",
    "OCIRepository",
];

/// Endings of reasons that mean success if the table does not have them.
pub const SUCCESS_ENDINGS: [&str; 2] = ["Succeeded", "Succeed"];

/// The state that an event reports, by the table.
pub fn of(event: &Event) -> ObjectState {
    with(event, &ReasonStates::new())
}

/// The state that an event reports, by the Provider's own reasons and then by the table. Severity
/// error is always failure. A severity other than error, info and trace says nothing.
pub fn with(event: &Event, own: &ReasonStates) -> ObjectState {
    match event.severity.as_str() {
        "error" => ObjectState::Failure,
        "info" | "trace" => own
            .get(&event.reason)
            .copied()
            .unwrap_or_else(|| by_reason(event)),
        _ => ObjectState::None,
    }
}

/// When the event happened, in milliseconds since 1970: the sender's time, bounded by the time of
/// receipt plus a minute. A time out of range counts as the time of receipt.
pub fn time_ms(event: &Event) -> i64 {
    let received = time::proto_ms(event.received_at);
    let happened =
        time::from_proto(event.timestamp).map_or(received, |happened| happened.as_millisecond());
    happened.min(received + MOST_AHEAD_MS)
}

fn by_reason(event: &Event) -> ObjectState {
    let reason = event.reason.as_str();
    match REASONS.iter().find(|row| row.reason == reason) {
        Some(row) if row.applies_to(event) => row.state,
        Some(_) => ObjectState::None,
        None if SUCCESS_ENDINGS.iter().any(|end| reason.ends_with(end)) => ObjectState::Success,
        None => ObjectState::None,
    }
}

impl ReasonRow {
    fn applies_to(&self, event: &Event) -> bool {
        match self.applies {
            Applies::Always => true,
            Applies::ToSources => event
                .involved_object
                .as_ref()
                .is_some_and(|object| SOURCES.contains(&object.kind.as_str())),
            Applies::ToStatusUpdates => flux::is_status_update(event),
        }
    }
}

macro_rules! reasons {
    ($(
        $reason:literal, $applies:ident, $state:ident, $reported_by:literal, $meaning:literal;
    )*) => {
        /// The table, by state and reason.
        pub const REASONS: &[ReasonRow] = &[$(ReasonRow {
            reason: $reason,
            applies: Applies::$applies,
            state: ObjectState::$state,
            reported_by: $reported_by,
            meaning: $meaning,
        }),*];
    };
}

reasons! {
    "ArtifactUpToDate", ToSources, Success, "source",
        "The source has the newest revision.";
    "BucketOperationSucceed", Always, Success, "source (old)", "The bucket was read.";
    "BucketOperationSucceeded", Always, Success, "source", "The bucket was read.";
    "ChartPackageSucceeded", Always, Success, "source", "The chart was packaged.";
    "ChartPullSucceeded", Always, Success, "source", "The chart was pulled.";
    "DriftCorrected", Always, Success, "helm",
        "The cluster has again what the release asks for. No other event ends `DriftDetected`.";
    "GitOperationSucceed", Always, Success, "source (old)", "The repository was read.";
    "GitOperationSucceeded", Always, Success, "source", "The repository was read.";
    "IndexationSucceed", Always, Success, "source (old)", "The index was read.";
    "InstallSucceeded", Always, Success, "helm", "The release was installed.";
    "NewArtifact", ToSources, Success, "source", "A new revision is stored.";
    "Ready", ToSources, Success, "source-watcher", "The artifacts are generated.";
    "ReconciliationSucceeded", Always, Success,
        "kustomize, helm (old), image-reflector (old), image-automation (old), flux-operator",
        "The object is reconciled.";
    "Succeeded", Always, Success,
        "source, image-reflector, image-automation, notification",
        "The object is reconciled, or has recovered.";
    "TerraformAppliedSucceed", Always, Success, "tofu", "The plan was applied.";
    "TerraformDestroySucceed", Always, Success, "tofu", "The resources were destroyed, as asked.";
    "TestSucceeded", Always, Success, "helm", "The tests of the release passed.";
    "UpgradeSucceeded", Always, Success, "helm", "The release was upgraded.";
    "info", ToStatusUpdates, Success, "kustomize, image-automation (old)",
        "The event has no reason of its own. It is a success if it has the metadata \
         `commit_status: update`.";

    "Progressing", Always, Pending, "kustomize, flux-operator", "The object is being reconciled.";
    "TerraformPlanSucceed", Always, Pending, "tofu",
        "The plan waits for approval. Nothing is applied yet.";

    "ArtifactFailed", Always, None, "kustomize, helm, tofu",
        "The source's artifact is not available yet.";
    "AuthenticationFailed", Always, None, "source",
        "A way to log in is not available; others are tried.";
    "CacheOperationFailed", Always, None, "source", "An index was not cached.";
    "DependencyNotReady", Always, None, "kustomize, helm, image-reflector, tofu, flux-operator",
        "The object waits for another one.";
    "GarbageCollectionSucceeded", Always, None, "source", "Old artifacts were deleted.";
    "HealthCheckCanceled", Always, None, "kustomize, helm, flux-operator",
        "A newer reconciliation begins.";
    "HelmChartConfigured", Always, None, "helm", "The chart's source was changed.";
    "HelmChartCreated", Always, None, "helm", "The chart's source was created.";
    "HelmChartDeleted", Always, None, "helm", "The chart's source was deleted.";
    "HelmChartSyncErr", Always, None, "helm", "The chart's source was not written; it is retried.";
    "Migration", Always, None, "notification", "An Alert or Provider lost its old finalizer.";
    "NoArtifact", Always, None, "source", "An included repository has no artifact yet.";
    "NoSourceArtifact", Always, None, "source", "The chart waits for its source.";
    "NotFound", Always, None, "source", "An included repository does not exist yet.";
    "OutputsWritingFailed", Always, None, "tofu",
        "Outputs were written. The reason is also that of a failure, with severity error.";
    "PendingRelease", Always, None, "helm", "A release that was stuck was unlocked.";
    "ProgressingWithRetry", Always, None, "kustomize, helm, source, image-automation",
        "The object is retried after a failure, which lasts.";
    "ReconciliationDisabled", Always, None, "source-watcher", "An annotation disables the object.";
    "ResolvedDependencies", Always, None, "source", "The chart's dependencies are known.";
    "RollbackSucceeded", Always, None, "helm",
        "A failed release was rolled back. The failure lasts.";
    "Suspended", Always, None, "all", "The object is suspended.";
    "SymlinkUpdateFailed", Always, None, "source", "A link to the artifact was not updated.";
    "UninstallSucceeded", Always, None, "helm",
        "A release was uninstalled, after a failure or with its object.";
}

#[cfg(test)]
mod tests {
    use tidings_proto::v1::ObjectReference;

    use super::*;

    fn event(kind: &str, severity: &str, reason: &str) -> Event {
        Event {
            involved_object: Some(ObjectReference {
                kind: kind.into(),
                api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
                ..Default::default()
            }),
            severity: severity.into(),
            reason: reason.into(),
            ..Default::default()
        }
    }

    fn state(severity: &str, reason: &str) -> ObjectState {
        of(&event("Kustomization", severity, reason))
    }

    #[test]
    fn an_error_is_a_failure_whatever_its_reason() {
        for reason in [
            "",
            "HealthCheckFailed",
            "ReconciliationSucceeded",
            "Progressing",
        ] {
            assert_eq!(state("error", reason), ObjectState::Failure, "{reason}");
        }
        let own = ReasonStates::from([("Deployed".to_owned(), ObjectState::Success)]);
        assert_eq!(
            with(&event("App", "error", "Deployed"), &own),
            ObjectState::Failure
        );
    }

    #[test]
    fn an_info_is_a_success_only_if_its_reason_says_so() {
        for (reason, expected) in [
            ("ReconciliationSucceeded", ObjectState::Success),
            ("ApplySucceed", ObjectState::Success),
            ("SomethingNewSucceeded", ObjectState::Success),
            ("Progressing", ObjectState::Pending),
            ("DependencyNotReady", ObjectState::None),
            ("ArtifactFailed", ObjectState::None),
            ("ProgressingWithRetry", ObjectState::None),
            ("Suspended", ObjectState::None),
            ("RollbackSucceeded", ObjectState::None),
            ("UninstallSucceeded", ObjectState::None),
            ("GarbageCollectionSucceeded", ObjectState::None),
            ("SomethingNew", ObjectState::None),
            ("reconciliationsucceeded", ObjectState::None),
            ("SucceededNot", ObjectState::None),
            ("", ObjectState::None),
        ] {
            assert_eq!(state("info", reason), expected, "{reason}");
            assert_eq!(state("trace", reason), expected, "{reason}");
        }
        for severity in ["warning", "Info", ""] {
            assert_eq!(
                state(severity, "ReconciliationSucceeded"),
                ObjectState::None,
                "{severity}"
            );
        }
    }

    #[test]
    fn an_artifact_is_a_success_of_sources_only() {
        for reason in ["NewArtifact", "ArtifactUpToDate", "Ready"] {
            for kind in SOURCES {
                assert_eq!(
                    of(&event(kind, "info", reason)),
                    ObjectState::Success,
                    "{kind}"
                );
            }
            assert_eq!(state("info", reason), ObjectState::None, "{reason}");
        }
    }

    #[test]
    fn an_update_of_the_status_without_a_reason_is_a_success() {
        let mut update = event("Kustomization", "info", "info");
        assert_eq!(of(&update), ObjectState::None);
        let key = "kustomize.toolkit.fluxcd.io/commit_status";
        update.metadata.insert(key.into(), "update".into());
        assert_eq!(of(&update), ObjectState::Success);
        update.reason = "DependencyNotReady".into();
        assert_eq!(of(&update), ObjectState::None, "the reason decides");
    }

    #[test]
    fn a_providers_reasons_precede_the_table() {
        let own = ReasonStates::from([
            ("Deployed".to_owned(), ObjectState::Success),
            ("DriftCorrected".to_owned(), ObjectState::None),
        ]);
        assert_eq!(
            with(&event("App", "info", "Deployed"), &own),
            ObjectState::Success
        );
        assert_eq!(
            with(&event("App", "info", "DriftCorrected"), &own),
            ObjectState::None
        );
        assert_eq!(
            with(&event("App", "info", "TestSucceeded"), &own),
            ObjectState::Success
        );
    }

    #[test]
    fn the_table_has_each_reason_once_ordered_by_state_and_reason() {
        let place = |row: &ReasonRow| {
            let state = ObjectState::ALL
                .iter()
                .position(|state| *state == row.state);
            (state, row.reason)
        };
        assert!(REASONS.is_sorted_by(|a, b| place(a) < place(b)));
        let mut reasons: Vec<_> = REASONS.iter().map(|row| row.reason).collect();
        reasons.sort_unstable();
        assert!(reasons.is_sorted_by(|a, b| a < b), "{reasons:?}");
        for row in REASONS {
            assert!(row.applies == Applies::Always || row.state == ObjectState::Success);
        }
    }

    #[test]
    fn states_are_parsed_by_name_and_two_are_opposites() {
        for state in ObjectState::ALL {
            assert_eq!(ObjectState::parse(state.as_str()), Some(state));
        }
        assert_eq!(ObjectState::parse("Success"), None);
        assert_eq!(ObjectState::Success.opposite(), Some(ObjectState::Failure));
        assert_eq!(ObjectState::Failure.opposite(), Some(ObjectState::Success));
        assert_eq!(ObjectState::Pending.opposite(), None);
    }
}
