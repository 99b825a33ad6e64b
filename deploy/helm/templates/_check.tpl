{{/* What an upgrade cannot do with a StatefulSet that is there, or would lose: said before anything is changed. */}}
{{- define "reco.checkQdrant" -}}
{{- $part := .Values.qdrant }}
{{- $name := printf "%s-qdrant" (include "reco.fullname" .) }}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace $name }}
{{- $nodes := int64 .spec.replicas }}
{{- if and (lt (int64 $part.replicaCount) $nodes) (not $part.allowScaleDown) }}
{{- fail (printf "qdrant.replicaCount: there are %d nodes, and %d would take the shards of the others with them: move those first, as docs/operations.md says, then set qdrant.allowScaleDown=true" $nodes (int64 $part.replicaCount)) }}
{{- end }}
{{- $sizes := dict "storage" $part.persistence.size "snapshots" (default $part.persistence.size $part.snapshotPersistence.size) }}
{{- range .spec.volumeClaimTemplates }}
{{- $wanted := get $sizes .metadata.name | toString }}
{{- if ne .spec.resources.requests.storage $wanted }}
{{- fail (printf "qdrant.persistence: a StatefulSet's claims cannot change, and the volume %s has %s instead of %s: enlarge the claims, then run kubectl -n %s delete statefulset %s --cascade=orphan, and upgrade again; docs/operations.md has the commands" .metadata.name .spec.resources.requests.storage $wanted $.Release.Namespace $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Thousandths of a CPU, and MiB, of a quantity. */}}
{{- define "reco.milli" -}}
{{- $text := toString . }}
{{- if hasSuffix "m" $text }}{{ trimSuffix "m" $text | int64 }}{{ else }}{{ mulf (float64 $text) 1000 | int64 }}{{ end }}
{{- end }}

{{- define "reco.mebi" -}}
{{- $number := regexFind "^[0-9.]+" (toString .) | float64 }}
{{- $unit := regexFind "[A-Za-z]+$" (toString .) }}
{{- $factors := dict "" 0.00000095367431640625 "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "k" 0.00095367431640625 "K" 0.00095367431640625 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625 }}
{{- mulf $number (get $factors $unit) | int64 }}
{{- end }}
