{{- define "faceclip.envoy" -}}
static_resources: {}
{{- end }}
