# Process 1 of a machine within the machine: containerd and a kubelet in mount and process namespaces of their own, so that nothing they
# mount or start can outlive this process. It is run by busybox's shell, as root:
#
#   init.sh STATE IMAGE ADDRESS     folder of this machine, image of its containers, host:port of containerd's streaming server
#
# Output is that of the kubelet; containerd's goes to STATE/containerd.log.
set -eu
state=$1 image=$2

busybox mount --make-rprivate /
busybox mount -t proc proc /proc
# Folders in which a kubelet and containerd write no matter how they are configured.
for dir in /run /var/lib /var/log; do
	busybox mount -t tmpfs tmpfs "$dir"
done

containerd --config "$state/containerd.toml" >"$state/containerd.log" 2>&1 &
containerd=$!
until ctr --address "$state/containerd.sock" version >/dev/null 2>&1; do
	kill -0 "$containerd"
	busybox usleep 50000
done
ctr --address "$state/containerd.sock" --namespace k8s.io images import "$state/image.tar"
ctr --address "$state/containerd.sock" --namespace k8s.io images ls -q | busybox grep -qxF "$image"

kubelet --config "$state/kubelet.json" --kubeconfig "$state/kubeconfig" --root-dir "$state/kubelet" --cert-dir "$state/kubelet" \
	--hostname-override "$NODE_NAME" --cloud-provider external &
wait $!
