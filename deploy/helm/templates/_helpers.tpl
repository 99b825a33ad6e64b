{{- define "reco.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "reco.keys" -}}
{{ .Values.auth.existingSecret | default (printf "%s-keys" (include "reco.fullname" .)) }}
{{- end }}

{{/* Labels by which pods are found: a dict of root and component. */}}
{{- define "reco.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Metadata of an object: a dict of root, component, name, and annotations or labels of its own. */}}
{{- define "reco.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "reco.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
  {{- with merge dict .root.Values.commonLabels (default dict .labels) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of a pod: a dict of root, component and part. Without the chart's version, which is no reason to start it again. */}}
{{- define "reco.podMetadata" -}}
labels:
  {{- include "reco.selector" . | nindent 2 }}
  reco/triton: {{ include "reco.fullname" .root | quote }} # Triton's policy lets it through
  {{- with merge dict .part.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .part.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* An image: a dict of image and the tag where none is named. */}}
{{- define "reco.image" -}}
{{- if .image.digest }}{{ printf "%s@%s" .image.repository .image.digest | quote }}
{{- else }}{{ printf "%s:%s" .image.repository (default .tag .image.tag) | quote }}{{ end }}
{{- end }}

{{- define "reco.serviceImage" -}}
{{ include "reco.image" (dict "image" .Values.image "tag" (printf "%s%s" .Chart.AppVersion (.Values.triton.enabled | ternary "" "-cpu"))) }}
{{- end }}

{{/* A setting as the text of a variable: numbers without an exponent, lists joined by commas. */}}
{{- define "reco.text" -}}
{{- if kindIs "slice" . }}{{ $texts := list }}{{ range . }}{{ $texts = append $texts (include "reco.text" .) }}{{ end }}{{ join "," $texts }}
{{- else if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* Variables of a container, each name once: a dict of own (name -> entry), settings (name -> value) and extra (entries).
     Those out of secrets come first, since another may name them as $(NAME). A secret in plain text is refused, as the
     release would show it. */}}
{{- define "reco.env" -}}
{{- $all := .own }}
{{- range $name, $value := .settings }}{{ $_ := set $all $name (dict "value" (include "reco.text" $value)) }}{{ end }}
{{- range .extra }}{{ $_ := set $all .name (omit . "name") }}{{ end }}
{{- $secrets := list "RECO_SERVE_API_KEYS" "RECO_SERVE_ADMIN_KEY" "RECO_MEMORY_API_KEY" "RECO_ENCODER_KEY" "RECO_TRITON_HEADERS" "RECO_INDEX_PASSWORD" "RECO_INDEX_API_KEY" }}
{{- range $name, $entry := $all }}
{{- $value := toString $entry.value }}
{{- if and (hasKey $entry "value") (not (contains "$(" $value)) }}
{{- if has $name $secrets }}{{ fail (printf "%s: a key belongs in a secret: see auth.existingSecret, memory.existingSecret, and valueFrom in extraEnv" $name) }}{{ end }}
{{- if regexMatch "://[^/?]*@" $value }}{{ fail (printf "%s (of memory.url, settings or extraEnv): a URL with a user or password would stand in the release: put the key into memory.existingSecret, or the URL into a secret for extraEnv" $name) }}{{ end }}
{{- end }}
{{- end }}
{{- range $secret := list true false }}
{{- range $name := keys $all | sortAlpha }}
{{- $entry := get $all $name }}
{{- if eq (hasKey $entry "valueFrom") $secret }}
{{ list (merge (dict "name" $name) $entry) | toYaml }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where models and memory are: a dict of root and the key of the memory's secret. */}}
{{- define "reco.clientEnv" -}}
{{- $values := .root.Values }}
{{- if not $values.settings.RECO_MODEL }}
RECO_MODEL: { value: /models }
{{- end }}
{{- if $values.triton.enabled }}
RECO_TRITON_URL: { value: {{ printf "grpc://%s-triton:8001" (include "reco.fullname" .root) | quote }} }
{{- end }}
{{- with $values.memory.url }}
RECO_MEMORY: { value: {{ . | quote }} }
{{- if not (regexMatch "^(https?|grpcs?)://" .) }}{{ fail (printf "memory.url: %q has no scheme: write http://, https://, grpc:// or grpcs:// before it" .) }}{{ end }}
{{- else }}
RECO_MEMORY: { value: /memory/reco }
{{- end }}
{{- with $values.memory.existingSecret }}
RECO_MEMORY_API_KEY: { valueFrom: { secretKeyRef: { name: {{ . | quote }}, key: {{ $.key }} } } }
{{- end }}
{{- end }}

{{/* What every pod has: a dict of root, part (its values), component and grace (seconds). */}}
{{- define "reco.pod" -}}
serviceAccountName: {{ include "reco.fullname" .root | quote }}
automountServiceAccountToken: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
enableServiceLinks: false # Kubernetes would set RECO_... variables, and the plugin warns of those that it does not know
terminationGracePeriodSeconds: {{ .grace }}
securityContext: {{- toYaml .part.podSecurityContext | nindent 2 }}
{{- range $name := list "priorityClassName" "runtimeClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.part $name }}
{{ dict $name . | toYaml }}
{{- end }}
{{- end }}
{{- if not .part.affinity }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: {{ include "reco.selector" $ | fromYaml | toJson }} }
  {{- end }}
{{- end }}
{{- end }}

{{/* The container that copies the model folder out of its image, and the volume that it fills. */}}
{{- define "reco.modelsContainer" -}}
{{- if not (or .Values.settings.RECO_MODEL .Values.models.existingClaim) }}
- name: models # one image for the service and Triton, so that both have the same model
  image: {{ include "reco.image" (dict "image" .Values.models.image "tag" .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.models.image.pullPolicy }}
  command: [cp, -r, /models/., /target]
  resources: { requests: { cpu: 100m, memory: 64Mi }, limits: { memory: 64Mi } }
  securityContext: {{- toYaml .Values.securityContext | nindent 4 }}
  volumeMounts: [{ name: models, mountPath: /target }]
{{- end }}
{{- end }}

{{- define "reco.modelsVolume" -}}
{{- if not .Values.settings.RECO_MODEL }}
- name: models
  {{- with .Values.models.existingClaim }}
  persistentVolumeClaim: { claimName: {{ . | quote }}, readOnly: true }
  {{- else }}
  emptyDir: { sizeLimit: {{ .Values.models.sizeLimit }} }
  {{- end }}
{{- end }}
{{- end }}

{{/* A budget of disruptions: a dict of root, component, name and maxUnavailable. */}}
{{- define "reco.budget" -}}
{{- if not (kindIs "invalid" .maxUnavailable) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "reco.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .maxUnavailable }}
  selector: { matchLabels: {{ include "reco.selector" . | fromYaml | toJson }} }
{{- end }}
{{- end }}

{{/* Callers come from outside of the cluster, or keys are wanted: the service then does not start without. */}}
{{- define "reco.keysRequired" -}}
{{- if or .Values.auth.required .Values.ingress.enabled (ne .Values.service.type "ClusterIP") }}true{{ end }}
{{- end }}
