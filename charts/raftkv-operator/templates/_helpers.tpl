{{- define "raftkv-operator.fullname" -}}
{{- if contains "raftkv-operator" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else if eq .Release.Name "raftkv" -}}
raftkv-operator
{{- else -}}
{{- printf "%s-raftkv-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What the network policies of the clusters let in, and what selects the operator's pods. */ -}}
{{- define "raftkv-operator.selector" -}}
app.kubernetes.io/name: raftkv-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "raftkv-operator.labels" -}}
{{ include "raftkv-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* The rights in each namespace that is served. No wildcard, no secrets, no exec. */ -}}
{{- define "raftkv-operator.rules" -}}
- apiGroups: [raftkv.io]
  resources: [raftkvclusters]
  verbs: [get, list, watch]
- apiGroups: [raftkv.io]
  resources: [raftkvclusters/status]
  verbs: [update]
# Owner references that block the owner's deletion need this where that is enforced.
- apiGroups: [raftkv.io]
  resources: [raftkvclusters/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
{{- end -}}
