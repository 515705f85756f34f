//! Stable codes of log events and of HTTP error answers.
//!
//! Every log event has one in its field `code`, and every HTTP error answer in the field `code` of
//! its JSON body. Alerts and tests rely on codes; wording may change. `make docs` writes
//! `docs/reference/log-codes.md` from these tables.

/// One entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code: kebab-case, never reused for something else.
    pub code: &'static str,
    /// The highest log level it is used with, or the HTTP status.
    pub level: &'static str,
    /// What it means, and what to do.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($name:ident, $code:literal, $level:literal, $meaning:literal;)*) => {
        use super::Code;

        $(#[doc = $meaning] pub const $name: &str = $code;)*

        /// All entries, in the order of the table.
        pub const ALL: &[Code] =
            &[$(Code { code: $code, level: $level, meaning: $meaning }),*];
    };
}

/// Codes of log events.
pub mod log {
    codes! {
        STARTING, "starting", "info",
            "The process starts. The field `settings` holds its settings without secrets.";
        LISTENING, "listening", "info",
            "The process accepts connections at `address`; `role` is `ingest`, `admin` or \
             `console`.";
        MEMORY_PLANNED, "memory-planned", "info",
            "The process may use `limit` bytes of memory, as `from` says, and this is how they are \
             shared out.";
        QUOTA_CHANGED, "quota-changed", "info",
            "Ingest enforces this quota of its cluster from now on; 0 means no limit.";
        EDGE_CONNECTED, "edge-connected", "info",
            "The edge is connected to the hub and forwards events; `waiting` of them wait.";
        EDGE_CUT_OFF, "edge-cut-off", "warn",
            "The edge cannot forward events to the hub; `error` says why. It continues to accept \
             events while it has room, and forwards them later.";
        EDGE_EVENT_REFUSED, "edge-event-refused", "error",
            "A message in the edge's stream is no event, or names another cluster than its \
             subject. Ingest stores no such message, so another client of the edge's server did, \
             or its data is damaged. It is not forwarded.";
        EDGE_EVENT_HELD, "edge-event-held", "warn",
            "The next event of the edge is larger than the hub's server accepts. It waits, and all \
             later ones with it, until `max_payload` of the hub's server is raised, to 8 MB as on \
             the edge. Nothing is dropped.";
        EDGE_READ_BACK_LIMITED, "edge-read-back-limited", "warn",
            "The hub stored more events of the cluster since the recorded position than the edge \
             remembers. It remembers the last ones, at least 57,344; `left_out` are not \
             remembered. An event of the edge whose confirmation was lost is stored twice if other \
             processes of the cluster stored as many after it.";
        EDGE_QUOTA_NOT_KEPT, "edge-quota-not-kept", "warn",
            "The edge cannot record its quota on its own server, and retries. After a restart \
             without the hub it would enforce the one before.";
        EDGE_EVENTS_NOT_DELETED, "edge-events-not-deleted", "warn",
            "Events that the hub has are still stored on the edge. They are deleted when its \
             nats-server answers again.";
        MEMORY_LOW, "memory-low", "warn",
            "The memory limit is below what the role needs at least. The process works, but the \
             kernel may end it under load. Give its container more, or set `memory.limit`.";
        STOPPING, "stopping", "info",
            "The process received a signal. It accepts no new work and finishes what it holds.";
        GRACE_PERIOD_OVER, "grace-period-over", "info",
            "`shutdown_grace` is over. Unfinished messages return to the server for other \
             processes.";
        STOP_FORCED, "stop-forced", "info",
            "A second signal arrived. Unfinished messages return to the server at once.";
        STOPPED, "stopped", "info", "The process stopped normally.";
        NATS_CONNECTED, "nats-connected", "info", "The first connection to NATS succeeded.";
        NATS_UNREACHABLE, "nats-unreachable", "warn",
            "No connection to NATS yet. Check `nats.url`, credentials and TLS; the role is not \
             ready until it connects.";
        NATS_RECONNECTED, "nats-reconnected", "info", "The NATS client is connected again.";
        NATS_DISCONNECTED, "nats-disconnected", "warn",
            "The connection to NATS is lost. The client reconnects by itself.";
        NATS_CLIENT_ERROR, "nats-client-error", "warn",
            "The NATS client reports an error, such as a slow consumer.";
        NATS_SERVER_ERROR, "nats-server-error", "warn",
            "The NATS server reports an error, such as missing permissions.";
        NATS_EVENT, "nats-event", "debug", "Any other event of the NATS client.";
        NATS_SERVER_LOG, "nats-server-log", "error",
            "A line of the embedded nats-server's log, in the field `line`, at its own level.";
        NATS_SERVER_NOT_STARTED, "nats-server-not-started", "error",
            "`up` cannot start its nats-server. The first time it exits; later it retries. Check \
             the data folder and the executable.";
        NATS_SERVER_EXITED, "nats-server-exited", "error",
            "The embedded nats-server exited. `up` restarts it; stored messages are kept.";
        NATS_SERVER_RESTARTED, "nats-server-restarted", "warn",
            "`up` restarts its nats-server, because it kept a write error and its disk has room \
             again. Stored messages are kept.";
        NATS_SERVER_NOT_RESTARTED, "nats-server-not-restarted", "error",
            "The embedded nats-server keeps a write error and its disk has no room, see `error`. \
             Free space on the disk of the data folder.";
        NATS_SERVER_STALE, "nats-server-stale", "warn",
            "A nats-server of an earlier run still uses the data folder and is stopped.";
        MAX_PAYLOAD_SMALL, "max-payload-small", "warn",
            "The NATS server's `max_payload` is below 4 MiB, which the largest event needs. Raise \
             it; 8 MB is recommended.";
        STREAMS_UNAVAILABLE, "streams-unavailable", "warn",
            "The streams cannot be used yet. Ingest waits for a router or worker to create them.";
        PUBLISH_DENIED, "publish-denied", "error",
            "The NATS server refuses the events of ingest, see `error`. Check the permissions of \
             its NATS user. The role is not ready, and senders receive 503.";
        PUBLISH_FAILED, "publish-failed", "error",
            "Ingest cannot publish events, see `error`: the NATS server does not answer, or has no \
             stream for them. The role is not ready, and senders receive 503.";
        PUBLISH_ALLOWED, "publish-allowed", "info", "Ingest can publish events again.";
        STORAGE_WRITE_FAILED, "storage-write-failed", "error",
            "The NATS server cannot write to its disk, see `error`. The role is not ready. Free \
             space, then restart the server, which keeps a write error until then; `up` restarts \
             its own.";
        STORAGE_WRITABLE, "storage-writable", "info", "The NATS server can write again.";
        STREAM_INVALID, "stream-invalid", "error",
            "A stream is missing or its configuration differs, see `error`. Run `tidings streams \
             apply`.";
        STREAM_RECOVERED, "stream-recovered", "info",
            "A stream that was reported as invalid is valid again.";
        MEMORY_STREAM_RECREATED, "memory-stream-recreated", "info",
            "A bucket in memory is recreated: every restart of the NATS server empties it. The \
             roles fill it again within seconds.";
        STREAM_RECREATED, "stream-recreated", "error",
            "A stream or bucket was deleted. It is recreated, empty; its messages are lost.";
        DELIVERIES_LOST, "deliveries-lost", "error",
            "Deliveries are gone from DELIVERIES without an acknowledgement: `lost` of them, of \
             which `parked` were parked. The disk may be failing, or another client purged the \
             stream. Run `tidings replay --missing`.";
        DELIVERIES_SKIPPED, "deliveries-skipped", "error",
            "A consumer has passed stored deliveries without delivering them, which happens after \
             damage to a block. Delete the `consumer` of DELIVERIES: workers recreate it, and it \
             delivers everything that is stored.";
        EDGE_BACKLOGS_UNREADABLE, "edge-backlogs-unreadable", "warn",
            "A router cannot read what waits on edges, see `error`: \
             `tidings_fleet_edge_events_waiting` is not current. If permissions are refused, run \
             `tidings fleet update`.";
        HEARTBEAT_NOT_WRITTEN, "heartbeat-not-written", "debug",
            "The process could not report that it runs, see `error`. `tidings status` shows it as \
             missing after 20 s; nothing else depends on it.";
        COUNTS_UNAVAILABLE, "counts-unavailable", "warn",
            "The server's counts of DELIVERIES cannot be read or stored. Losses are found later.";
        STREAM_UPDATED, "stream-updated", "warn",
            "A stream's configuration differed and was changed, as `difference` says.";
        STREAM_LIMIT_REDUCED, "stream-limit-reduced", "warn",
            "The server has little storage. The stream is created with the smaller limit \
             `max_bytes`.";
        DEDUPE_INTERVAL_DIFFERS, "dedupe-interval-differs", "warn",
            "`ingest.dedupe_interval` differs from the duplicate window of the stream EVENTS, \
             which applies.";
        CONSUMER_RESTORED, "consumer-restored", "error",
            "A consumer was changed by another client. Its configuration is restored.";
        CONSUMER_RECREATED, "consumer-recreated", "error",
            "The server lost the state of a consumer, see `reason`. The consumer is recreated: \
             `router` after the last event that was acknowledged, others with all stored \
             deliveries. What was in progress may be repeated. With `storage` memory the server \
             still has the unreadable file: stop the server, delete the folder `obs/CONSUMER` of \
             the stream in its `store_dir`, and start it again.";
        CONSUMER_POSITION_UNKNOWN, "consumer-position-unknown", "error",
            "The consumer `router` is lost, and its recorded position cannot be used, see \
             `error`. The role is not ready until `tidings streams recreate-consumer` sets the \
             position.";
        CONSUMER_POSITION_NOT_RECORDED, "consumer-position-not-recorded", "warn",
            "The position of the consumer `router` could not be read or recorded.";
        PULL_FAILED, "pull-failed", "warn",
            "A pull from a consumer failed, see `error`. The role is not ready if it lasts.";
        ACK_NOT_SENT, "ack-not-sent", "debug",
            "An acknowledgement or progress report was not sent.";
        ACK_NOT_CONFIRMED, "ack-not-confirmed", "warn",
            "The server did not confirm an acknowledgement. The delivery may be made twice.";
        MESSAGE_NOT_RETURNED, "message-not-returned", "debug",
            "A message was not returned at shutdown. The server redelivers it after 30 s.";
        LATER_EVENTS_NOT_READ, "later-events-not-read", "warn",
            "Ingest could not read all events that follow a duplicate's first copy, see `error`. \
             The duplicate is stored, because the state of its object may have changed in between.";
        EVENTS_STATE_NOT_REPORTED, "events-state-not-reported", "warn",
            "A router or worker could not report the state of EVENTS to the members of the fleet, \
             which then know only an older one.";
        EVENT_STORED, "event-stored", "debug",
            "Ingest stored an event, or found it stored already.";
        EVENT_INVALID, "event-invalid", "debug",
            "Ingest rejected a request; the sender's answer names the field.";
        EVENT_NOT_STORED, "event-not-stored", "debug",
            "An event is not stored. The sender gets 503 or 413, or the Kubernetes Event is \
             retried.";
        EVENT_UNDECODABLE, "event-undecodable", "error",
            "A message in EVENTS is not an event. Another client may publish there.";
        EVENT_OF_OTHER_CLUSTER, "event-of-other-cluster", "error",
            "A message in EVENTS names the cluster `claimed`, but was published as cluster \
             `token`. It is refused. The member `token` is misconfigured or compromised: see \
             `tidings fleet revoke`.";
        ROUTING_AHEAD, "routing-ahead", "warn",
            "The clusters `causes` have a backlog. Until it is routed, events of the other \
             clusters are routed ahead of it.";
        ROUTING_AHEAD_ENDED, "routing-ahead-ended", "info",
            "The backlog is routed. All events are routed in order again.";
        ROUTING_AHEAD_FAILED, "routing-ahead-failed", "warn",
            "The consumer `router-ahead` cannot be read, created or deleted, see `error`. All \
             events are routed in order meanwhile.";
        EVENT_ROUTED, "event-routed", "debug",
            "An event was matched; `deliveries` says how many deliveries it caused.";
        EVENT_NOT_POSTPONED, "event-not-postponed", "warn",
            "It cannot be noted that an event must be matched again with the rules of its member. \
             The event is not acknowledged until it can.";
        CATCH_UP_FAILED, "catch-up-failed", "warn",
            "Events that were routed without the rules of their member cannot be read from the \
             bucket `consumers`. The router tries again. If NATS refuses it, run `tidings fleet \
             update`.";
        CAUGHT_UP, "caught-up", "info",
            "The rules of the member `source` are read, and this number of `events` that were \
             routed without them is matched.";
        POSTPONED_EVENT_FAILED, "postponed-event-failed", "error",
            "An event that was routed without the rules of its member cannot be matched with them, \
             see `error`. It is tried again within a minute; others are not delayed.";
        POSTPONED_EVENT_GONE, "postponed-event-gone", "error",
            "An event is not stored any more, and the rules of its member `source` were not read \
             until then, or it is no longer a source of rules. The Alerts of this member never saw \
             it.";
        EVENT_RETURNED, "event-returned", "debug",
            "Too many events of the namespace wait for costly patterns. The event is returned to \
             the server and delivered again soon.";
        BRIDGE_RETRYING, "bridge-retrying", "warn",
            "A bridge cannot forward events for now, see `error`, and tries again until it can. \
             Its role is not ready. Without --url, check that a stream has the subjects \
             `cloudevents.>`.";
        BRIDGE_REJECTED, "bridge-rejected", "error",
            "The URL of a bridge rejected an event five times (400, 413, 422), or the event is \
             larger than the NATS server accepts. It is not sent again; EVENTS still has it at \
             `sequence`.";
        BRIDGE_MISSED, "bridge-missed", "error",
            "EVENTS evicted `missed` events before a bridge read them. Let the bridge run, or \
             raise the limits of EVENTS.";
        BRIDGE_STARTED, "bridge-started", "info",
            "A bridge forwards events to `target`. `begin` says where a new consumer begins.";
        EVENT_FORWARDED, "event-forwarded", "debug", "A bridge finished an event.";
        PATTERN_TOO_COSTLY, "pattern-too-costly", "warn",
            "Patterns of an Alert would take too many steps for a message and were left out; \
             `fields` names the first. Simplify them: use smaller repetitions, anchors, or several \
             short patterns.";
        EVENTS_LOST, "events-lost", "error",
            "EVENTS evicted events before a router read them. Raise its limits or run more \
             routers.";
        ACCEPT_FAILED, "accept-failed", "warn",
            "The event or admin endpoint cannot accept a connection, for example because no file \
             descriptor is free.";
        BODY_REFUSED, "body-refused", "debug",
            "A body is too large, too slow, incomplete, or beyond the memory for bodies; see \
             `error`.";
        CONNECTION_FAILED, "connection-failed", "debug",
            "A sender's connection ended with an error.";
        HANDSHAKE_FAILED, "handshake-failed", "debug",
            "A TLS handshake failed, see `error`. Often the sender does not trust the certificate.";
        CERTIFICATE_LOADED, "certificate-loaded", "info",
            "The event endpoint uses the certificate of `ingest.tls.cert` for new connections. It \
             expires at `expires`.";
        CERTIFICATE_INVALID, "certificate-invalid", "error",
            "`ingest.tls.cert` and `ingest.tls.key` changed and cannot be used, see `error`. The \
             former certificate stays in use. Write a certificate and its key as PEM.";
        TOKENS_LOADED, "tokens-loaded", "info",
            "The tokens of `setting` take effect; `count` says how many. With 0, no token of that \
             list is accepted.";
        TOKENS_INVALID, "tokens-invalid", "error",
            "Tokens changed and cannot be used, see `error`. The former tokens stay in use, also \
             those that were to be removed. Correct the file or folder.";
        SENDER_REFUSED, "sender-refused", "warn",
            "Ingest refused a request, because its token is missing, unknown or not allowed, or \
             because too many other tokens were being reviewed; see \
             `reason` and `peer`. Flux sends no token. At most one line in ten seconds: `since` \
             counts the requests that were refused since the line before.";
        SENDER_ACCEPTED, "sender-accepted", "debug",
            "A sender's token is valid; `sender` is the name of the token or the user.";
        TOKEN_REVIEW_FAILED, "token-review-failed", "warn",
            "The Kubernetes API does not review tokens, see `error`. Senders whose tokens are not \
             known yet get 503, and so do callers of the console. Check the API server, and that \
             the account may create `tokenreviews`.";
        TOKEN_REVIEW_RECOVERED, "token-review-recovered", "info",
            "The Kubernetes API reviews tokens again.";
        ACCESS_REVIEW_FAILED, "access-review-failed", "warn",
            "The Kubernetes API does not say what callers of the console may do, see `error`. They \
             get 503. Check the API server, and that the account may create \
             `subjectaccessreviews`.";
        CONSOLE_REFUSED, "console-refused", "warn",
            "The console refused a request, see `reason` and `peer`. Repeated lines are left out.";
        CONSOLE_ACTION, "console-action", "info",
            "A caller of the console asked for `action` on `target`: see `who` and `peer`. The \
             stream `AUDIT` has it, too.";
        CONSOLE_READ_FAILED, "console-read-failed", "debug",
            "The console could not read something from the bus, see `error`.";
        TOKENS_WITHOUT_TLS, "tokens-without-tls", "warn",
            "`ingest.auth` or `console.tokens` is set for an `address` that is not loopback, but \
             `ingest.tls` or `console.tls` is not. Tokens can be read on the network, unless a \
             proxy or mesh encrypts it.";
        EVENT_WATCH_STARTED, "event-watch-started", "info",
            "This replica watches Kubernetes Events.";
        EVENT_WATCH_EXPIRED, "event-watch-expired", "info",
            "The watch of Kubernetes Events is too old. Ingest lists what came since.";
        EVENT_WATCH_FAILED, "event-watch-failed", "warn",
            "Kubernetes Events cannot be read. Check the API server and the role's RBAC.";
        EVENT_CURSOR_INVALID, "event-cursor-invalid", "warn",
            "Resource versions went back, as after a restore of etcd. Ingest lists Events by \
             time.";
        EVENT_CURSOR_NOT_SAVED, "event-cursor-not-saved", "warn",
            "The position in the Kubernetes Events is not saved. A new leader may read some \
             again.";
        EVENT_RECOVERY_FAILED, "event-recovery-failed", "warn",
            "The new leader cannot read the last events that the former leader stored.";
        KUBERNETES_EVENT_INVALID, "kubernetes-event-invalid", "debug",
            "A Kubernetes Event is not usable and is ignored.";
        KUBERNETES_EVENT_LOST, "kubernetes-event-lost", "error",
            "A Kubernetes Event is larger than the bus accepts and is lost.";
        LABELS_UNREADABLE, "labels-unreadable", "warn",
            "Labels of a kind cannot be read. `matchLabels` rules do not match until they can.";
        OBJECT_UNREADABLE, "object-unreadable", "debug", "One object's labels cannot be read.";
        LEADERSHIP_ACQUIRED, "leadership-acquired", "info",
            "This replica became the leader of the Lease.";
        LEADERSHIP_LOST, "leadership-lost", "info", "This replica is no longer the leader.";
        LEASE_UNAVAILABLE, "lease-unavailable", "warn",
            "The Lease cannot be read or written. Check the API server and RBAC.";
        LEASE_NOT_RENEWED, "lease-not-renewed", "warn", "One renewal of the Lease failed.";
        LEASE_LOST, "lease-lost", "warn",
            "The Lease was not renewed for `silent_seconds`. Another replica may lead now.";
        LEASE_NOT_RELEASED, "lease-not-released", "debug",
            "The Lease was not released at shutdown. It expires after 15 s.";
        LEASES_LOST, "leases-lost", "warn",
            "A worker could not renew its leases in time, because the bus did not answer or the \
             process stalled. Calls that write a state are cut off and retried, and other workers \
             may take its permits, probes and wake-ups.";
        LEASES_NOT_RENEWED, "leases-not-renewed", "debug",
            "One renewal of a worker's leases failed. It is repeated.";
        PROCESS_LEASE_ENDED, "process-lease-ended", "info",
            "A worker did not renew its leases. It is taken for dead, and others take over its \
             probes, permits, states and wake-ups.";
        LEADER_TASK_ABORTED, "leader-task-aborted", "warn",
            "The leader's work did not stop in time and was aborted.";
        RULES_LOADED, "rules-loaded", "info",
            "A snapshot of the rules takes effect, with this number of active `alerts` and \
             `providers`, and of `problems`.";
        MEMBER_RULES_UNREAD, "member-rules-unread", "warn",
            "The rules of the member `source` were not read since the process started. It works \
             without them, and uses them as soon as they are read. Check the member's API server \
             and its kubeconfig.";
        RULE_PROBLEM, "rule-problem", "error",
            "An object of the rules is rejected or cannot work (error), or is doubtful (warn). \
             The fields `file`, `line`, `object` and `field` say where; `problem` has the fix.";
        RULE_PROBLEM_RESOLVED, "rule-problem-resolved", "info",
            "A reported problem in the rules is resolved.";
        CLUSTERS_UNREADABLE, "clusters-unreadable", "warn",
            "The bucket `clusters` cannot be read. The last known clusters stay in effect; before \
             the first read nothing is pulled.";
        CLUSTERS_LOST, "clusters-lost", "error",
            "The bucket `clusters` was deleted. Running processes keep the last known labels and \
             restrictions; add the clusters again with `tidings fleet` before they restart.";
        RULES_READER_PANICKED, "rules-reader-panicked", "error",
            "The reader of the rules panicked. Restart the process and report the error.";
        RESOURCE_VERSION_REGRESSED, "resource-version-regressed", "warn",
            "The API server returned to an earlier state. All rules are read again.";
        FLUX_CRDS, "flux-crds", "warn",
            "The installed CRDs are Flux's. Extensions need annotations, and status needs the CRDs \
             of Tidings: `tidings crds`.";
        EXTENSIONS_RECREATED, "extensions-recreated", "error",
            "The bucket `extensions` was deleted. A running router writes what it knows again.";
        EXTENSIONS_MISSING, "extensions-missing", "error",
            "A role started and the bucket `extensions` did not exist, although EVENTS did. It was \
             deleted while no role ran, and kept restrictions are lost. After an update from a \
             version without this bucket that is expected once.";
        SCHEMA_UNREADABLE, "schema-unreadable", "warn",
            "The API server does not publish the schemas of Alert and Provider to this account. An \
             extension field that a user removes counts as lost: allow GET of `/openapi/v3`, or \
             run `tidings rules forget`.";
        FINALIZER_REMOVED, "finalizer-removed", "info",
            "The finalizer of notification-controller was removed from an object that is being \
             deleted.";
        FINALIZER_NOT_REMOVED, "finalizer-not-removed", "warn",
            "A finalizer cannot be removed. Check RBAC.";
        STATUS_CHECK_PANICKED, "status-check-panicked", "error",
            "Checking the rules for their status panicked. Statuses stay unchanged.";
        STATUS_REJECTED, "status-rejected", "error",
            "The API server rejected a status or an Event.";
        STATUS_NOT_WRITTEN, "status-not-written", "warn",
            "A status or an Event is not written yet.";
        STATUS_UNAVAILABLE, "status-unavailable", "warn",
            "The installed CRDs have no status subresource. Install the CRDs of Tidings.";
        STATUS_SOURCE_FAILED, "status-source-failed", "warn",
            "The stream that statuses are computed from cannot be read.";
        STATUS_POSITION_NOT_SAVED, "status-position-not-saved", "debug",
            "The position in the streams is not saved. The next leader reads an earlier part \
             again.";
        SHADOW_MODE, "shadow-mode", "warn",
            "The role runs in shadow mode: a router records what would have been delivered, a \
             worker pulls nothing, and nothing is sent. `tidings shadow report` has the result.";
        SHADOW_NOT_RECORDED, "shadow-not-recorded", "warn",
            "A record of shadow mode cannot be stored. The event is not acknowledged until it \
             can.";
        TRACES_NOT_EXPORTED, "traces-not-exported", "warn",
            "The collector at `origin`, the address of `otlp.endpoint`, did not take spans of \
             traces; `why` says what it answered. They are lost; events and deliveries are not \
             affected.";
        TEE_FAILED, "tee-failed", "warn",
            "A copy of an event was not accepted at `origin`, the address of `ingest.tee.url`. \
             The event itself is stored.";
        TEE_DROPPED, "tee-dropped", "warn",
            "A copy of an event was not sent to `origin`, because too many copies wait. The event \
             itself is stored.";
        NOTICE_STORED, "notice-stored", "info",
            "A notice of the watchdog or the fallback is stored for delivery.";
        NOTICE_NOT_STORED, "notice-not-stored", "warn",
            "The router cannot prepare a notice of the watchdog or the fallback. It tries again \
             within seconds.";
        NOTICE_PROVIDER_UNUSABLE, "notice-provider-unusable", "error",
            "The Provider of `watchdog.provider` or `fallback.provider` cannot send a notice; \
             `problem` says why and what to do.";
        NOTICE_FAILED, "notice-failed", "error",
            "Notices of the watchdog or the fallback became dead letters, or the circuit of the \
             fallback's Provider stays open. No notice reports this.";
        DELIVERY_NOT_STORED, "delivery-not-stored", "warn",
            "The router cannot store a delivery. The event is not acknowledged until it can.";
        DELIVERY_UNDECODABLE, "delivery-undecodable", "error",
            "A message in DELIVERIES is not a delivery. Another client may publish there.";
        DELIVERY_PARKED, "delivery-parked", "warn",
            "An attempt failed. The delivery waits for its next attempt; see `reason` and \
             `detail`.";
        DELIVERY_HELD_BACK, "delivery-held-back", "debug",
            "A delivery does not fit into the memory for deliveries, or into the share of its \
             namespace. It is parked for a moment; no attempt is counted.";
        DELIVERY_DEAD, "delivery-dead", "error",
            "A delivery was given up and is a dead letter. See `tidings dead show`.";
        DELIVERY_LEFT, "delivery-left", "warn",
            "The bus does not answer a request about a delivery. JetStream redelivers it after 30 \
             s.";
        ATTEMPT_ENDED, "attempt-ended", "debug",
            "An attempt ended: delivered, duplicate, superseded or skipped.";
        RESULT_NOT_STORED, "result-not-stored", "warn",
            "The result of an attempt is not stored yet. The delivery is not acknowledged until \
             it is.";
        OUTCOME_NOT_PUBLISHED, "outcome-not-published", "debug",
            "An outcome was not published to OUTCOMES. Nothing depends on it.";
        TEMPLATE_FAILED, "template-failed", "warn",
            "A template failed, see `error`. The standard text was sent.";
        STATE_CONFLICT, "state-conflict", "warn",
            "Two clusters write commit statuses with the same id, see `conflict`. Set \
             `commitStatus.id: qualified` in the `provider`.";
        EXPRESSION_CHILD_KILLED, "expression-child-killed", "warn",
            "A child process that evaluated the `commitStatusExpr` of `provider` was killed, see \
             `cause`. For `cpu-time` and `memory`, simplify the expression: until it changes, its \
             deliveries of the next ten minutes are dead letters. `deadline` means that the \
             machine is overloaded.";
        EXPRESSIONS_NOT_CHECKED, "expressions-not-checked", "warn",
            "The checks of expressions took so long that some were not made. They are made with \
             the next snapshot of the rules after ten minutes. `tidings check` makes all of them.";
        CIRCUIT_OPENED, "circuit-opened", "warn",
            "A destination is not called until `until`, because it failed or asked to wait.";
        CIRCUIT_CHANGED, "circuit-changed", "info",
            "The circuit of a destination changed its state.";
        CIRCUIT_WATCH_FAILED, "circuit-watch-failed", "warn",
            "The circuits in the bucket `limits` cannot be watched.";
        CALL_NOT_RECORDED, "call-not-recorded", "debug",
            "The result of a call is not recorded in its circuit.";
        PROBE_NOT_RECORDED, "probe-not-recorded", "warn",
            "The result of a probe is not recorded. Another probe follows within seconds.";
        DESTINATION_RESUMED, "destination-resumed", "info",
            "Calls to a destination resume, and `woken` parked deliveries with them.";
        WAKE_FAILED, "wake-failed", "warn",
            "Parked deliveries were not woken. A worker tries again while their circuit has a \
             pending wake-up. Otherwise they resume at their scheduled time.";
        TAKEOVER_FAILED, "takeover-failed", "debug",
            "A worker could not continue the probes and wake-ups of a dead one. It tries again.";
        CRASH_MARK_NOT_CLEARED, "crash-mark-not-cleared", "debug",
            "The mark of a redelivered delivery was not cleared after its attempt.";
    }
}

/// Codes of HTTP error answers.
pub mod http {
    codes! {
        NOT_FOUND, "not-found", "404", "No such path. Ingest accepts events at `/`.";
        TLS_REQUIRED, "tls-required", "400", "The address takes HTTPS only.";
        UNAUTHENTICATED, "unauthenticated", "401",
            "The request needs a valid bearer token: see `ingest.auth`, and for the console \
             `console.tokens`.";
        WRONG_HOST, "wrong-host", "403",
            "The console does not answer for this `Host`: add the name to `console.hosts`.";
        CROSS_SITE, "cross-site", "403",
            "The console does not answer requests from pages of other sites.";
        ROLE_NOT_ALLOWED, "role-not-allowed", "403",
            "An action on the console needs a token of `console.tokens.operate`.";
        NAMESPACE_NOT_ALLOWED, "namespace-not-allowed", "403",
            "The user may not get, or for an action update, `alerts` and `providers` in the \
             namespace: see [the console](../console.md#with-kubernetes).";
        INVALID_PARAMETER, "invalid-parameter", "400",
            "A parameter or the body of a request to the console is invalid. `error` names it.";
        CONSOLE_BUSY, "console-busy", "503",
            "The console answers as many requests, or sends as many streams, as it may. Try again.";
        NOT_IN_TIME, "not-in-time", "503",
            "The console could not answer in time. Try again, or ask for less.";
        SENDER_NOT_ALLOWED, "sender-not-allowed", "403",
            "The token is valid, but its user may not send events: see \
             `ingest.auth.token_review.users`.";
        METHOD_NOT_ALLOWED, "method-not-allowed", "405",
            "The path takes another method: events are sent by `POST`, and the console's API takes \
             `GET` except for actions.";
        INVALID_EVENT, "invalid-event", "400", "The body is not an event. `error` names the field.";
        INCOMPLETE_BODY, "incomplete-body", "400", "The body ended early or could not be read.";
        BODY_TIMEOUT, "body-timeout", "408", "The body did not arrive in time.";
        BODY_TOO_LARGE, "body-too-large", "413", "The body is above the limit of 3 MiB.";
        EVENT_TOO_LARGE, "event-too-large", "413",
            "The event is larger than the NATS server accepts. Raise its `max_payload`.";
        DUPLICATE_EVENT, "duplicate-event", "429", "The same event is stored already.";
        BUS_UNAVAILABLE, "bus-unavailable", "503",
            "The bus cannot be reached or did not confirm in time. Send the event again.";
        AUTHENTICATION_UNAVAILABLE, "authentication-unavailable", "503",
            "The Kubernetes API cannot be asked about the token, or about what its user may do. \
             Send the request again.";
        MEMORY_FULL, "memory-full", "503",
            "Events in memory reached their limit. Send the event again.";
        STORAGE_FULL, "storage-full", "503",
            "The storage of the bus is nearly full. Send the event again later.";
        STORAGE_FAILED, "storage-failed", "503",
            "The NATS server cannot write to its disk. Send the event again later.";
        ROUTER_BEHIND, "router-behind", "503",
            "The router is far behind and events would be evicted unread. Send the event again \
             later.";
        QUOTA_EXCEEDED, "quota-exceeded", "503",
            "This ingest process received more events or bytes than the quota of its cluster \
             allows. Send the event again later.";
    }
}
