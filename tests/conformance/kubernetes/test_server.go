// Package testserver, as Kubernetes' storage tests use it, with a member of Keyraft in a process of
// its own where theirs embeds etcd. The runner lays it over their file of the same name; the
// variable KEYRAFT_ETCD names the program.
package testserver

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

const startLimit = 60 * time.Second

// freeURL names a port that nobody listens on now.
func freeURL(t testing.TB) url.URL {
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return url.URL{Scheme: "http", Host: net.JoinHostPort("localhost", port)}
}

// NewTestConfig says where a member of one shall listen and keep its data.
func NewTestConfig(t testing.TB) *embed.Config {
	config := embed.NewConfig()
	client, peer := freeURL(t), freeURL(t)
	config.UnsafeNoFsync = true
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.Dir = t.TempDir()
	if err := os.Chmod(config.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return config
}

func joined(urls []url.URL) string {
	words := make([]string, len(urls))
	for i, each := range urls {
		words[i] = each.String()
	}
	return strings.Join(words, ",")
}

// arguments are the flags that mean what the configuration says.
func arguments(config *embed.Config) []string {
	words := []string{
		"--name=" + config.Name,
		"--data-dir=" + config.Dir,
		"--listen-client-urls=" + joined(config.ListenClientUrls),
		"--advertise-client-urls=" + joined(config.AdvertiseClientUrls),
		"--listen-peer-urls=" + joined(config.ListenPeerUrls),
		"--initial-advertise-peer-urls=" + joined(config.AdvertisePeerUrls),
		"--initial-cluster=" + config.InitialCluster,
		"--log-level=error",
	}
	if config.UnsafeNoFsync {
		words = append(words, "--unsafe-no-fsync")
	}
	if interval := config.WatchProgressNotifyInterval; interval > 0 {
		words = append(words, "--watch-progress-notify-interval="+interval.String())
	}
	tls := config.ClientTLSInfo
	for flag, file := range map[string]string{
		"cert-file": tls.CertFile, "key-file": tls.KeyFile, "trusted-ca-file": tls.TrustedCAFile,
	} {
		if file != "" {
			words = append(words, "--"+flag+"="+file)
		}
	}
	if tls.ClientCertAuth {
		words = append(words, "--client-cert-auth")
	}
	return words
}

// RunEtcd starts a member, which ends with the test, and returns a client of it.
func RunEtcd(t testing.TB, config *embed.Config) *kubernetes.Client {
	t.Helper()
	if config == nil {
		config = NewTestConfig(t)
	}
	member := exec.Command(os.Getenv("KEYRAFT_ETCD"), arguments(config)...)
	member.Stderr = os.Stderr
	member.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = member.Process.Kill()
		_ = member.Wait()
	})
	tls, err := config.ClientTLSInfo.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	endpoints := strings.Split(joined(config.AdvertiseClientUrls), ",")
	client, err := kubernetes.New(clientv3.Config{
		TLS:         tls,
		Endpoints:   endpoints,
		DialTimeout: startLimit,
		DialOptions: []grpc.DialOption{grpc.WithBlock()},
	})
	if err != nil {
		t.Fatalf("no client of the member: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if _, err := client.Client.Get(ctx, "ready"); err != nil {
		t.Fatalf("the member does not serve: %v", err)
	}
	client.KV = storagetesting.NewKVRecorder(client.KV)
	client.Kubernetes = storagetesting.NewKubernetesRecorder(client.Kubernetes)
	return client
}
