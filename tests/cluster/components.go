package main

// kube-apiserver and kube-controller-manager: their flags, and how they are run and waited for.

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	_ "time/tzdata" // CronJob time zones

	"github.com/spf13/pflag"
	"google.golang.org/grpc/grpclog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kcmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// Controllers that need no kubelet. Left out on purpose: node-lifecycle, taint-eviction and
// pod-garbage-collector (they would evict or delete pods on nodes that send no heartbeats),
// volume and certificate controllers.
var controllers = []string{
	"clusterrole-aggregation-controller", "cronjob-controller", "daemonset-controller", "deployment-controller",
	"disruption-controller", "endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller",
	"garbage-collector-controller", "horizontal-pod-autoscaler-controller", "job-controller", "namespace-controller",
	"persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller", "replicaset-controller",
	"replicationcontroller-controller", "resourcequota-controller", "root-ca-certificate-publisher-controller",
	"service-cidr-controller", "serviceaccount-controller", "serviceaccount-token-controller", "statefulset-controller",
	"ttl-after-finished-controller", "validatingadmissionpolicy-status-controller",
}

// componentOptions parses the flags of both components. They share one feature gate and one
// logging configuration, so the order matters: the controller manager's flags come first, as
// they change a feature default, which is refused once the API server's flags are registered.
func componentOptions(c *config, ln net.Listener) (*apiserveroptions.ServerRunOptions, *kcmoptions.KubeControllerManagerOptions, error) {
	ko, err := kcmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, nil, err
	}
	kflags := ko.Flags(kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	ko.ParsedFlags = &kflags
	ao := apiserveroptions.NewServerRunOptions()
	aflags := ao.Flags()

	err = parse("kube-apiserver", aflags, append([]string{
		"--etcd-servers=unix://etcd.sock",
		"--bind-address=" + c.address,
		"--advertise-address=" + c.address,
		// The kubernetes Service gets no endpoints: nobody would route its address to them.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + c.serviceCIDR,
		"--authorization-mode=RBAC",
		// Whoever sets blockOwnerDeletion must be allowed to set the owner's finalizers, as on OpenShift.
		"--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
		"--allow-privileged=true",
		"--client-ca-file=pki/ca.crt",
		"--tls-cert-file=pki/apiserver.crt",
		"--tls-private-key-file=pki/apiserver.key",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=pki/sa.pub",
		"--service-account-signing-key-file=pki/sa.key",
		"--requestheader-client-ca-file=pki/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=pki/front-proxy-client.crt",
		"--proxy-client-key-file=pki/front-proxy-client.key",
		"--v=" + strconv.Itoa(c.verbosity),
	}, c.apiserverArgs...))
	if err != nil {
		return nil, nil, err
	}
	ao.SecureServing.Listener = ln
	ao.SecureServing.BindPort = ln.Addr().(*net.TCPAddr).Port

	err = parse("kube-controller-manager", kflags, append([]string{
		"--kubeconfig=controller-manager.kubeconfig",
		"--secure-port=0",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--controllers=" + strings.Join(controllers, ","),
		"--root-ca-file=pki/ca.crt",
		"--service-account-private-key-file=pki/sa.key",
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--horizontal-pod-autoscaler-sync-period=" + c.hpaSync.String(),
		"--v=" + strconv.Itoa(c.verbosity),
	}, c.controllerMgrArgs...))
	if err != nil {
		return nil, nil, err
	}

	if err := ao.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, nil, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)) // else a warning for each etcd client
	// Applied once for both components: a second call is an error.
	if err := logsapi.ValidateAndApply(ao.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return nil, nil, err
	}
	return ao, ko, nil
}

// parse reads a component's flags.
func parse(name string, sets cliflag.NamedFlagSets, args []string) error {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	for _, s := range sets.FlagSets {
		fs.AddFlagSet(s)
	}
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%s: not a flag: %q", name, fs.Args())
	}
	return nil
}

// runAPIServer serves until ctx ends.
func runAPIServer(ctx context.Context, o *apiserveroptions.ServerRunOptions) error {
	completed, err := o.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	return apiserver.Run(ctx, completed)
}

// runKCM runs the controllers until ctx ends.
func runKCM(ctx context.Context, o *kcmoptions.KubeControllerManagerOptions) error {
	cfg, err := o.Config(ctx, kcm.KnownControllers(), kcm.ControllersDisabledByDefault(), kcm.ControllerAliases())
	if err != nil {
		return err
	}
	return kcm.Run(ctx, cfg.Complete())
}

// bringUp waits for the API server, makes the CRDs, starts the controllers and waits for the first fruit of their work.
func bringUp(ctx context.Context, c *config, startControllers func()) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", "kubeconfig")
	if err != nil {
		return err
	}
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	if err := until(ctx, "/readyz", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}); err != nil {
		return err
	}
	if err := createCRDs(ctx, cfg, client, c.crds); err != nil {
		return err
	}
	startControllers()
	return until(ctx, "namespace default and its service account", func() error {
		if _, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}
