// Command testcluster runs a real Kubernetes control plane (etcd, kube-apiserver
// and kube-controller-manager) in one process. It has no scheduler and no kubelet:
// tests/support/cluster binds pods and runs them.
//
// This file reads the flags and starts the parts in order; what each part is told
// stands in etcd.go, components.go, pki.go and crds.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	utilversion "k8s.io/component-base/version"
	"k8s.io/klog/v2"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// config is what the flags say.
type config struct {
	dir, address, serviceCIDR, crds  string
	port, verbosity                  int
	hpaSync, timeout                 time.Duration
	untilStdinCloses, version        bool
	apiserverArgs, controllerMgrArgs list
}

func main() {
	var c config
	fs := flag.NewFlagSet("testcluster", flag.ExitOnError) // the global set is full of cAdvisor's flags
	fs.StringVar(&c.dir, "dir", "", "state directory (made if absent; a used one is restarted with its data, keys and port)")
	fs.StringVar(&c.address, "address", "127.0.0.1", "IPv4 address that the API server listens on")
	fs.IntVar(&c.port, "port", 0, "API server port (0: the one used last in --dir, or a free one)")
	fs.StringVar(&c.serviceCIDR, "service-cidr", "10.96.0.0/16", "service cluster IP range")
	fs.StringVar(&c.crds, "crds", "", "YAML file, or directory of them, whose CRDs are created before the controllers start")
	fs.DurationVar(&c.hpaSync, "hpa-sync", 2*time.Second, "horizontal pod autoscaler sync period")
	fs.DurationVar(&c.timeout, "timeout", 60*time.Second, "give up when not ready by then")
	fs.BoolVar(&c.untilStdinCloses, "until-stdin-closes", false, "also stop when standard input reaches its end")
	fs.IntVar(&c.verbosity, "v", 0, "klog verbosity of DIR/testcluster.log")
	fs.BoolVar(&c.version, "version", false, "print the Kubernetes version and exit")
	fs.Var(&c.apiserverArgs, "apiserver-arg", "extra kube-apiserver flag, such as --event-ttl=5m (repeatable; wins over ours)")
	fs.Var(&c.controllerMgrArgs, "controller-manager-arg", "extra kube-controller-manager flag (repeatable; wins over ours)")
	_ = fs.Parse(os.Args[1:])
	if c.version {
		fmt.Println(utilversion.Get().GitVersion)
		return
	}
	if c.dir == "" || fs.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "usage: testcluster --dir DIR [flags]")
		fs.PrintDefaults()
		os.Exit(2)
	}
	// client-go takes the user agent, and so the field manager of all the controllers write, from here.
	os.Args[0] = "kube-controller-manager"
	if err := run(&c); err != nil {
		fmt.Fprintf(console, "testcluster: %v (logs are in %s)\n", err, c.dir)
		os.Exit(1)
	}
}

// console is the standard error we were started with; descriptor 2 itself goes to the log file.
var console = os.Stderr

func run(c *config) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if c.untilStdinCloses {
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()
	}
	lock, err := enterDir(c)
	if err != nil {
		return err
	}
	ln, err := listen(c.address, c.port)
	if err != nil {
		return err
	}
	if err := makePKI("https://"+ln.Addr().String(), c.address, c.serviceCIDR); err != nil {
		return err
	}
	parts := &parts{ctx: ctx, failed: make(chan error, 3)}
	if err := startParts(parts, c, ln); err == nil {
		fmt.Printf("ready %s\n", filepath.Join(c.dir, "kubeconfig"))
		select {
		case <-ctx.Done():
		case err = <-parts.failed:
			return err
		}
	} else if ctx.Err() != nil {
		return errors.New("told to stop before ready")
	} else {
		return err
	}

	// An orderly end would take the API server a minute (it drains watches). All state is in etcd's
	// write-ahead log, which outlives the process, so simply exit.
	klog.Flush()
	runtime.KeepAlive(lock)
	return nil
}

// parts are the three components at work.
type parts struct {
	ctx    context.Context
	failed chan error
}

// watch runs a part that should not end before ctx does.
func (p *parts) watch(name string, f func() error) {
	go func() {
		if err := f(); p.ctx.Err() == nil {
			p.failed <- fmt.Errorf("%s stopped: %v", name, err)
		}
	}()
}

// startParts starts all three and returns when they are of use, or when one of them has ended.
func startParts(p *parts, c *config, ln net.Listener) error {
	etcd, err := startEtcd()
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	p.watch("etcd", func() error { return <-etcd.Err() })
	apiOpts, kcmOpts, err := componentOptions(c, ln)
	if err != nil {
		return err
	}
	p.watch("kube-apiserver", func() error { return runAPIServer(p.ctx, apiOpts) })

	result := make(chan error, 1)
	go func() {
		soon, cancel := context.WithTimeout(p.ctx, c.timeout)
		defer cancel()
		result <- bringUp(soon, c, func() {
			p.watch("kube-controller-manager", func() error { return runKCM(p.ctx, kcmOpts) })
		})
	}()
	select {
	case err = <-result:
	case err = <-p.failed:
	}
	return err
}

// enterDir makes the state directory, takes it for ourselves and makes it the working directory.
// The lock is held for as long as the file is open.
func enterDir(c *config) (*os.File, error) {
	var err error
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return nil, err
	}
	if c.crds != "" {
		if c.crds, err = filepath.Abs(c.crds); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	// etcd listens on a Unix socket named by a relative path, so the length of DIR does not matter.
	if err := os.Chdir(c.dir); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile("lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s is in use by another testcluster: %w", c.dir, err)
	}
	if err := redirectStderr("testcluster.log"); err != nil {
		return nil, err
	}
	if strings.HasPrefix(utilversion.Get().GitVersion, "v0.0.0") {
		fmt.Fprintln(console, "testcluster: built without version ldflags, /version will be wrong")
	}
	return lock, nil
}

// redirectStderr sends descriptor 2, where all components log, to a file; console stays what it was.
func redirectStderr(path string) error {
	fd, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return err
	}
	console = os.NewFile(uintptr(fd), "console")
	if err := debug.SetCrashOutput(console, debug.CrashOptions{}); err != nil {
		return err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	return unix.Dup3(int(log.Fd()), 2, 0)
}

// listen takes the API server's port: the one asked for, else the one used last here, else a free one.
func listen(host string, port int) (net.Listener, error) {
	address := func(p int) string { return net.JoinHostPort(host, strconv.Itoa(p)) }
	if port != 0 {
		return net.Listen("tcp4", address(port))
	}
	if b, err := os.ReadFile("port"); err == nil {
		if p, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			if ln, err := net.Listen("tcp4", address(p)); err == nil {
				return ln, nil
			}
		}
	}
	return net.Listen("tcp4", address(0))
}

// until tries check every 25 ms until it succeeds or ctx ends.
func until(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s not ready: %w", what, err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}
