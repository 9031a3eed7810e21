package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"
)

// pki: certificates as a cluster of one machine has them: a CA, the server, its administrator.
type pki struct {
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

const year = 365 * 24 * time.Hour

func newPki(dir string) (*pki, error) {
	p := &pki{dir: dir}
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: "kubernetes-ca"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if err := p.issue("ca", &template, time.Now()); err != nil {
		return nil, err
	}
	server := x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if err := p.issue("apiserver", &server, time.Now()); err != nil {
		return nil, err
	}
	// What a machine without a battery makes for itself, for who asks for it by its name.
	then := server
	then.DNSNames = []string{"then.kubernetes"}
	if err := p.issue("then", &then, time.Unix(3*60*60, 0)); err != nil {
		return nil, err
	}
	admin := x509.Certificate{
		Subject:     pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if err := p.issue("admin", &admin, time.Now()); err != nil {
		return nil, err
	}
	// Known to the CA, and may do nothing.
	nobody := admin
	nobody.Subject = pkix.Name{CommonName: "nobody"}
	return p, p.issue("nobody", &nobody, time.Now())
}

// issue: NAME.crt and NAME.key, by a clock that says this; the first of all is the CA.
func (p *pki) issue(name string, template *x509.Certificate, clock time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return err
	}
	template.NotBefore, template.NotAfter = clock.Add(-time.Hour), clock.Add(year)
	parent, signer := p.ca, p.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	// As "EC PRIVATE KEY": what kube-apiserver reads of a service account's key as well.
	secret, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return err
	}
	if p.ca == nil {
		if p.ca, err = x509.ParseCertificate(der); err != nil {
			return err
		}
		p.key = key
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(p.path(name+".crt"), certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(p.path(name+".key"), secret, 0o600)
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, name) }

// flags: a cluster of one machine, as strict as kube-apiserver is by itself.
func (p *pki) flags(etcd string) []string {
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1",
		"--tls-cert-file=" + p.path("apiserver.crt"),
		"--tls-private-key-file=" + p.path("apiserver.key"),
		"--tls-sni-cert-key=" + p.path("then.crt") + "," + p.path("then.key"),
		"--client-ca-file=" + p.path("ca.crt"),
		"--anonymous-auth=false",
		"--authorization-mode=Node,RBAC",
		"--service-cluster-ip-range=10.43.0.0/16",
		"--service-account-issuer=https://kubernetes.default",
		"--service-account-key-file=" + p.path("admin.key"),
		"--service-account-signing-key-file=" + p.path("admin.key"),
		"--endpoint-reconciler-type=none",
		"--profiling=false",
		"-v=1",
	}
}

// kubeconfig: everything stands in it, as in KubeSolo's.
func (p *pki) kubeconfig(server string) (*api.Config, error) {
	config, cluster, user := api.NewConfig(), api.NewCluster(), api.NewAuthInfo()
	cluster.Server = server
	for name, into := range map[string]*[]byte{
		"ca.crt": &cluster.CertificateAuthorityData, "admin.crt": &user.ClientCertificateData, "admin.key": &user.ClientKeyData,
	} {
		bytes, err := os.ReadFile(p.path(name))
		if err != nil {
			return nil, err
		}
		*into = bytes
	}
	context := api.NewContext()
	context.Cluster, context.AuthInfo = "kubernetes", "admin"
	config.Clusters["kubernetes"], config.AuthInfos["admin"], config.Contexts["admin@kubernetes"] = cluster, user, context
	config.CurrentContext = "admin@kubernetes"
	return config, nil
}
