package omemo_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// BenchmarkDevices is a message to more and more devices, by a manager with a
// store in memory: the time for each stays the same.
func BenchmarkDevices(b *testing.B) {
	for _, devices := range []int{1, 10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			c, err := newBenchCrowd(omemo.V2, memstore.New(alice), devices+1)
			if err != nil {
				b.Fatal(err)
			}
			to := c.recipients(devices)
			for b.Loop() {
				if _, err := c.send(c.m, to); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*devices), "ns/device")
		})
	}
}

// BenchmarkStart opens an account that has more and more sessions in a store on
// SQLite and sends its first message to one of them. No session is read that is
// not needed. B/account is what lives on the heap then.
func BenchmarkStart(b *testing.B) {
	for _, sessions := range []int{1, 100, 10000, 100000} {
		b.Run(fmt.Sprintf("sessions=%d", sessions), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "store.db")
			c := fillStore(b, path, alice, sessions)
			var live uint64
			for b.Loop() {
				b.StopTimer()
				before := liveHeap()
				b.StartTimer()
				store, err := sqlite.Open(b.Context(), path, alice)
				if err != nil {
					b.Fatal(err)
				}
				m, err := omemo.NewManager(b.Context(), store, omemo.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.send(m, c.recipients(1)); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				live = liveHeap() - before
				runtime.KeepAlive(m)
				if err := store.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(live), "B/account")
		})
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// fillStore makes a store with an account that has a session with one device and,
// for the rest, copies of it with others.
func fillStore(b *testing.B, path, account string, sessions int, opts ...sqlstore.Option) *benchCrowd {
	b.Helper()
	ctx := context.Background()
	store, err := sqlite.Open(ctx, path, account, opts...)
	if err != nil {
		b.Fatal(err)
	}
	c, err := newBenchCrowd(omemo.V2, store, 1)
	if err != nil {
		b.Fatal(err)
	}
	rows, err := store.Sessions(ctx, []omemo.Peer{c.devices[0].Peer()})
	if err != nil || len(rows) != 1 {
		b.Fatal(len(rows), err)
	}
	known := c.devices[0].Known()
	for done := 1; done < sessions; {
		changes := &omemo.Changes{}
		for ; done < sessions && len(changes.Sessions) < 5000; done++ {
			device := known
			device.JID = fmt.Sprintf("stored%d@example.org", done)
			row := rows[0]
			row.ID, row.Peer = uint64(done), device.Peer
			changes.Sessions = append(changes.Sessions, row)
			changes.Devices = append(changes.Devices, device)
		}
		if err := store.Commit(ctx, changes); err != nil {
			b.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkAccounts opens many accounts in one process and one SQLite database,
// and each sends a message.
func BenchmarkAccounts(b *testing.B) {
	const accounts = 1000
	path := filepath.Join(b.TempDir(), "store.db")
	first, err := sqlite.Open(b.Context(), path, benchName(0))
	if err != nil {
		b.Fatal(err)
	}
	defer first.Close()
	c, err := newBenchCrowd(omemo.V2, first, 1)
	if err != nil {
		b.Fatal(err)
	}
	device := c.devices[0].Known()
	bundle := c.devices[0].Bundle(1)
	managers := []*omemo.Manager{c.m}
	before := liveHeap()
	for n := 1; n < accounts; n++ {
		store, err := sqlite.Open(b.Context(), path, fmt.Sprintf("account%d@example.org", n))
		if err != nil {
			b.Fatal(err)
		}
		defer store.Close()
		m, err := omemo.NewManager(b.Context(), store, omemo.Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := store.Commit(b.Context(), &omemo.Changes{Devices: []omemo.Device{device}}); err != nil {
			b.Fatal(err)
		}
		if _, err := c.send(m, c.recipients(1), bundle); err != nil {
			b.Fatal(err)
		}
		managers = append(managers, m)
	}
	live := liveHeap() - before
	i := 0
	for b.Loop() {
		if _, err := c.send(managers[i%accounts], c.recipients(1)); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(live)/accounts, "B/account")
}
