package main

// Keys, certificates and the kubeconfig files, made at the first start on a directory.

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// makePKI writes the keys and certificates to pki/, unless they are there from an earlier start,
// and the kubeconfig files.
func makePKI(endpoint, address, serviceCIDR string) error {
	if err := os.MkdirAll("pki", 0o700); err != nil {
		return err
	}
	if _, err := os.Stat("pki/complete"); err != nil {
		if err := makeKeys(address, serviceCIDR); err != nil {
			return err
		}
		if err := os.WriteFile("pki/complete", nil, 0o600); err != nil {
			return err
		}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	if err := os.WriteFile("port", []byte(u.Port()+"\n"), 0o600); err != nil {
		return err
	}
	for file, user := range map[string]string{"kubeconfig": "admin", "controller-manager.kubeconfig": "controller-manager"} {
		if err := writeKubeconfig(file, user, endpoint); err != nil {
			return err
		}
	}
	return nil
}

// makeKeys writes two authorities (clients, and proxies in front), what they sign, and the key of service account tokens.
func makeKeys(address, serviceCIDR string) error {
	_, cidr, err := net.ParseCIDR(serviceCIDR)
	if err != nil {
		return err
	}
	serviceIP := slices.Clone(cidr.IP)
	serviceIP[len(serviceIP)-1]++

	ca, err := newCA("ca", "testcluster")
	if err != nil {
		return err
	}
	if err := ca.issue("apiserver", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(address), serviceIP},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
	}); err != nil {
		return err
	}
	clientAuth := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for name, subject := range map[string]pkix.Name{
		"admin":              {CommonName: "testcluster-admin", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
	} {
		if err := ca.issue(name, &x509.Certificate{Subject: subject, ExtKeyUsage: clientAuth}); err != nil {
			return err
		}
	}
	frontProxy, err := newCA("front-proxy-ca", "testcluster front proxy")
	if err != nil {
		return err
	}
	if err := frontProxy.issue("front-proxy-client", &x509.Certificate{
		Subject: pkix.Name{CommonName: "front-proxy-client"}, ExtKeyUsage: clientAuth}); err != nil {
		return err
	}

	sa, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := writeKey("pki/sa.key", sa); err != nil {
		return err
	}
	pub, err := x509.MarshalPKIXPublicKey(sa.Public())
	if err != nil {
		return err
	}
	return writePEM("pki/sa.pub", "PUBLIC KEY", pub)
}

// ca is a certificate authority.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newCA makes an authority and writes it to pki/file.crt and .key.
func newCA(file, name string) (*ca, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	self := &ca{key: key, cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}}
	if self.cert, err = self.sign(file, self.cert, key); err != nil {
		return nil, err
	}
	return self, nil
}

// issue makes a key and a certificate like template, and writes both to pki/.
func (c *ca) issue(file string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	_, err = c.sign(file, template, key)
	return err
}

// sign completes template for key and writes both to pki/.
func (c *ca) sign(file string, template *x509.Certificate, key crypto.Signer) (*x509.Certificate, error) {
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	template.BasicConstraintsValid = true
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.AddDate(1, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, err
	}
	if err := writePEM("pki/"+file+".crt", "CERTIFICATE", der); err != nil {
		return nil, err
	}
	if err := writeKey("pki/"+file+".key", key); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func writeKey(file string, key crypto.Signer) error {
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// writeKubeconfig writes what a client of this name needs.
func writeKubeconfig(file, user, endpoint string) error {
	read := func(name string) []byte { b, _ := os.ReadFile("pki/" + name); return b }
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["testcluster"] = &clientcmdapi.Cluster{Server: endpoint, CertificateAuthorityData: read("ca.crt")}
	cfg.AuthInfos[user] = &clientcmdapi.AuthInfo{
		ClientCertificateData: read(user + ".crt"), ClientKeyData: read(user + ".key")}
	cfg.Contexts["testcluster"] = &clientcmdapi.Context{Cluster: "testcluster", AuthInfo: user}
	cfg.CurrentContext = "testcluster"
	return clientcmd.WriteToFile(*cfg, file)
}
