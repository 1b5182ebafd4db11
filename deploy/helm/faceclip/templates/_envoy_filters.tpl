{{/* Who may do what: a tenant's header from outside is removed, the token is checked and names the tenant, the model's name is read, what
     is not public is refused, in streams by the script of server/fleet/envoy/, the tenant's quota is counted. Takes what "faceclip.envoy" takes. */}}
{{- define "faceclip.envoyFilters" -}}
{{- $top := .top }}
{{- $models := list "faceclip" "faceclip_stream" "faceclip_cancel" "faceclip_verify" "faceclip_faces" }}
- name: envoy.filters.http.header_mutation
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations: {request_mutations: [{remove: x-faceclip-tenant}]}
{{- if .tokens }}
{{- include "faceclip.envoyTokens" $top.Values.envoy.tokens }}
{{- end }}
- name: envoy.filters.http.grpc_field_extraction
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig
    descriptor_set:
      inline_bytes: CoUEChVmYWNlY2xpcF9maWVsZHMucHJvdG8SCWluZmVyZW5jZSIzChFNb2RlbEluZmVyUmVxdWVzdBIeCgptb2RlbF9uYW1lGAEgASgJUgptb2RlbF9uYW1lIigKEk1vZGVsQ29uZmlnUmVxdWVzdBISCgRuYW1lGAEgASgJUgRuYW1lIioKFE1vZGVsTWV0YWRhdGFSZXF1ZXN0EhIKBG5hbWUYASABKAlSBG5hbWUiJwoRTW9kZWxSZWFkeVJlcXVlc3QSEgoEbmFtZRgBIAEoCVIEbmFtZSIICgZBbnN3ZXIymgIKFEdSUENJbmZlcmVuY2VTZXJ2aWNlEj0KCk1vZGVsSW5mZXISHC5pbmZlcmVuY2UuTW9kZWxJbmZlclJlcXVlc3QaES5pbmZlcmVuY2UuQW5zd2VyEj8KC01vZGVsQ29uZmlnEh0uaW5mZXJlbmNlLk1vZGVsQ29uZmlnUmVxdWVzdBoRLmluZmVyZW5jZS5BbnN3ZXISQwoNTW9kZWxNZXRhZGF0YRIfLmluZmVyZW5jZS5Nb2RlbE1ldGFkYXRhUmVxdWVzdBoRLmluZmVyZW5jZS5BbnN3ZXISPQoKTW9kZWxSZWFkeRIcLmluZmVyZW5jZS5Nb2RlbFJlYWR5UmVxdWVzdBoRLmluZmVyZW5jZS5BbnN3ZXJiBnByb3RvMw==
    extractions_by_method:
      inference.GRPCInferenceService.ModelInfer: {request_field_extractions: {model_name: {}}}
      inference.GRPCInferenceService.ModelConfig: {request_field_extractions: {name: {}}}
      inference.GRPCInferenceService.ModelMetadata: {request_field_extractions: {name: {}}}
      inference.GRPCInferenceService.ModelReady: {request_field_extractions: {name: {}}}
{{- $who := "{any: true}" }}
{{- if .tokens }}
{{- $path := printf "[{key: claims}, {key: %s}]" ($top.Values.envoy.tokens.tenantClaim | quote) }}
{{- $text := "{string_match: {safe_regex: {regex: '[^\\pC\\pZ]([^\\pC]*[^\\pC\\pZ])?'}}}" }}
{{- $matcher := printf "{filter: envoy.filters.http.jwt_authn, path: %s, value: %s}" $path $text }}
{{- $who = printf "{sourced_metadata: {metadata_source: DYNAMIC, metadata_matcher: %s}}" $matcher }}
{{- end }}
- name: envoy.filters.http.rbac
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules:
      action: ALLOW
      policies:
        public-models:
          principals: [{{ $who }}]
          permissions:
            {{- range $field, $methods := dict "model_name" (list "ModelInfer") "name" (list "ModelConfig" "ModelMetadata" "ModelReady") }}
            - and_rules:
                rules:
                  - or_rules:
                      rules:
                        {{- range $methods }}
                        - {url_path: {path: {exact: /inference.GRPCInferenceService/{{ . }}}}}
                        {{- end }}
                  - or_rules:
                      rules:
                        {{- range $models }}
                        - sourced_metadata:
                            metadata_source: DYNAMIC
                            metadata_matcher:
                              filter: envoy.filters.http.grpc_field_extraction
                              path: [{key: {{ $field }}}]
                              value: {list_match: {one_of: {string_match: {exact: {{ . }}}}}}
                        {{- end }}
            {{- end }}
        streams:
          principals: [{{ $who }}]
          permissions: [{url_path: {path: {exact: /inference.GRPCInferenceService/ModelStreamInfer}}}]
        what-the-server-is:
          principals: [{{ $who }}]
          permissions:
            {{- range list "ServerLive" "ServerReady" "ServerMetadata" "RepositoryIndex" }}
            - {url_path: {path: {exact: /inference.GRPCInferenceService/{{ . }}}}}
            {{- end }}
- name: envoy.filters.http.lua
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
    default_source_code:
      inline_string: |
        local MODELS = {"{{ join "\", \"" $models }}"}
        {{- $top.Files.Get "files/streams.lua" | nindent 8 }}
{{- if and .tokens $top.Values.envoy.quotas }}
{{- include "faceclip.envoyQuotas" $top.Values.envoy.quotas }}
{{- end }}
- name: envoy.filters.http.router
  typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
{{- end }}

{{- define "faceclip.envoyTokens" }}
- name: envoy.filters.http.jwt_authn
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
    providers:
      issuer:
        issuer: {{ .issuer | quote }}
        audiences: [{{ .audience | quote }}]
        require_expiration: true
        from_headers:
          - {name: authorization, value_prefix: "Bearer "}
          - {name: authorization, value_prefix: "bearer "}
        payload_in_metadata: claims
        claim_to_headers: [{header_name: x-faceclip-tenant, claim_name: {{ .tenantClaim | quote }}}]
        {{- if hasPrefix "https://" .jwks }}
        remote_jwks: {http_uri: {uri: {{ .jwks | quote }}, cluster: issuer, timeout: 5s}, cache_duration: 600s, async_fetch: {}}
        {{- else }}
        local_jwks: {filename: /etc/envoy/jwks.json}
        {{- end }}
    rules: [{match: {prefix: /}, requires: {provider_name: issuer}}]
{{- end }}

{{- define "faceclip.envoyQuotas" }}
- name: envoy.filters.http.local_ratelimit
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
    stat_prefix: tenants
    filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}
    filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}
    rate_limited_as_resource_exhausted: true
    token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}
    always_consume_default_token_bucket: false
    max_dynamic_descriptors: 10000
    rate_limits:
      - actions:
          - header_value_match:
              descriptor_key: call
              descriptor_value: inference
              headers:
                - name: ":path"
                  string_match: {safe_regex: {regex: /inference.GRPCInferenceService/(ModelInfer|ModelStreamInfer)}}
          - request_headers: {header_name: x-faceclip-tenant, descriptor_key: tenant}
    descriptors:
      {{- /* Those of named tenants before those of all others. */}}
      {{- range $named := list true false }}
      {{- range $ }}
      {{- if eq $named (not (empty .tenant)) }}
      - entries: [{key: call, value: inference}, {key: tenant{{ with .tenant }}, value: {{ . | quote }}{{ end }}}]
        token_bucket: {max_tokens: {{ .requests | int64 }}, tokens_per_fill: {{ .requests | int64 }}, fill_interval: {{ include "faceclip.text" .seconds }}s}
      {{- end }}
      {{- end }}
      {{- end }}
{{- end }}
