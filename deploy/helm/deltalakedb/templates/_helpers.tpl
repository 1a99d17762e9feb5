{{- define "deltalakedb.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "deltalakedb.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "deltalakedb.labels" -}}
{{ include "deltalakedb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "deltalakedb.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "deltalakedb.name" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "deltalakedb.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* A pod. Parameters: root, component, args, resources, restart, secret; ports and probes of the worker; claim, path of a volume more. */}}
{{- define "deltalakedb.pod" -}}
{{- $ := .root -}}
metadata:
  labels:
    {{- include "deltalakedb.labels" $ | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with $.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: {{ .restart }}
  serviceAccountName: {{ include "deltalakedb.serviceAccount" $ }}
  # Nothing here calls the API of Kubernetes.
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 30
  {{- with $.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: dl
      image: {{ include "deltalakedb.image" $ | quote }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      args:
        {{- toYaml .args | nindent 8 }}
      env:
        - name: DELTA_DB_CONNECTION_FILE
          value: /run/catalog/url
        {{- with $.Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $.Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if eq .component "worker" }}
      ports:
        - name: metrics
          containerPort: {{ $.Values.worker.port }}
      # /health: the worker goes round. /ready: the database answers, and its schema is the program's.
      startupProbe:
        httpGet: {path: /health, port: metrics}
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet: {path: /health, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /ready, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      volumeMounts:
        - name: catalog
          mountPath: /run/catalog
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- if $.Values.lake.existingClaim }}
        - name: lake
          mountPath: {{ $.Values.lake.mountPath }}
        {{- end }}
        {{- if .claim }}
        - name: more
          mountPath: {{ .path }}
        {{- end }}
  volumes:
    - name: catalog
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
        items:
          - key: {{ $.Values.catalog.urlKey }}
            path: url
    - name: tmp
      emptyDir:
        sizeLimit: 1Gi
    {{- if $.Values.lake.existingClaim }}
    - name: lake
      persistentVolumeClaim:
        claimName: {{ $.Values.lake.existingClaim }}
    {{- end }}
    {{- if .claim }}
    - name: more
      persistentVolumeClaim:
        claimName: {{ .claim }}
    {{- end }}
  {{- with $.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $.Values.affinity }}
  affinity:
    {{- toYaml $.Values.affinity | nindent 4 }}
  {{- else if eq .component "worker" }}
  # Workers on several machines, where there are several.
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "deltalakedb.selector" $ | nindent 10 }}
          app.kubernetes.io/component: worker
  {{- end }}
{{- end -}}
