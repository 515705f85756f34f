{{- define "tidings.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = .Release.Name -}}
{{- if not (contains "tidings" $name) -}}
{{- $name = printf "%s-tidings" $name -}}
{{- end -}}
{{- end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Arguments: root, component. */ -}}
{{- define "tidings.selector" -}}
app.kubernetes.io/name: tidings
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "tidings.labels" -}}
{{ include "tidings.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tidings.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidings.natsName" -}}
{{ include "tidings.fullname" . }}-nats
{{- end -}}

{{- /* Whether the chart runs NATS servers. */ -}}
{{- define "tidings.runsNats" -}}
{{- if and (eq .Values.mode "standard") .Values.nats.enabled }}true{{ end -}}
{{- end -}}

{{- define "tidings.natsPasswordSecret" -}}
{{- if eq .Values.mode "member" -}}
{{- else if .Values.nats.passwordSecret -}}
{{ .Values.nats.passwordSecret }}
{{- else if include "tidings.runsNats" . -}}
{{ include "tidings.natsName" . }}
{{- end -}}
{{- end -}}

{{- define "tidings.natsCaSecret" -}}
{{- if include "tidings.runsNats" . }}{{ .Values.nats.tlsSecret }}
{{- else }}{{ .Values.nats.external.caSecret }}
{{- end -}}
{{- end -}}

{{- define "tidings.natsCredentialsSecret" -}}
{{- if not (include "tidings.runsNats" .) }}{{ .Values.nats.external.credentialsSecret }}{{ end -}}
{{- end -}}

{{- /* Refuses values that the schema cannot judge. */ -}}
{{- define "tidings.validate" -}}
{{- range $key, $instead := dict "shutdown_grace" "shutdownGraceSeconds" "cluster" "cluster" -}}
{{- if hasKey $.Values.settings $key -}}
{{- fail (printf "settings.%s: set the value %s instead" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "listen" "admin" "data" -}}
{{- if hasKey $.Values.settings $key -}}
{{- fail (printf "settings.%s: the chart sets it; remove it" $key) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.mode "member" -}}
{{- with .Values.nats.external -}}
{{- if not .url -}}
{{- fail "nats.external.url: name the NATS servers of the hub" -}}
{{- end -}}
{{- if not .credentialsSecret -}}
{{- $secret := "the Secret with the member's credentials as the key nats.creds" -}}
{{- fail (printf "nats.external.credentialsSecret: name %s" $secret) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.mode "standard" -}}
{{- range $role := list "ingest" "worker" -}}
{{- $values := index $.Values $role -}}
{{- if and $values.keda.enabled $values.autoscaling.enabled -}}
{{- $why := "because both would set the replicas" -}}
{{- fail (printf "%s.keda.enabled: set %s.autoscaling.enabled to false, %s" $role $role $why) -}}
{{- end -}}
{{- if and $values.keda.enabled (not $values.keda.triggers) -}}
{{- fail (printf "%s.keda.triggers: list at least one trigger" $role) -}}
{{- end -}}
{{- range $kind := list "autoscaling" "keda" -}}
{{- $scaling := index $values $kind -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- $most := int $scaling.maxReplicas -}}
{{- fail (printf "%s.%s.minReplicas: must be at most maxReplicas, %d" $role $kind $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.nats -}}
{{- if and .enabled .external.url -}}
{{- fail "nats.external.url: set nats.enabled to false to use your own servers" -}}
{{- end -}}
{{- if and (not .enabled) (not .external.url) -}}
{{- fail "nats.external.url: name your NATS servers, or set nats.enabled to true" -}}
{{- end -}}
{{- if and (not .enabled) .external.username (not .passwordSecret) -}}
{{- fail "nats.passwordSecret: name the Secret with the password of nats.external.username" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The settings file, as a dict. */ -}}
{{- define "tidings.settings" -}}
{{- $settings := dict
  "cluster" .Values.cluster
  "listen" ":9090"
  "shutdown_grace" (printf "%ds" (int .Values.shutdownGraceSeconds))
  "log" (dict "format" "json") -}}
{{- if ne .Values.mode "member" -}}
{{- $_ := set $settings "rules" (dict "from" "cluster") -}}
{{- end -}}
{{- with .Values.endpoint.tokenReview -}}
{{- $review := dict -}}
{{- if ne (join "," .audiences) "tidings" }}{{ $_ := set $review "audiences" .audiences }}{{ end -}}
{{- with .users }}{{ $_ := set $review "users" . }}{{ end -}}
{{- if and .enabled $review -}}
{{- $_ := set $settings "ingest" (dict "auth" (dict "token_review" $review)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.console -}}
{{- if and .enabled .kubernetes.enabled (ne (join "," .kubernetes.audiences) "tidings-console") -}}
{{- $audiences := dict "audiences" .kubernetes.audiences -}}
{{- $_ := set $settings "console" (dict "kubernetes" $audiences) -}}
{{- end -}}
{{- end -}}
{{- if ne .Values.mode "standard" -}}
{{- $_ := set $settings "data" "/var/lib/tidings" -}}
{{- end -}}
{{- if eq .Values.mode "member" -}}
{{- $credentials := "/run/secrets/tidings-nats-credentials/nats.creds" -}}
{{- $nats := dict "url" .Values.nats.external.url "credentials" $credentials -}}
{{- $_ := set $settings "nats" $nats -}}
{{- end -}}
{{- if eq .Values.mode "standard" -}}
{{- $nats := dict -}}
{{- with .Values.nats -}}
{{- if .enabled -}}
{{- $_ := set $nats "url" (printf "nats://%s:4222" (include "tidings.natsName" $)) -}}
{{- $_ := set $nats "username" "tidings" -}}
{{- $_ := set $nats "replicas" 3 -}}
{{- $size := include "tidings.natsFileStore" $ | int -}}
{{- $_ := set $nats "storage_limit" (printf "%dGiB" (mul 3 $size)) -}}
{{- else -}}
{{- $_ := set $nats "url" .external.url -}}
{{- $_ := set $nats "replicas" (int .external.replicas) -}}
{{- with .external.username }}{{ $_ := set $nats "username" . }}{{ end -}}
{{- with .external.storageLimit }}{{ $_ := set $nats "storage_limit" . }}{{ end -}}
{{- if .external.credentialsSecret -}}
{{- $_ := set $nats "credentials" "/run/secrets/tidings-nats-credentials/nats.creds" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "tidings.natsPasswordSecret" . -}}
{{- $_ := set $nats "password_file" "/run/secrets/tidings-nats/password" -}}
{{- end -}}
{{- $_ := set $settings "nats" $nats -}}
{{- end -}}
{{- mustMergeOverwrite $settings (deepCopy .Values.settings) | toYaml -}}
{{- end -}}

{{- /* Nine tenths of a server's volume, in GiB. */ -}}
{{- define "tidings.natsFileStore" -}}
{{ div (mul 9 (int .Values.nats.storage.sizeGiB)) 10 }}
{{- end -}}

{{- define "tidings.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tidings.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "tidings.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 3
{{- end -}}

{{- /* Arguments: root, component, annotations. */ -}}
{{- define "tidings.podMetadata" -}}
labels:
  {{- include "tidings.selector" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) .annotations .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What every pod has, after its serviceAccountName. */ -}}
{{- define "tidings.podSpec" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "tidings.podSecurityContext" . | nindent 2 }}
{{- end -}}

{{- define "tidings.env" -}}
{{- if and (ne .Values.mode "single") (include "tidings.natsCaSecret" .) }}
- name: TIDINGS_NATS__TLS__CA
  value: /run/secrets/tidings-nats-tls/ca.crt
{{- end }}
- name: TIDINGS_CONFIG
  value: /etc/tidings/settings.yaml
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What the event endpoint needs: variables, mounts and volumes. */ -}}
{{- define "tidings.endpointEnv" -}}
{{- with .Values.endpoint -}}
{{- if .tokenReview.enabled }}
- name: TIDINGS_INGEST__AUTH__TOKEN_REVIEW__ENABLED
  value: "true"
{{- end }}
{{- if .tokensSecret }}
- name: TIDINGS_INGEST__AUTH__TOKENS
  value: /run/secrets/tidings-tokens
{{- end }}
{{- if .tlsSecret }}
- name: TIDINGS_INGEST__TLS__CERT
  value: /run/secrets/tidings-tls/tls.crt
- name: TIDINGS_INGEST__TLS__KEY
  value: /run/secrets/tidings-tls/tls.key
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tidings.endpointMounts" -}}
{{- with .Values.endpoint -}}
{{- if .tlsSecret }}
- name: endpoint-tls
  mountPath: /run/secrets/tidings-tls
  readOnly: true
{{- end }}
{{- if .tokensSecret }}
- name: endpoint-tokens
  mountPath: /run/secrets/tidings-tokens
  readOnly: true
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tidings.endpointVolumes" -}}
{{- with .Values.endpoint -}}
{{- with .tlsSecret }}
- name: endpoint-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- with .tokensSecret }}
- name: endpoint-tokens
  secret:
    secretName: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* Whether other pods can reach the console. */ -}}
{{- define "tidings.consoleIsServed" -}}
{{- with .Values.console -}}
{{- $has_tokens := or .viewTokensSecret .operateTokensSecret .kubernetes.enabled -}}
{{- if and .enabled $has_tokens (ne $.Values.mode "member") }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- /* What the console needs: variables, mounts and volumes. */ -}}
{{- define "tidings.consoleEnv" -}}
{{- with .Values.console -}}
{{- if .enabled }}
{{- $is_served := eq (include "tidings.consoleIsServed" $) "true" }}
- name: TIDINGS_CONSOLE__LISTEN
  value: {{ ternary ":8090" "127.0.0.1:8090" $is_served | quote }}
{{- if .viewTokensSecret }}
- name: TIDINGS_CONSOLE__TOKENS__VIEW
  value: /run/secrets/tidings-console-view
{{- end }}
{{- if .operateTokensSecret }}
- name: TIDINGS_CONSOLE__TOKENS__OPERATE
  value: /run/secrets/tidings-console-operate
{{- end }}
{{- if .kubernetes.enabled }}
- name: TIDINGS_CONSOLE__KUBERNETES__ENABLED
  value: "true"
{{- end }}
{{- if .tlsSecret }}
- name: TIDINGS_CONSOLE__TLS__CERT
  value: /run/secrets/tidings-console-tls/tls.crt
- name: TIDINGS_CONSOLE__TLS__KEY
  value: /run/secrets/tidings-console-tls/tls.key
{{- end }}
{{- with .hosts }}
- name: TIDINGS_CONSOLE__HOSTS
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tidings.consoleMounts" -}}
{{- with .Values.console -}}
{{- if .enabled -}}
{{- range $name := list "view" "operate" }}
{{- if index $.Values.console (printf "%sTokensSecret" $name) }}
- name: console-{{ $name }}
  mountPath: /run/secrets/tidings-console-{{ $name }}
  readOnly: true
{{- end }}
{{- end }}
{{- if .tlsSecret }}
- name: console-tls
  mountPath: /run/secrets/tidings-console-tls
  readOnly: true
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidings.consoleVolumes" -}}
{{- with .Values.console -}}
{{- if .enabled -}}
{{- range $name := list "view" "operate" }}
{{- with index $.Values.console (printf "%sTokensSecret" $name) }}
- name: console-{{ $name }}
  secret:
    secretName: {{ . }}
{{- end }}
{{- end }}
{{- with .tlsSecret }}
- name: console-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "tidings.natsMounts" -}}
{{- if include "tidings.natsPasswordSecret" . }}
- name: nats-password
  mountPath: /run/secrets/tidings-nats
  readOnly: true
{{- end }}
{{- if include "tidings.natsCaSecret" . }}
- name: nats-tls
  mountPath: /run/secrets/tidings-nats-tls
  readOnly: true
{{- end }}
{{- if include "tidings.natsCredentialsSecret" . }}
- name: nats-credentials
  mountPath: /run/secrets/tidings-nats-credentials
  readOnly: true
{{- end }}
{{- end -}}

{{- define "tidings.natsVolumes" -}}
{{- with include "tidings.natsPasswordSecret" . }}
- name: nats-password
  secret:
    secretName: {{ . }}
    items:
      - {key: password, path: password}
{{- end }}
{{- with include "tidings.natsCaSecret" . }}
- name: nats-tls
  secret:
    secretName: {{ . }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- with include "tidings.natsCredentialsSecret" . }}
- name: nats-credentials
  secret:
    secretName: {{ . }}
    items:
      - {key: nats.creds, path: nats.creds}
{{- end }}
{{- end -}}

{{- /* Spreads pods over nodes and zones. Arguments: root, component, hard, byRevision. */ -}}
{{- define "tidings.spread" -}}
{{- $ := . -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
{{- $is_hard := and $.hard (eq $key "kubernetes.io/hostname") }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" $is_hard }}
  {{- if $.byRevision }}
  matchLabelKeys: [pod-template-hash]
  {{- end }}
  labelSelector:
    matchLabels:
      {{- include "tidings.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
