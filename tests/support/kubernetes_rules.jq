# What must hold for every build of deploy/kubernetes/. Input: its objects, an array. Output: an array of what is wrong.
# $image: the image of all containers. $elsewhere: objects that another build brings, "Kind/name".

def fault(text): text;
def named($kind): .[] | select(.kind == $kind);
def template: .spec.jobTemplate.spec.template // .spec.template // empty;
def pods: .[] | select(template) | {id: "\(.kind) \(.metadata.name)", kind, template: template, spec: template.spec};
def has_all($wanted): . as $has | $wanted | to_entries | all($has[.key] == .value);
def within($dir): . == $dir or startswith($dir + "/");
# Of /etc/kubesolo, KubeSolo's own secrets are no business of ours.
def configuration: IN("/etc/kubesolo/update.conf", "/etc/kubesolo/update-keys.d", "/etc/kubesolo/health.d", "/etc/kubesolo/tls");

. as $all
| [$all[] | "\(.kind)/\(.metadata.name)"] as $there
| ($there + $elsewhere) as $known
| [
    # Rights in the cluster: none.
    ($all[] | select(.kind | test("Role")) | fault("\(.kind): the agent needs no rights")),
    ($all | named("ServiceAccount") | select(.automountServiceAccountToken != false) | fault("a token is handed out")),
    ($all[] | select(.kind != "Namespace" and .metadata.namespace != "kubesolo-update")
        | fault("\(.kind) \(.metadata.name): another namespace")),
    ($all[] | select(.metadata.labels | has_all({"app.kubernetes.io/name": "kubesolo-update",
        "app.kubernetes.io/part-of": "kubesolo-os"}) | not) | fault("\(.kind) \(.metadata.name): labels are missing")),
    ($there | group_by(.)[] | select(length > 1) | fault("\(.[0]) is there twice")),

    ($all | pods | . as $pod | (
        (select(.spec.automountServiceAccountToken != false) | fault("\($pod.id): a token is mounted")),
        (select($known | index("ServiceAccount/\($pod.spec.serviceAccountName)") | not)
            | fault("\($pod.id): no such ServiceAccount")),
        (select((.spec.containers | length) != 1 or .spec.initContainers) | fault("\($pod.id): not one container")),
        (select(.template.metadata.labels | has_all({"app.kubernetes.io/name": "kubesolo-update",
            "app.kubernetes.io/part-of": "kubesolo-os"}) | not) | fault("\($pod.id): its pods have no labels")),
        (select(.spec.nodeSelector["kubernetes.io/os"] != "linux") | fault("\($pod.id): not for Linux alone")),
        (select(.spec.enableServiceLinks != false) | fault("\($pod.id): other services in its environment")),
        # The machine's namespaces, where there is no other way.
        (select(.spec.hostPID and (.spec.containers[0].args | index("--reboot") | not))
            | fault("\($pod.id): hostPID without --reboot")),
        (select((.spec.containers[0].args | index("--reboot")) and .spec.hostPID != true)
            | fault("\($pod.id): --reboot without hostPID restarts nothing")),
        (select((.spec.hostPID // false) == (.spec.shareProcessNamespace // false))
            | fault("\($pod.id): process 1 hears no SIGTERM, or the API server refuses it")),
        (select((.spec.hostNetwork // false) != (.kind == "Job")) | fault("\($pod.id): hostNetwork")),
        (select(.spec.hostIPC) | fault("\($pod.id): hostIPC")),
        (select([.spec.volumes[].name] - [.spec.containers[0].volumeMounts[].name] != [])
            | fault("\($pod.id): a volume that is mounted nowhere")),

        # What the machine says about trust lies under nothing else, and cannot be written.
        (.spec.volumes[] | select(.hostPath and (.hostPath.type // "") == "")
            | fault("\($pod.id): hostPath \(.hostPath.path) of any type")),
        (.spec.volumes[] | select(.hostPath)
            | select(.hostPath.path | configuration or IN("/dev", "/var/lib/kubesolo/update", "/var/lib/kubesolo/pki",
                "/var/lib/kubesolo/containerd/containerd.sock") | not)
            | fault("\($pod.id): hostPath \(.hostPath.path)")),
        (.spec.volumes[] | select((.emptyDir or .hostPath or .secret) | not) | fault("\($pod.id): volume \(.name)")),
        (.spec.containers[0].volumeMounts[] | . as $mount
            | [$pod.spec.volumes[] | select(.name == $mount.name)] as $volumes
            | if $volumes == [] then fault("\($pod.id): there is no volume \($mount.name)")
              else $volumes[0] | (
                (select(.hostPath and .hostPath.path != $mount.mountPath)
                    | fault("\($pod.id): \($mount.mountPath) is another place on the machine")),
                (select($mount.mountPath | within("/etc")) | select(.hostPath.path // "" | configuration | not)
                    | fault("\($pod.id): \($mount.mountPath) is not the machine's")),
                (select($mount.mountPath | IN("/", "/etc", "/usr", "/usr/bin"))
                    | fault("\($pod.id): over \($mount.mountPath)")),
                (select(.hostPath.path // "" | configuration or . == "/var/lib/kubesolo/pki")
                    | select($mount.readOnly != true) | fault("\($pod.id): \($mount.mountPath) can be written")),
                (select(.secret and (.secret.defaultMode != 256 or $mount.readOnly != true))
                    | fault("\($pod.id): others can read or write a secret")),
                (select($mount.subPath or $mount.subPathExpr or $mount.mountPropagation)
                    | fault("\($pod.id): \($mount.mountPath): a part, or propagation"))) end),
        (select(["/etc/kubesolo/update.conf", "/etc/kubesolo/update-keys.d"]
            - [.spec.containers[0].volumeMounts[].mountPath] != [])
            | fault("\($pod.id): it does not see the machine's configuration")),

        # What a pod waits for is there.
        (.spec.volumes[] | select(.secret) | .secret as $wanted
            | [$all | named("Secret") | select(.metadata.name == $wanted.secretName)] as $found
            | if $found == [] then fault("\($pod.id): there is no Secret \($wanted.secretName)")
              else $wanted.items[].key | select($found[0].data[.] | not)
                | fault("\($pod.id): Secret \($wanted.secretName) has no \(.)") end),
        (.spec.containers[0] | (
            (select(.image != $image) | fault("\($pod.id): image \(.image)")),
            (select(.imagePullPolicy != "IfNotPresent") | fault("\($pod.id): imagePullPolicy")),
            (select(.command or .envFrom or .lifecycle) | fault("\($pod.id): more than the image's program")),
            (select(.securityContext.readOnlyRootFilesystem != true) | fault("\($pod.id): its root can be written")),
            (select(.resources.limits.memory and .resources.requests.memory and .resources.requests.cpu | not)
                | fault("\($pod.id): no requests or limits")),
            (select(.terminationMessagePath | startswith("/dev")) | fault("\($pod.id): it would leave a file in /dev")),
            # What the machine's update.conf says is not overruled.
            (.args[] | select(IN("--config", "--root", "--state", "--allow-downgrade", "--retry-failed",
                "--allow-unproven-bootloader", "--layout")) | fault("\($pod.id): \(.)")),
            ([.args[] | scan("\\$\\(([^)]*)\\)")[]] - [.env[]?.name] | select(. != [])
                | fault("\($pod.id): nothing sets \(.[0])")),
            (.env[]? | (.valueFrom.configMapKeyRef // {}) as $ref
                | [$all | named("ConfigMap") | select(.metadata.name == $ref.name)] as $found
                | if $ref.name != "kubesolo-update-source" then fault("\($pod.id): the environment says \(.name)")
                  elif $found == [] then fault("\($pod.id): there is no ConfigMap \($ref.name)")
                  elif $found[0].data[$ref.key] then empty
                  else fault("\($pod.id): ConfigMap \($ref.name) has no \($ref.key)") end))))),

    # Schedule.
    ($all | named("CronJob") | .spec | (
        (select(.schedule != "17 */6 * * *") | fault("not every six hours")),
        (select(.concurrencyPolicy != "Forbid") | fault("two may run at once")),
        (select(.jobTemplate.spec.template.spec.containers[0].args[0:4] != ["apply", "--ok-if-nothing", "--splay", "1800"])
            | fault("no jitter")),
        (select(.jobTemplate.spec.activeDeadlineSeconds | . == null or . <= 1800 or . >= 21600)
            | fault("its deadline")),
        (select((.successfulJobsHistoryLimit and .failedJobsHistoryLimit) | not) | fault("no history limits")))),
    ($all[] | select(.kind | IN("CronJob", "Job")) | (.spec.jobTemplate.spec // .spec) | (
        (select(.backoffLimit != 0) | fault("it is tried again at once")),
        (select(.activeDeadlineSeconds == null) | fault("it may take for ever")),
        (select(.template.spec.restartPolicy != "Never") | fault("restartPolicy")))),

    # Who finds whom.
    ($all | named("DaemonSet") | . as $set
        | select(.spec.template.metadata.labels | has_all($set.spec.selector.matchLabels) | not)
        | fault("the DaemonSet does not find its pods")),
    ($all | named("Service") | . as $service
        | [$all | pods | select(.template.metadata.labels | has_all($service.spec.selector))] as $found
        | if ($found | map(.kind)) != ["DaemonSet"] then fault("the Service does not find the DaemonSet's pods alone")
          else (
            ($service.spec.ports[] | . as $port
                | [$found[0].spec.containers[0].ports[] | select(.name == $port.targetPort)]
                | select(length != 1 or .[0].containerPort != 9199) | fault("the Service's port leads nowhere")),
            (select($service.metadata.name | startswith("kubesolo") | not)
                | fault("no alert fires for such a job"))) end),
    ($all | named("DaemonSet") | .spec.template.spec.containers[0]
        | select(.args != ["metrics", "--listen", "0.0.0.0:9199"] or .ports[0].containerPort != 9199)
        | fault("the DaemonSet listens elsewhere")),
    ($all | named("ServiceMonitor") | . as $monitor
        | [$all | named("Service") | select(.metadata.labels | has_all($monitor.spec.selector.matchLabels))]
        | select(length != 1 or ([$monitor.spec.endpoints[].port] - [.[].spec.ports[].name]) != [])
        | fault("the ServiceMonitor does not find the Service"))
  ]
