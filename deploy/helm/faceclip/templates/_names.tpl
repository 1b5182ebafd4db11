{{/* Labels that never change, by which pods are selected. Takes (list $ component). */}}
{{- define "faceclip.selector" -}}
app.kubernetes.io/name: faceclip
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "faceclip.labels" -}}
{{- $top := index . 0 -}}
helm.sh/chart: {{ $top.Chart.Name }}-{{ $top.Chart.Version }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
{{ include "faceclip.selector" . }}
{{- end }}

{{- define "faceclip.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* A value as text. Helm reads every number of a file as a float, and would write large ones as 1e+06. */}}
{{- define "faceclip.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ regexReplaceAll "\\.?0+$" (printf "%.9f" (float64 .)) "" }}{{ end }}
{{- end }}

{{/* "true" where the placement needs a GPU, and where it has engines to build. */}}
{{- define "faceclip.onGpu" -}}
{{- if ne .Values.placement "cpu" }}true{{ end }}
{{- end }}
{{- define "faceclip.hasEngines" -}}
{{- if not (has .Values.placement (list "cpu" "gpu-ort" "gpu-triton-ort")) }}true{{ end }}
{{- end }}

{{- define "faceclip.gpuProduct" -}}
{{ required "gpu.product: expected the label nvidia.com/gpu.product of the nodes, as `kubectl get nodes -L nvidia.com/gpu.product` prints it" .Values.gpu.product }}
{{- end }}

{{/* The folder of the repository in the claim. What the Job makes is named after all that its engines belong to, so that a new image
     gets new ones while servers of the old image go on with theirs. */}}
{{- define "faceclip.folder" -}}
{{- if eq .Values.repository.source "build" -}}
{{- $of := list (include "faceclip.image" .) .Values.variant .Values.placement .Values.gpu.product .Values.build.options .Values.build.onnx -}}
{{ .Values.variant }}-{{ .Values.placement }}-{{ toJson $of | sha256sum | trunc 10 }}
{{- else if eq .Values.repository.source "claim" -}}
{{ required "repository.folder: expected the folder of the repository in the claim, because repository.source is claim" .Values.repository.folder }}
{{- else -}}
{{ .Values.variant }}-{{ .Values.placement }}
{{- end -}}
{{- end }}

{{- define "faceclip.claim" -}}
{{ .Values.repository.claim.name | default (printf "%s-repository" .Release.Name) }}
{{- end }}

{{/* Of every pod of the release. Nobody needs root, a token, or the addresses of other services in its environment. */}}
{{- define "faceclip.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  # A repository has gigabytes: its owner is not set anew at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "faceclip.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Where servers and the Job may run: nodes of one GPU product, which are usually tainted. */}}
{{- define "faceclip.nodes" -}}
{{- with .Values.serviceAccount }}
serviceAccountName: {{ . | quote }}
{{- end }}
{{- $selector := .Values.nodeSelector }}
{{- if include "faceclip.onGpu" . }}
{{- $selector = merge (dict "nvidia.com/gpu.product" (include "faceclip.gpuProduct" .)) $selector }}
{{- end }}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := .Values.tolerations }}
{{- if include "faceclip.onGpu" . }}
{{- $tolerations = prepend $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Memory in GiB includes /dev/shm. A request equal to the limit: the kernel never ends a server for its neighbour's need.
     Takes (list $ GiB-of-shared-memory). */}}
{{- define "faceclip.resources" -}}
{{- $top := index . 0 -}}
{{- $memory := printf "%vGi" (add $top.Values.resources.memoryGi (index . 1)) -}}
requests:
  cpu: {{ $top.Values.resources.cpu | quote }}
  memory: {{ $memory }}
limits:
  memory: {{ $memory }}
  {{- if include "faceclip.onGpu" $top }}
  nvidia.com/gpu: 1
  {{- end }}
{{- end }}

{{/* An init container that copies a folder from object storage. Takes (list $ url mount folder volume). */}}
{{- define "faceclip.fromS3" -}}
{{- $top := index . 0 -}}
- name: s3
  image: {{ $top.Values.s3.image | quote }}
  args: [s3, sync, --only-show-errors, --no-progress, {{ index . 1 | quote }}, {{ printf "%s/%s" (index . 2) (index . 3) | quote }}]
  env:
    - name: HOME
      value: /tmp
    - name: AWS_REGION
      value: {{ $top.Values.s3.region | quote }}
    {{- with $top.Values.s3.endpoint }}
    - name: AWS_ENDPOINT_URL
      value: {{ . | quote }}
    {{- end }}
  {{- with $top.Values.s3.secret }}
  envFrom:
    - secretRef:
        name: {{ . | quote }}
  {{- end }}
  {{- include "faceclip.container" $top | nindent 2 }}
  resources:
    requests:
      cpu: 1
      memory: 1Gi
    limits:
      memory: 1Gi
  volumeMounts:
    - name: {{ index . 4 }}
      mountPath: {{ index . 2 }}
    - name: tmp
      mountPath: /tmp
{{- end }}

{{/* A pod that shall end is no endpoint any more. CoreDNS answers from memory for another 5 s: SIGTERM comes after that. Then the server
     says that it is not ready, and goes on with new work until every Envoy, which asks each second, has heard it. Then it drains. */}}
{{- define "faceclip.leaveSeconds" -}}5{{- end }}
{{- define "faceclip.lingerSeconds" -}}3{{- end }}

{{/* A stop, in order: the above, the drain, the end of tritonserver (30 s, STOP_TIMEOUT_S), and a bit. */}}
{{- define "faceclip.graceSeconds" -}}
{{ add (include "faceclip.leaveSeconds" .) (include "faceclip.lingerSeconds" .) .Values.seconds.drain 30 10 }}
{{- end }}

{{/* Series of this release's servers, as Prometheus' operator labels them. */}}
{{- define "faceclip.series" -}}
job="{{ .Release.Name }}-server",namespace="{{ .Release.Namespace }}"
{{- end }}

{{/* PromQL: requests per second that come. Refused ones have come too, so a full fleet hides nothing. Envoy sends one that is refused
     three times more: where all are full it comes four times, else it counts where it is taken. */}}
{{- define "faceclip.arrivals" -}}
{{- $s := include "faceclip.series" . -}}
(sum(rate(faceclip_arrivals_total{ {{- $s -}} }[2m])) - sum(rate(faceclip_refusals_total{ {{- $s -}} }[2m])) + sum(rate(faceclip_refusals_total{ {{- $s -}} ,reason="full"}[2m])) / 4)
{{- end }}

{{/* PromQL: GPUs that this would keep busy: times the GPU-seconds of a finished request, over longer, since they belong to what people ask
     for. None where nothing comes; no number where something does and nothing has ended. */}}
{{- define "faceclip.gpusWanted" -}}
{{- $s := include "faceclip.series" . -}}
{{ include "faceclip.arrivals" . }} * sum(rate(faceclip_gpu_seconds_total{ {{- $s -}} }[15m])) / (sum(rate(faceclip_request_seconds_count{ {{- $s -}} ,outcome="ok"}[15m])) > 0) or {{ include "faceclip.arrivals" . }} == 0
{{- end }}

{{/* PromQL: requests that wait for a place in a denoiser. */}}
{{- define "faceclip.backlog" -}}
sum(faceclip_waiting_requests{ {{- include "faceclip.series" . -}} })
{{- end }}
