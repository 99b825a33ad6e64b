{{/* Names: `reco` for a release of that name, RELEASE-reco for others. Short enough for what is put behind it. */}}
{{- define "reco.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "reco.fullname" -}}
{{- $name := include "reco.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Of the secrets and of the account. */}}
{{- define "reco.keys" -}}
{{ default (printf "%s-keys" (include "reco.fullname" .)) .Values.auth.existingSecret }}
{{- end }}

{{- define "reco.qdrantKeys" -}}
{{ default (printf "%s-qdrant-keys" (include "reco.fullname" .)) .Values.memory.existingSecret }}
{{- end }}

{{- define "reco.account" -}}
{{ default (.Values.serviceAccount.create | ternary (include "reco.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{/* Labels by which the pods of a part are selected. Takes a dict of root and component. */}}
{{- define "reco.selector" -}}
app.kubernetes.io/name: {{ include "reco.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All labels of an object: a dict of root, component and labels of its own. Those of the chart win: others are found by them. */}}
{{- define "reco.labels" -}}
{{- $own := include "reco.selector" . | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") }}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- merge $own (deepCopy (default dict .labels)) (default dict .root.Values.commonLabels | deepCopy) | toYaml }}
{{- end }}

{{/* Head of an object: a dict of root, component, name and, where it has some, labels and annotations. */}}
{{- define "reco.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels: {{- include "reco.labels" . | nindent 2 }}
{{- with merge (deepCopy (default dict .annotations)) (default dict .root.Values.commonAnnotations | deepCopy) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image: a dict of root, image and the tag where none is named. A digest wins over the tag. */}}
{{- define "reco.image" -}}
{{- $registry := get (default dict .root.Values.global) "imageRegistry" }}
{{- $name := $registry | empty | ternary .image.repository (printf "%s/%s" $registry .image.repository) }}
{{- $tag := default .tag .image.tag }}
{{- .image.digest | empty | ternary (printf "%s:%s" $name $tag) (printf "%s@%s" $name .image.digest) | quote }}
{{- end }}

{{- define "reco.serviceImage" -}}
{{ include "reco.image" (dict "root" . "image" .Values.image "tag" (printf "%s%s" .Chart.AppVersion (.Values.triton.enabled | ternary "" "-cpu"))) }}
{{- end }}

{{/* A setting as the text of a variable: numbers never with an exponent, lists joined by commas. */}}
{{- define "reco.text" -}}
{{- if kindIs "slice" . -}}
{{- $texts := list -}}
{{- range . }}{{ $texts = append $texts (include "reco.text" .) }}{{ end -}}
{{- join "," $texts -}}
{{- else if kindIs "string" . -}}
{{- . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}

{{/* Variables: a dict of own (name -> the rest of the entry), settings (name -> value) and extra (entries). Each name once.
     One may name another as $(NAME) that stands before it. So first come the chart's that come from elsewhere, then the user's
     in their order, then the others. */}}
{{- define "reco.env" -}}
{{- $all := deepCopy .own }}
{{- range $name, $value := .settings }}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $all $name (dict "value" (include "reco.text" $value)) }}{{ end }}
{{- end }}
{{- $extra := dict }}
{{- range .extra }}{{ $_ := set $extra .name (omit . "name") }}{{ end }}
{{- $names := list }}
{{- range $name, $entry := $all }}
{{- if and (hasKey $entry "valueFrom") (not (hasKey $extra $name)) }}{{ $names = append $names $name }}{{ end }}
{{- end }}
{{- range .extra }}{{ $names = append $names .name }}{{ end }}
{{- range $name := keys $all | sortAlpha }}{{ $names = append $names $name }}{{ end }}
{{- $entries := list }}
{{- range $name := uniq $names }}
{{- $entry := hasKey $extra $name | ternary (get $extra $name) (get $all $name) }}
{{- if hasKey $entry "value" }}{{ $entry = dict "value" (include "reco.text" $entry.value) }}{{ end }}
{{- $entries = append $entries (merge (dict "name" $name) $entry) }}
{{- end }}
{{- toYaml $entries }}
{{- end }}

{{/* Whether there is a model folder: not where an API encodes. */}}
{{- define "reco.hasModel" -}}
{{- if not (get (default dict .Values.settings) "RECO_ENCODER") }}true{{ end }}
{{- end }}

{{/* What asks the models and the memory has of variables: service, jobs. A dict of root and the key of Qdrant's secret. */}}
{{- define "reco.clientEnv" -}}
{{- $full := include "reco.fullname" .root }}
{{- $values := .root.Values }}
{{- if include "reco.hasModel" .root }}
RECO_MODEL: { value: /models }
{{- end }}
{{- if $values.triton.enabled }}
RECO_TRITON_URL: { value: {{ printf "grpc://%s-triton:8001" $full | quote }} }
{{- end }}
RECO_MEMORY: { value: {{ $values.qdrant.enabled | ternary (printf "http://%s-qdrant:6333" $full) $values.memory.url | quote }} }
{{- if or $values.qdrant.auth (not $values.qdrant.enabled) }}
RECO_MEMORY_API_KEY:
  valueFrom:
    secretKeyRef: { name: {{ include "reco.qdrantKeys" .root | quote }}, key: {{ .key }}, optional: {{ not $values.qdrant.enabled }} }
{{- end }}
{{- end }}

{{/* The name of the label is the part, its value the release's full name: only its own clients get through. */}}
{{- define "reco.clientLabels" -}}
reco/memory: {{ include "reco.fullname" . | quote }}
reco/triton: {{ include "reco.fullname" . | quote }}
{{- end }}

{{/* A probe: a dict of probe, path and port. Another handler wins. */}}
{{- define "reco.probe" -}}
{{- $probe := default dict .probe | deepCopy }}
{{- if not (or (hasKey $probe "httpGet") (hasKey $probe "tcpSocket") (hasKey $probe "exec") (hasKey $probe "grpc")) }}
{{- $_ := set $probe "httpGet" (dict "path" .path "port" .port) }}
{{- end }}
{{- toYaml $probe }}
{{- end }}

{{/* Seconds that the start may take, by its probe, with ten minutes more for the image and the models. */}}
{{- define "reco.startSeconds" -}}
{{- $probe := default dict . }}
{{- $period := default 10 $probe.periodSeconds | int64 }}
{{- add 600 (default 0 $probe.initialDelaySeconds | int64) (mul $period (default 3 $probe.failureThreshold | int64)) }}
{{- end }}

{{/* What every pod has: a dict of root, part (its values), component and grace (seconds, where the part names none). */}}
{{- define "reco.pod" -}}
{{- $selector := include "reco.selector" . | fromYaml }}
serviceAccountName: {{ include "reco.account" .root | quote }}
automountServiceAccountToken: false
{{- with concat (default list .root.Values.imagePullSecrets) (get (default dict .root.Values.global) "imagePullSecrets" | default list) }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
enableServiceLinks: false # Kubernetes would set RECO_... variables, and the plugin refuses what it does not know
terminationGracePeriodSeconds: {{ default .grace (get .part "terminationGracePeriodSeconds") | int64 }}
securityContext: {{- toYaml .part.podSecurityContext | nindent 2 }}
{{- with .part.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .part.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .part.schedulerName }}
schedulerName: {{ . | quote }}
{{- end }}
{{- with .part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (default list .tolerations) (default list .part.tolerations) }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default .affinity .part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if hasKey .part "topologySpreadConstraints" }}
topologySpreadConstraints:
  {{- $spread := list }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  {{- $spread = append $spread (dict "topologyKey" . "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway") }}
  {{- end }}
  {{- range default $spread .part.topologySpreadConstraints }}
  {{- list (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $selector))) | toYaml | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Labels and annotations of a pod: a dict of root, part, component, and labels and annotations of the chart. Without the
     chart's version: another one is no reason to start Qdrant again, or to fill it. */}}
{{- define "reco.podMetadata" -}}
{{- $own := merge (include "reco.selector" . | fromYaml) (deepCopy (default dict .labels)) }}
labels: {{- merge $own (default dict .part.podLabels | deepCopy) (default dict .root.Values.commonLabels | deepCopy) | toYaml | nindent 2 }}
{{- with merge (default dict .part.podAnnotations | deepCopy) (default dict .annotations) (default dict .root.Values.commonAnnotations | deepCopy) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* By which a Prometheus without the operator finds a pod. */}}
{{- define "reco.scrape" -}}
{{- if .root.Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* The container that copies the model folder, where that comes as an image; a dict of root and part. */}}
{{- define "reco.modelsContainer" -}}
{{- $models := .root.Values.models }}
{{- if and (include "reco.hasModel" .root) (not $models.existingClaim) }}
- name: models # manifest and tokenizer for the service, graphs for who runs them: one image, so that all have the same model
  image: {{ include "reco.image" (dict "root" .root "image" $models.image "tag" .root.Chart.AppVersion) }}
  imagePullPolicy: {{ $models.image.pullPolicy }}
  command: [cp, -r, /models/., /target]
  terminationMessagePolicy: FallbackToLogsOnError
  resources: {{- toYaml $models.resources | nindent 4 }}
  securityContext: {{- toYaml .part.securityContext | nindent 4 }}
  volumeMounts: [{ name: models, mountPath: /target }]
{{- end }}
{{- end }}

{{/* An image without a runtime would start, and never be ready: say so before. A dict of root and part. */}}
{{- define "reco.runtimeContainer" -}}
{{- if and (include "reco.hasModel" .root) (not (or .root.Values.triton.enabled (hasKey (default dict .root.Values.settings) "RECO_TRITON_URL"))) }}
- name: runtime
  image: {{ .image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [python, -c]
  args:
    - |
      import importlib.util
      import sys
      if not any(map(importlib.util.find_spec, ("onnxruntime", "openvino"))):
          sys.exit("this image cannot run models: take the variant cpu or gpu of deploy/Dockerfile, or set triton.enabled=true")
  terminationMessagePolicy: FallbackToLogsOnError
  resources: {{- toYaml .root.Values.models.resources | nindent 4 }}
  securityContext: {{- toYaml .part.securityContext | nindent 4 }}
{{- end }}
{{- end }}

{{- define "reco.modelsVolume" -}}
{{- if include "reco.hasModel" . }}
{{- with .Values.models }}
- name: models
  {{- if .existingClaim }}
  persistentVolumeClaim: { claimName: {{ .existingClaim | quote }}, readOnly: true }
  {{- else }}
  emptyDir: { sizeLimit: {{ .sizeLimit | toJson }} }
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Rules of a policy by which names are found. */}}
{{- define "reco.dns" -}}
{{- with .Values.networkPolicy }}
- to: {{- toYaml .dns | nindent 4 }}
  ports:
    {{- range .dnsPorts }}
    - { port: {{ int64 . }}, protocol: UDP }
    - { port: {{ int64 . }}, protocol: TCP }
    {{- end }}
{{- end }}
{{- end }}

{{/* The port of a URL, by its scheme where it names none; a dialect may stand before that, as in openai+https://. */}}
{{- define "reco.port" -}}
{{- $url := urlParse (contains "://" . | ternary (regexReplaceAll "^[a-z]+\\+" . "") (printf "http://%s" .)) }}
{{- $named := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- default (get (dict "http" "80" "https" "443" "grpc" "8001" "grpcs" "8001") $url.scheme) $named }}
{{- end }}

{{/* Whether callers come from outside of the cluster. */}}
{{- define "reco.isPublished" -}}
{{- if or .Values.ingress.enabled (ne .Values.service.type "ClusterIP") }}true{{ end }}
{{- end }}

{{/* The service then does not start without keys, and asks for one at /metrics. */}}
{{- define "reco.keysRequired" -}}
{{- if or .Values.auth.required .Values.metrics.key (include "reco.isPublished" .) }}true{{ end }}
{{- end }}

{{- define "reco.metricsKey" -}}
{{- if and (or .Values.metrics.key (include "reco.isPublished" .)) (not (hasKey (default dict .Values.settings) "RECO_SERVE_METRICS_KEY")) }}true{{ end }}
{{- end }}

{{/* A class of storage: nothing for null, "" for "-". */}}
{{- define "reco.storageClass" -}}
{{- if not (kindIs "invalid" .) }}
storageClassName: {{ eq . "-" | ternary "" . | quote }}
{{- end }}
{{- end }}
