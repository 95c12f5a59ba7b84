{{- define "sidestep.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "sidestep" $name) }}{{ $name = printf "%s-sidestep" $name }}{{ end -}}
{{- .Values.fullnameOverride | default $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* What is not in the release's own namespace: releases of one name in several must not call it the same. */ -}}
{{- define "sidestep.clusterName" -}}
{{- include "sidestep.fullname" . }}-{{ .Release.Namespace | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "sidestep.proxyService" -}}
{{- include "sidestep.fullname" . }}-proxy
{{- end -}}

{{- /* What a part's pods are selected by. Takes (list root part). */ -}}
{{- define "sidestep.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: sidestep
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* Takes (list root part). */ -}}
{{- define "sidestep.labels" -}}
{{- $root := index . 0 -}}
{{ include "sidestep.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "sidestep.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- /* What pods of both parts have in common. Takes (list root part values). */ -}}
{{- define "sidestep.pod" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "sidestep.fullname" $root }}-{{ $part }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $values.nodeSelector }}{{ toYaml . | nindent 2 }}{{ end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Over nodes and zones, each ReplicaSet's pods by themselves. Takes (list root part). */ -}}
{{- define "sidestep.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "sidestep.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{- /* What the containers of both parts have in common. Takes (list root values). */ -}}
{{- define "sidestep.container" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
image: {{ include "sidestep.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
env:
  - name: SIDESTEP_LOG
    value: {{ $values.logLevel | quote }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with $values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "sidestep.lease" -}}
argo-rollouts-controller-lock{{ with .Values.controller.instanceId }}-{{ . }}{{ end }}
{{- end -}}

{{- define "sidestep.leaseNamespace" -}}
{{- if .Values.controller.leaderElection.namespace -}}
{{ .Values.controller.leaderElection.namespace }}
{{- else if and (not .Values.namespaced) (lookup "v1" "Namespace" "" "argo-rollouts") -}}
argo-rollouts
{{- else -}}
{{ .Release.Namespace }}
{{- end -}}
{{- end -}}

{{- /* Roles of a part for the Secrets that values name. Takes (list root part scopes verbs). */ -}}
{{- define "sidestep.secrets" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $verbs := index . 3 -}}
{{- $account := printf "%s-%s" (include "sidestep.fullname" $root) $part -}}
{{- $role := printf "%s-%s-secrets" (include "sidestep.clusterName" $root) $part -}}
{{- range $index, $scope := index . 2 }}
{{- if and $root.Values.namespaced (ne .namespace $root.Release.Namespace) }}
{{- fail (printf "secrets of the %s: namespaced is set, and %s is another namespace" $part .namespace) }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $role }}-{{ $index }}
  namespace: {{ .namespace }}
  labels: {{- include "sidestep.labels" (list $root $part) | nindent 4 }}
rules:
  - apiGroups: [""]
    resources: [secrets]
    {{- with .names }}
    resourceNames: {{ toJson . }}
    {{- end }}
    verbs: [{{ $verbs }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $role }}-{{ $index }}
  namespace: {{ .namespace }}
  labels: {{- include "sidestep.labels" (list $root $part) | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $role }}-{{ $index }}}
subjects:
  - {kind: ServiceAccount, name: {{ $account }}, namespace: {{ $root.Release.Namespace }}}
{{- end }}
{{- end -}}
