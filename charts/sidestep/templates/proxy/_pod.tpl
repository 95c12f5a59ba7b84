{{- /* The proxy's file of limits and deadlines; empty if nothing is to be said. */ -}}
{{- define "sidestep.proxyConfig" -}}
{{- $drain := dict -}}
{{- range $name, $seconds := dict "grace" .Values.proxy.drain.graceSeconds "deadline" .Values.proxy.drain.deadlineSeconds -}}
{{- if not (kindIs "invalid" $seconds) }}{{ $_ := set $drain $name (printf "%ds" (int $seconds)) }}{{ end -}}
{{- end -}}
{{- $config := deepCopy .Values.proxy.config -}}
{{- if $drain }}{{ $_ := set $config "drain" $drain }}{{ end -}}
{{- if $config }}{{ toYaml $config }}{{ end -}}
{{- end -}}

{{- /* The pod template of a Deployment or a DaemonSet. */ -}}
{{- define "sidestep.proxyTemplate" -}}
{{- $config := include "sidestep.proxyConfig" . -}}
{{- with .Values.proxy -}}
metadata:
  labels:
    {{- include "sidestep.selector" (list $ "proxy") | nindent 4 }}
    {{- with .podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- if or $config .podAnnotations }}
  annotations:
    {{- with .podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- if $config }}
    checksum/config: {{ sha256sum $config }}
    {{- end }}
  {{- end }}
spec:
  {{- include "sidestep.pod" (list $ "proxy" .) | nindent 2 }}
  {{- if eq .kind "Deployment" }}
  {{- include "sidestep.spread" (list $ "proxy") | nindent 2 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add (ternary 5 .drain.graceSeconds (kindIs "invalid" .drain.graceSeconds)) (ternary 20 .drain.deadlineSeconds (kindIs "invalid" .drain.deadlineSeconds)) 5 }}
  containers:
    - name: proxy
      {{- include "sidestep.container" (list $ .) | nindent 6 }}
      args:
        - proxy
        - --ingress-class={{ $.Values.ingressClass.name }}
        - --fleet={{ .fleet }}
        - --fleet-service={{ include "sidestep.proxyService" $ }}
        {{- if $.Values.namespaced }}
        - --namespaced
        {{- end }}
        {{- if .tls.enabled }}
        - --listen-tls=0.0.0.0:8443
        {{- range $scope := .tls.secrets }}
        {{- range .names }}
        - --tls-secrets={{ $scope.namespace }}/{{ . }}
        {{- else }}
        - --tls-secrets={{ .namespace }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- with $.Values.apex }}{{ if .enabled }}
        - --apex-ports={{ .ports }}
        {{- end }}{{ end }}
        {{- with .workers }}
        - --proxy-workers={{ . }}
        {{- end }}
        {{- if .accessLog }}
        - --access-log=-
        {{- end }}
        {{- if $config }}
        - --proxy-config=/etc/sidestep/proxy.yaml
        {{- end }}
        {{- with .extraArgs }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        - name: http
          containerPort: 8000
          {{- with .hostPort }}
          hostPort: {{ . }}
          {{- end }}
        {{- if .tls.enabled }}
        - name: https
          containerPort: 8443
          {{- with .tlsHostPort }}
          hostPort: {{ . }}
          {{- end }}
        {{- end }}
        - {name: admin, containerPort: 9901}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
      # Not ready before the first table, and from SIGTERM on.
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 2
        failureThreshold: 1
      {{- if $config }}
      volumeMounts:
        - {name: config, mountPath: /etc/sidestep, readOnly: true}
  volumes:
    - name: config
      configMap: {name: {{ include "sidestep.fullname" $ }}-proxy}
      {{- end }}
{{- end -}}
{{- end -}}
