{{/* What the schema cannot say: values that go together with others. Every pair that cannot work is refused before anything is made. */}}
{{- define "faceclip.checks" -}}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int64 .min) (int64 .max)) }}
{{- fail (printf "autoscaling.min: expected no more than autoscaling.max (%d), got %d" (int64 .max) (int64 .min)) }}
{{- end }}
{{- end }}
{{- include "faceclip.checkOptions" (list "options" .Values.options (dict
  "--timeout" "seconds.start"
  "--drain-timeout" "seconds.drain, by which Kubernetes' grace is reckoned"
  "--linger" "the chart's: Kubernetes' grace is reckoned by it"
  "--address" "the chart's" "--http-port" "the chart's" "--grpc-port" "the chart's" "--metrics-port" "the chart's" "--health-port" "the chart's")) }}
{{- include "faceclip.checkOptions" (list "gateway.options" .Values.gateway.options (dict
  "--public-url" "gateway.publicUrl"
  "--drain-timeout" "the chart's: Kubernetes' grace is reckoned by it"
  "--data" "the chart's" "--host" "the chart's" "--port" "the chart's")) }}
{{- with .Values.envoy }}
{{- if and .quotas (not .tokens.issuer) }}
{{- fail "envoy.quotas: expected envoy.tokens, which say who a tenant is; without them anybody could be any tenant" }}
{{- end }}
{{- $tenants := list }}
{{- range .quotas }}
{{- $tenants = append $tenants (.tenant | default "") }}
{{- end }}
{{- if ne (len $tenants) (len (uniq $tenants)) }}
{{- fail (printf "envoy.quotas: expected one for each tenant, and one without `tenant` for all others, got %s" (toJson $tenants)) }}
{{- end }}
{{- if and (ne .service.type "ClusterIP") (not .service.trusted) (not (and .tls .tokens.issuer)) }}
{{- fail (printf "envoy.service.type: expected envoy.tls and envoy.tokens, because a %s is reached from outside of the cluster: photographs would travel in the clear, or anybody could draw; where another proxy before it has both, say envoy.service.trusted: true" .service.type) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes (list value options names), where names are of options that the chart gives itself: the last one of a name counts. */}}
{{- define "faceclip.checkOptions" -}}
{{- $names := index . 2 }}
{{- $value := index . 0 }}
{{- range index . 1 }}
{{- $name := splitList "=" . | first }}
{{- if hasKey $names $name }}
{{- fail (printf "%s: expected no %s, got '%s'; it is %s" $value $name . (get $names $name)) }}
{{- end }}
{{- end }}
{{- end }}
