{{/* What an upgrade cannot do with a StatefulSet that is there, or would lose: said before anything is changed. */}}
{{- define "reco.checkQdrant" -}}
{{- $part := .Values.qdrant }}
{{- $name := printf "%s-qdrant" (include "reco.fullname" .) }}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- $nodes := int64 .spec.replicas }}
{{- if and (lt (int64 $part.replicaCount) $nodes) (not $part.allowScaleDown) }}
{{- fail (printf "qdrant.replicaCount: there are %d nodes, and %d would take the shards of the others with them: move those first, as docs/operations.md says, then set qdrant.allowScaleDown=true" $nodes (int64 $part.replicaCount)) }}
{{- end }}
{{- $differs := list }}
{{- $there := dict }}
{{- range .spec.volumeClaimTemplates }}{{ $_ := set $there .metadata.name . }}{{ end }}
{{- range $claim := include "reco.qdrantClaims" $ | fromYamlArray }}
{{- $volume := $claim.metadata.name }}
{{- with get $there $volume }}
{{- $size := .spec.resources.requests.storage }}
{{- $wanted := $claim.spec.resources.requests.storage }}
{{- if ne (include "reco.mebi" $size) (include "reco.mebi" $wanted) }}
{{- $differs = append $differs (printf "the volume %s has %s instead of %s" $volume $size (include "reco.text" $wanted)) }}
{{- end }}
{{- $pairs := dict "storageClassName" (list (index .spec "storageClassName") (index $claim.spec "storageClassName")) }}
{{- $_ := set $pairs "accessModes" (list .spec.accessModes $claim.spec.accessModes) }}
{{- $_ := set $pairs "annotations" (list (default dict (get .metadata "annotations")) (default dict (get $claim.metadata "annotations"))) }}
{{- range $field, $pair := $pairs }}
{{- if ne (first $pair | toJson) (last $pair | toJson) }}
{{- $differs = append $differs (printf "the volume %s has %s %s instead of %s" $volume $field (first $pair | toJson) (last $pair | toJson)) }}
{{- end }}
{{- end }}
{{- else }}
{{- $differs = append $differs (printf "there is no volume %s" $volume) }}
{{- end }}
{{- $_ := unset $there $volume }}
{{- end }}
{{- range $volume := keys $there }}{{ $differs = append $differs (printf "the volume %s would go" $volume) }}{{ end }}
{{- if $differs }}
{{- fail (printf "qdrant.persistence: a StatefulSet's claims cannot change, and %s: enlarge the claims where they are too small, then run kubectl -n %s delete statefulset %s --cascade=orphan, and upgrade again; docs/operations.md has the commands" (join ", " $differs) $.Release.Namespace $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The claims of each node. */}}
{{- define "reco.qdrantClaims" -}}
{{- $part := .Values.qdrant }}
{{- $class := $part.persistence.storageClassName }}
{{- $own := $part.snapshotPersistence.storageClassName }}
{{- $volumes := list (dict "name" "storage" "size" $part.persistence.size "class" $class) }}
{{- if $part.snapshotPersistence.enabled }}
{{- $size := default $part.persistence.size $part.snapshotPersistence.size }}
{{- $volumes = append $volumes (dict "name" "snapshots" "size" $size "class" (kindIs "invalid" $own | ternary $class $own)) }}
{{- end }}
{{- range $volumes }}
- metadata:
    name: {{ .name }}
    {{- with $part.persistence.annotations }}
    annotations: {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    accessModes: {{- toYaml $part.persistence.accessModes | nindent 6 }}
    {{- include "reco.storageClass" .class | nindent 4 }}
    resources: { requests: { storage: {{ .size | toJson }} } }
{{- end }}
{{- end }}

{{/* Thousandths of a CPU, and MiB, of a quantity. */}}
{{- define "reco.milli" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ trimSuffix "m" $text | int64 }}{{ else }}{{ mulf (float64 $text) 1000 | int64 }}{{ end }}
{{- end }}

{{- define "reco.mebi" -}}
{{- $text := include "reco.text" . }}
{{- $number := regexFind "^[0-9.]+([eE][0-9]+)?" $text | float64 }}
{{- $unit := regexFind "[A-Za-z]+$" $text }}
{{- $factors := dict "" 0.00000095367431640625 "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "Pi" 1073741824.0 "k" 0.00095367431640625 "K" 0.00095367431640625 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625 "P" 953674316.40625 }}
{{- mulf $number (get $factors $unit) | int64 }}
{{- end }}
