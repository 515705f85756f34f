//! What an alert decides about an event.

use crate::model::terms::terms;

terms! {
    /// What an alert decides about an event.
    pub enum Verdict in label "verdict" {
        Matched = "matched", "A delivery is planned.";
        AlertSuspended = "alert-suspended", "The alert has `suspend: true`.";
        NoEventSourceMatches = "no-event-source-matches",
            "No entry of `eventSources` names the event's object.";
        BelowSeverity = "below-severity",
            "The event's severity is below the alert's `eventSeverity`.";
        LabelsDiffer = "labels-differ", "The object does not have the labels of `matchLabels`.";
        LabelsUnknown = "labels-unknown",
            "`matchLabels` is set, and the labels of the object are not known.";
        MessageNotIncluded = "message-not-included",
            "No pattern of `inclusionList` matches the message.";
        MessageExcluded = "message-excluded", "A pattern of `exclusionList` matches the message.";
        PatternTooCostly = "pattern-too-costly",
            "No pattern of `inclusionList` matches the message, and some would take too many steps \
             to decide.";
        OtherCluster = "other-cluster",
            "`clusters` or `clusterSelector` does not select the event's cluster.";
        ClusterNotVisible = "cluster-not-visible",
            "The hub does not show the event's cluster to the alert's namespace (`tidings fleet \
             add --visible-to`).";
        NotTheLocalCluster = "not-the-local-cluster",
            "`rules.local_cluster_only` is set, and the event is from another cluster.";
        NotTheMembersCluster = "not-the-members-cluster",
            "The alert lives in a member of the fleet, and the event is from another cluster.";
        CrossNamespaceRefused = "cross-namespace-refused",
            "The object is in another namespace than the alert, and \
             `rules.no_cross_namespace_refs` is set.";
        ProviderNotGranted = "provider-not-granted",
            "The provider is in another namespace, and no ProviderGrant there shares it with the \
             alert's namespace.";
        ProviderSuspended = "provider-suspended", "The provider has `suspend: true`.";
        NotACommitStatusProvider = "not-a-commit-status-provider",
            "The event has the metadata `commit_status: update` and the provider does not write \
             commit statuses.";
        NoCommit = "no-commit",
            "The provider writes commit statuses, and the event names no commit, or its reason \
             stands for no state that the provider writes.";
        NoChangeRequest = "no-change-request",
            "The provider writes comments on change requests, and the event does not name one.";
    }
}
