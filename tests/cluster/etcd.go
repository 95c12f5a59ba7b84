package main

// The store: one etcd member on Unix sockets, which writes its log but never waits for the disk.

import (
	"errors"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// startEtcd returns when the store answers.
func startEtcd() (*embed.Etcd, error) {
	wal.SegmentSizeBytes = 4 << 20 // two segments are allocated at once; 64 MB each by default
	cfg := embed.NewConfig()
	cfg.Name = "default"
	cfg.Dir = "etcd"
	socket := func(host string) []url.URL { return []url.URL{{Scheme: "unix", Host: host}} }
	cfg.ListenClientUrls, cfg.ListenPeerUrls = socket("etcd.sock"), socket("etcd-peer.sock")
	// Never dialled, but etcd wants a port in them.
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = socket("etcd.sock:0"), socket("etcd-peer.sock:0")
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.UnsafeNoFsync = true
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{"etcd.log"}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err := <-e.Err():
		return nil, err
	case <-time.After(20 * time.Second):
		e.Close()
		return nil, errors.New("not ready after 20 s")
	}
}
