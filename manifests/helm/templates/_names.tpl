{{- define "loden.labels" -}}
app: flannel
k8s-app: flannel
tier: node
{{- end }}

{{- define "loden.netconf" -}}
{{- $flannel := .Values.flannel -}}
{{- $backend := dict "Type" $flannel.backend -}}
{{- if eq $flannel.backend "vxlan" -}}
{{-   if ne (int $flannel.vni) 1 }}{{ $_ := set $backend "VNI" (int $flannel.vni) }}{{ end -}}
{{-   with int $flannel.backendPort }}{{ $_ := set $backend "Port" . }}{{ end -}}
{{-   with int $flannel.mtu }}{{ $_ := set $backend "MTU" . }}{{ end -}}
{{-   if $flannel.directRouting }}{{ $_ := set $backend "DirectRouting" true }}{{ end -}}
{{-   if $flannel.GBP }}{{ $_ := set $backend "GBP" true }}{{ end -}}
{{- end -}}
{{- $conf := dict "Backend" $backend -}}
{{- with .Values.podCidr }}{{ $_ := set $conf "Network" . }}{{ else }}{{ $_ := set $conf "EnableIPv4" false }}{{ end -}}
{{- with .Values.podCidrv6 }}{{ $_ := set $conf "EnableIPv6" true }}{{ $_ := set $conf "IPv6Network" . }}{{ end -}}
{{- if $flannel.enableNFTables }}{{ $_ := set $conf "EnableNFTables" true }}{{ end -}}
{{- toPrettyJson $conf -}}
{{- end }}
