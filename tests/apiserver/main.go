// The API server that tests/support/apiserver.rs starts: kube-apiserver itself, with etcd in the same process.
//
//	apiserver DIR [FLAG OF KUBE-APISERVER...]
//
// It keeps all that it writes below DIR, listens on 127.0.0.1 on a port that the kernel chooses, writes
// DIR/admin.kubeconfig once it is ready, and says its address on stdout. It ends with its stdin, so that it
// never outlives the test that started it.
//
// Must never: listen on another address, or take a client without a certificate of its own CA.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// How long it may take until it is ready.
const soon = 2 * time.Minute

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: apiserver DIR [FLAG OF KUBE-APISERVER...]")
		os.Exit(2)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
		// What does not end by itself is not waited for, longer than a test that looks on needs.
		time.Sleep(soon)
		os.Exit(0)
	}()
	if err := serve(ctx, os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, dir string, flags []string) error {
	etcd, endpoint, err := startEtcd(dir)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer etcd.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := "https://" + listener.Addr().String()
	pki, err := newPki(dir)
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	config, err := pki.kubeconfig(address)
	if err != nil {
		return err
	}
	opts := options.NewServerRunOptions()
	opts.SecureServing.Listener = listener
	opts.SecureServing.BindPort = listener.Addr().(*net.TCPAddr).Port
	failed := make(chan error, 1)
	go func() { failed <- run(ctx, opts, append(pki.flags(endpoint), flags...)) }()
	file := filepath.Join(dir, "admin.kubeconfig")
	if err := clientcmd.WriteToFile(*config, file+".new"); err != nil {
		return err
	}
	if err := waitUntilReady(ctx, file+".new", failed); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	fmt.Println(address)
	return <-failed
}

// startEtcd: on a socket in the file system; there is no port that could be somebody else's.
func startEtcd(dir string) (*embed.Etcd, string, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "etcd")
	config.LogLevel = "error"
	// Nothing of it is needed after the test.
	config.UnsafeNoFsync = true
	socket := func(name string) url.URL { return url.URL{Scheme: "unix", Path: filepath.Join(dir, name)} }
	client, peer := socket("etcd.sock"), socket("peer.sock")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.Name + "=" + peer.String()
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, "", err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, client.String(), nil
	case err := <-etcd.Err():
		return nil, "", err
	case <-time.After(soon):
		return nil, "", fmt.Errorf("it is not ready after %s", soon)
	}
}

// run: as kube-apiserver's own main() does, but for the listener.
func run(ctx context.Context, opts *options.ServerRunOptions, args []string) error {
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range opts.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	completed, err := opts.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	return app.Run(ctx, completed)
}

// waitUntilReady: asked by a client of its own, with the administrator's certificate.
func waitUntilReady(ctx context.Context, kubeconfig string, failed <-chan error) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	// Until it serves, it accepts nobody: whoever is connected by then would wait for nothing.
	config.Timeout = 500 * time.Millisecond
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var last error
	ready := func(ctx context.Context) (bool, error) {
		select {
		case err := <-failed:
			return false, fmt.Errorf("it ended: %w", err)
		default:
		}
		if _, last = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); last != nil {
			return false, nil
		}
		_, last = client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		return last == nil, nil
	}
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, soon, true, ready); err != nil {
		return fmt.Errorf("%w (%v)", err, last)
	}
	return nil
}
