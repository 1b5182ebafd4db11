{{/* Envoy's configuration, with the settings that were measured: reasons stand in deploy/envoy/envoy.yaml. It is the value that `bootstrap`
     of server/fleet/envoy/ gives, which a test compares over all value sets.
     Takes a dict: top; listeners, each with address, port and tls; tokens, whether callers show one; memoryGi, what it may take. */}}
{{- define "faceclip.envoy" -}}
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
overload_manager:
  refresh_interval: 0.1s
  buffer_factory_config: {minimum_account_to_track_power_of_two: 20}
  resource_monitors:
    - name: envoy.resource_monitors.fixed_heap
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
        max_heap_size_bytes: {{ mul .memoryGi 805306368 }} # three quarters
    - name: envoy.resource_monitors.global_downstream_max_connections
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
        max_active_downstream_connections: 10000
  actions:
    - name: envoy.overload_actions.shrink_heap
      triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.85}}]
    - name: envoy.overload_actions.stop_accepting_requests
      triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]
    - name: envoy.overload_actions.reset_high_memory_stream
      triggers: [{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.85, saturation_threshold: 0.95}}]
static_resources:
  listeners:
    {{- range .listeners }}
    - name: {{ ternary "grpcs" "grpc" .tls }}-{{ .port }}
      address: {socket_address: {address: {{ .address }}, port_value: {{ .port }}}}
      per_connection_buffer_limit_bytes: 335544320
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: callers
                codec_type: HTTP2
                stream_idle_timeout: 0s
                request_headers_timeout: 10s
                http_filters:
                  {{- include "faceclip.envoyFilters" $ | nindent 18 }}
                route_config:
                  {{- include "faceclip.envoyRoutes" $.top | nindent 18 }}
                access_log:
                  {{- include "faceclip.envoyLog" $.top | nindent 18 }}
          {{- if .tls }}
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2]
                tls_certificates:
                  - certificate_chain: {filename: /etc/faceclip/tls.crt}
                    private_key: {filename: /etc/faceclip/tls.key}
          {{- end }}
    {{- end }}
  clusters:
    {{- include "faceclip.envoyServers" .top | nindent 4 }}
    {{- if .tokens }}
    {{- include "faceclip.envoyIssuer" .top | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "faceclip.envoyRoutes" -}}
name: servers
virtual_hosts:
  - name: servers
    domains: ["*"]
    request_body_buffer_limit: 335544320
    routes:
      - match: {prefix: /inference.GRPCInferenceService/}
        route:
          cluster: servers
          timeout: 0s
          retry_policy:
            retry_on: connect-failure,refused-stream,unavailable
            num_retries: 3
            retry_back_off: {base_interval: 0.25s, max_interval: 1s}
            retry_host_predicate:
              - name: envoy.retry_host_predicates.previous_hosts
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
            host_selection_retry_max_attempts: 5
          {{- if .Values.envoy.byFace }}
          hash_policy: [{header: {header_name: x-faceclip-face}}]
          {{- end }}
{{- end }}

{{- define "faceclip.envoyLog" -}}
- name: envoy.access_loggers.stderr
  filter: {grpc_status_filter: {statuses: [OK], exclude: true}}
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
    log_format:
      json_format:
        event: proxy
        time: "%START_TIME%"
        tenant: "%REQ(X-FACECLIP-TENANT)%"
        method: "%PATH(NQ)%"
        status: "%GRPC_STATUS%"
        why: "%RESPONSE_CODE_DETAILS%"
        flags: "%RESPONSE_FLAGS%"
        seconds: "%DURATION%"
        attempts: "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"
        server: "%UPSTREAM_HOST%"
        caller: "%DOWNSTREAM_REMOTE_ADDRESS%"
{{- end }}

{{- define "faceclip.envoyServers" -}}
- name: servers
  cluster_type:
    name: envoy.cluster.dns
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
      dns_refresh_rate: 1s
  connect_timeout: 2s
  per_connection_buffer_limit_bytes: 335544320
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http2_protocol_options: {}}
  upstream_connection_options: {tcp_keepalive: {keepalive_time: 30, keepalive_interval: 10, keepalive_probes: 3}}
  load_balancing_policy:
    policies:
      - typed_extension_config:
          {{- if .Values.envoy.byFace }}
          name: envoy.load_balancing_policies.ring_hash
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash
            consistent_hashing_lb_config: {hash_balance_factor: 125}
          {{- else }}
          name: envoy.load_balancing_policies.least_request
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
            selection_method: FULL_SCAN
          {{- end }}
  common_lb_config: {healthy_panic_threshold: {value: 0}, update_merge_window: 0s}
  circuit_breakers:
    thresholds:
      - {max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000, max_retries: 1000000}
  health_checks:
    - http_health_check: {path: /ready}
      interval: 1s
      no_traffic_interval: 1s
      timeout: 2s
      unhealthy_threshold: 2
      healthy_threshold: 1
  outlier_detection:
    split_external_local_origin_errors: true
    consecutive_local_origin_failure: 2
    enforcing_consecutive_5xx: 0
    enforcing_consecutive_gateway_failure: 0
    enforcing_success_rate: 0
    enforcing_local_origin_success_rate: 0
    interval: 1s
    base_ejection_time: 3s
    max_ejection_time: 30s
    max_ejection_percent: 100
    successful_active_health_check_uneject_host: false
  load_assignment:
    cluster_name: servers
    endpoints:
      - lb_endpoints:
          - endpoint:
              {{- $host := printf "%s-server.%s.svc.%s" .Release.Name .Release.Namespace .Values.clusterDomain }}
              address: {socket_address: {address: {{ $host }}, port_value: 8001}}
              health_check_config: {port_value: 8003}
              hostname: {{ $host }}
{{- end }}

{{/* From where the issuer's keys come, where that is an address. */}}
{{- define "faceclip.envoyIssuer" -}}
{{- $jwks := .Values.envoy.tokens.jwks }}
{{- if hasPrefix "https://" $jwks }}
{{- $host := (urlParse $jwks).host }}
{{- $name := regexReplaceAll ":[0-9]+$" $host "" }}
{{- $port := regexFind "[0-9]+$" (trimPrefix $name $host) | default 443 }}
{{- $name = $name | trimPrefix "[" | trimSuffix "]" | lower | quote }}
- name: issuer
  type: STRICT_DNS
  connect_timeout: 5s
  load_assignment:
    cluster_name: issuer
    endpoints:
      - lb_endpoints:
          - endpoint:
              address: {socket_address: {address: {{ $name }}, port_value: {{ $port }}}}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      sni: {{ $name }}
      auto_sni_san_validation: true
      common_tls_context:
        validation_context: {trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}}
{{- end }}
{{- end }}
