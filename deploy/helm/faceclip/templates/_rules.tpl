{{/* Alerts. What to do about each: docs/kubernetes.md, under its name. */}}
{{- define "faceclip.rules" -}}
{{- $s := include "faceclip.series" . -}}
# --------------------------------------------------------------------------------------------------- somebody has to get up
- alert: FaceCLIPNoServer
  expr: absent(faceclip_draining{ {{- $s -}} } == 0)
  for: 2m
  labels: {severity: critical}
  annotations:
    summary: No server of {{ .Release.Name }} takes requests.
    runbook: docs/kubernetes.md#faceclipnoserver
- alert: FaceCLIPRefusing
  expr: |-
    sum(rate(faceclip_refusals_total{ {{- $s -}} ,reason="full"}[2m])) / 4
    > 0.05 * {{ include "faceclip.arrivals" . }}
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: Servers of {{ .Release.Name }} are so full that more than 5 % of the requests find no place.
    runbook: docs/kubernetes.md#facecliprefusing
- alert: FaceCLIPFailing
  expr: |-
    sum(rate(faceclip_requests_total{ {{- $s -}} ,outcome=~"error|not_a_number"}[5m]))
    > 0.01 * sum(rate(faceclip_requests_total{ {{- $s -}} }[5m]))
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: More than 1 % of the requests to {{ .Release.Name }} fail by a fault of the server.
    runbook: docs/kubernetes.md#faceclipfailing
# ----------------------------------------------------------------------------------------------------------- in working hours
- alert: FaceCLIPServerDown
  expr: up{ {{- $s -}} } == 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: '{{ printf "Server {{ $labels.pod }} has not answered Prometheus for 10 minutes." }}'
    runbook: docs/kubernetes.md#faceclipserverdown
- alert: FaceCLIPSlow
  expr: |-
    histogram_quantile(0.95, sum by (le) (rate(faceclip_request_seconds_bucket{ {{- $s -}} ,outcome="ok"}[10m])))
    > {{ .Values.monitoring.slowSeconds | int64 }}
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: One of twenty requests to {{ .Release.Name }} takes longer than {{ .Values.monitoring.slowSeconds | int64 }} s.
    runbook: docs/kubernetes.md#faceclipslow
- alert: FaceCLIPStuck
  expr: faceclip_active_requests{ {{- $s -}} } > 0 and on (pod) rate(faceclip_ticks_total{ {{- $s -}} }[5m]) == 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: '{{ printf "Server {{ $labels.pod }} has requests in its denoiser, and has called it for none of them for 15 minutes." }}'
    runbook: docs/kubernetes.md#faceclipstuck
- alert: FaceCLIPLostThread
  expr: increase(faceclip_lost_threads_total{ {{- $s -}} }[10m]) > 0
  labels: {severity: warning}
  annotations:
    summary: '{{ printf "An error has ended a thread of the sampler of {{ $labels.pod }}." }}'
    runbook: docs/kubernetes.md#facecliplostthread
- alert: FaceCLIPDraining
  expr: faceclip_draining{ {{- $s -}} } == 1
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: '{{ printf "Server {{ $labels.pod }} has been draining for 15 minutes: it holds a GPU and takes no work." }}'
    runbook: docs/kubernetes.md#faceclipdraining
- alert: FaceCLIPVersionsMixed
  expr: count(count by (digest) (faceclip_build_info{ {{- $s -}} })) > 1
  for: 1h
  labels: {severity: warning}
  annotations:
    summary: Servers of {{ .Release.Name }} have run different code for an hour. A seed may give different pictures.
    runbook: docs/kubernetes.md#faceclipversionsmixed
{{- with .Values.autoscaling }}
{{- if .enabled }}
- alert: FaceCLIPTooFewGPUs
  expr: |-
    ({{ include "faceclip.gpusWanted" $ }})
    / {{ .load }} > {{ .max | int64 }}
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: {{ $.Release.Name }} needs more servers than autoscaling.max ({{ .max | int64 }}) allows.
    runbook: docs/kubernetes.md#facecliptoofewgpus
{{- end }}
{{- end }}
{{- end }}
